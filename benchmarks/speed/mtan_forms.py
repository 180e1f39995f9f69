"""Ways to compute an attention block of MTAN for all tasks: what each costs, block by block.

``loop`` goes from task to task and concatenates what a mask sees, as the study's and mtlkit's do.
``split`` adds two convolutions instead, which keeps less but is no faster. ``stacked`` convolves
what all tasks see once, with the tasks' weights stacked; ``folded`` convolves the masked maps of
all tasks as one batch; ``grouped`` does all, with grouped convolutions. Batch norm sees one task at
a time in each, in the same order.

The last three join the tasks' graphs. A task's gradient then goes through the others' maps, which
costs a balancer that asks for each task's gradient T times as much, and makes every task a user of
the others' masks: they would have to win by much to be worth two forms of MTAN.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mtlkit import measure

WIDTHS = (1, 2, 4, 8, 8)
BASELINE = "loop"


class Block:
    """One block of the encoder for some tasks, with random weights and features."""

    def __init__(
        self, number: int, tasks: int, size: int, batch: int, width: int, order: torch.memory_format
    ) -> None:
        def random(*shape: int, scale: float = 1.0) -> Tensor:
            values = torch.randn(*shape) * scale
            return values.to(memory_format=order).requires_grad_()

        c, out = width * WIDTHS[number], width * WIDTHS[min(number + 1, 4)]
        side = size >> number
        self.tasks = range(tasks)
        self.first, self.last = random(batch, c, side, side), random(batch, c, side, side)
        self.before = [random(batch, c, side, side) for _ in self.tasks] if number else []
        self.split_at = c
        inputs = 2 * c if number else c
        self.looks = [random(c, inputs, 1, 1, scale=0.1) for _ in self.tasks]
        self.masks = [random(c, c, 1, 1, scale=0.1) for _ in self.tasks]
        self.shared = random(out, c, 3, 3, scale=0.1)

    def work(self, form: str) -> list[Tensor]:
        """Forward and backward; returns the features and the gradient of what tasks share."""
        levels = getattr(self, form)()
        leaves = [self.first, self.last, *self.before, *self.looks, *self.masks, self.shared]
        return [*levels, *torch.autograd.grad([level.mean() for level in levels], leaves)]

    def loop(self) -> list[Tensor]:
        """As the study does."""
        return [self._rest(t, F.conv2d(self._seen(t), self.looks[t])) for t in self.tasks]

    def split(self) -> list[Tensor]:
        """The first convolution of each part of what a mask sees, and their sum."""
        shared, own = self._weights()
        found = []
        for t in self.tasks:
            x = F.conv2d(self.first, shared[t])
            found.append(self._rest(t, x.add_(F.conv2d(self.before[t], own[t])) if own else x))
        return found

    def stacked(self) -> list[Tensor]:
        """What all tasks see is convolved once."""
        shared, own = self._weights()
        seen = F.conv2d(self.first, torch.cat(shared)).chunk(len(self.tasks), 1)
        pairs = zip(self.tasks, seen, strict=True)
        return [self._rest(t, x + F.conv2d(self.before[t], own[t]) if own else x) for t, x in pairs]

    def folded(self) -> list[Tensor]:
        """The shared convolution sees one batch of all tasks' masked maps."""
        masks = [self._mask(t, F.conv2d(self._seen(t), self.looks[t])) for t in self.tasks]
        return self._all(masks)

    def grouped(self) -> list[Tensor]:
        """Everything at once."""
        shared, own = self._weights()
        x = F.conv2d(self.first, torch.cat(shared))
        if own:
            x = x + F.conv2d(torch.cat(self.before, 1), torch.cat(own), groups=len(self.tasks))
        hidden = norm(x).relu()
        masks = norm(F.conv2d(hidden, torch.cat(self.masks), groups=len(self.tasks))).sigmoid()
        return self._all(masks.chunk(len(self.tasks), 1))

    def _seen(self, t: int) -> Tensor:
        return torch.cat((self.first, self.before[t]), 1) if self.before else self.first

    def _weights(self) -> tuple[list[Tensor], list[Tensor]]:
        shared = [w[:, : self.split_at] for w in self.looks]
        return shared, [w[:, self.split_at :] for w in self.looks] if self.before else []

    def _mask(self, t: int, x: Tensor) -> Tensor:
        return norm(F.conv2d(norm(x).relu(), self.masks[t])).sigmoid()

    def _rest(self, t: int, x: Tensor) -> Tensor:
        convolved = F.conv2d(self._mask(t, x) * self.last, self.shared, padding=1)
        return F.max_pool2d(norm(convolved).relu(), 2)

    def _all(self, masks: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
        masked = torch.cat([mask * self.last for mask in masks])
        convolved = F.conv2d(masked, self.shared, padding=1).chunk(len(self.tasks))
        return [F.max_pool2d(norm(x).relu(), 2) for x in convolved]


FORMS = ("loop", "split", "stacked", "folded", "grouped")


def norm(x: Tensor) -> Tensor:
    """Batch norm in training mode."""
    return F.batch_norm(x, None, None, training=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--width", type=int, default=64, help="channels of the first block")
    parser.add_argument("--contiguous", action="store_true", help="not channels last")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    order = torch.contiguous_format if args.contiguous else torch.channels_last
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = device or torch.device("cpu")
    torch.set_default_device(device)
    found = {}
    for number in range(len(WIDTHS)):
        block = Block(number, args.tasks, args.size, args.batch, args.width, order)
        makers: dict[str, Callable[[], measure.Work]] = {
            form: lambda form=form, block=block: partial(block.work, form) for form in FORMS
        }
        costs = measure.in_turns(makers, BASELINE, rounds=args.rounds, device=device)
        print(f"block {number + 1}, maps of {args.size >> number} px")
        print(measure.table(costs, BASELINE), end="\n\n")
        found[f"block {number + 1}"] = measure.numbers(costs, BASELINE)
    if args.output:
        given = {name: value for name, value in vars(args).items() if name != "output"}
        command = shlex.join(["python", *sys.argv])
        measure.write(args.output, command, device, {"options": given, "blocks": found})


if __name__ == "__main__":
    main()
