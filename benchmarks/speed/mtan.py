"""A training step of SegNet or MTAN: mtlkit's against the study's.

Three tasks on the same pictures, losses and starting weights: forward, losses, backward, Adam. The
study's step is written as it was, in torch's default memory order. Others are mtlkit's step with
one thing changed: ``contiguous`` is not channels last, ``recompute`` checkpoints activations.
"""

import argparse
import copy
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import study
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mtlkit import Features, api, config, measure
from mtlkit.measure import Cost, Work
from mtlkit.session import Run
from mtlkit.train import windows

NETWORKS: dict[str, type[study.SegNet]] = {"segnet": study.SegNet, "mtan": study.MTAN}
OURS: dict[str, tuple[str, ...]] = {
    "mtlkit": (),
    "contiguous": ("--channels-last=false",),
    "recompute": ("--checkpoint-activations",),
}
BASELINE = "study"


def run(args: argparse.Namespace, *changes: str) -> Run:
    """The parts of a run, as ``mtlkit train`` would have them."""
    ids = ["seg", "cls", "bbox", *(f"cls{number}=cls" for number in range(2, args.tasks - 1))]
    options = {
        "tasks": ",".join(ids[: args.tasks]), "backbone": args.network,
        "backbone.width": args.width, "data": "shapes", "data.size": args.size,
        "data.train": args.batch, "batch-size": args.batch, "workers": 0, "augment": "none",
        "optimizer": "adam", "lr": 1e-4, "weight-decay": 0, "scheduler": "none",
        "precision": args.precision,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items()]
    made = api.assemble(config.parse([*words, *changes]))
    made.model.train()
    return made


def ours(args: argparse.Namespace, *changes: str) -> Work:
    """A step of mtlkit's engine."""
    made = run(args, *changes)
    window = next(windows(made.loader("train"), made.model, made.settings))
    return partial(made.engine, window, step=0, epoch=0)


class Study(nn.Module):
    """The study's network with mtlkit's heads, and its step."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        made = run(args, "--channels-last=false", "--precision=no")
        model = made.model
        tasks, dense = model.backbone.tasks, model.backbone.dense_tasks
        self.backbone = NETWORKS[args.network](tasks, dense, width=args.width)
        self.backbone.load_state_dict(model.backbone.state_dict())
        self.heads = copy.deepcopy(model.heads)
        self.to(model.device)
        self.tasks = model.tasks.values()
        (self.batch,) = next(windows(made.loader("train"), model, made.settings))
        self.images = (self.batch.inputs[0] - model.mean) / model.std
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-4)

    def step(self) -> torch.Tensor:
        """One step; returns the sum of the losses."""
        features = self.backbone(self.images)
        size = (self.images.shape[-2], self.images.shape[-1])
        losses = []
        for task, target, present in zip(
            self.tasks, self.batch.targets, self.batch.present, strict=True
        ):
            levels, dense = features[task.id]
            prediction = self.heads[task.id](Features(tuple(levels), dense), size)
            loss, count = task.loss(prediction, target, present)
            losses.append(loss / count)
        total = torch.stack(losses).sum()
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        return total.detach()


def makers(args: argparse.Namespace) -> dict[str, Callable[[], Work]]:
    """Every way to do the step."""
    ways = {name: partial(ours, args, *changes) for name, changes in OURS.items()}
    return {BASELINE: lambda: Study(args).step, **ways}


def losses(args: argparse.Namespace, steps: int) -> dict[str, list[float]]:
    """Sums of the losses in the first steps, by way: they must be the same."""
    found = {}
    for name, make in makers(args).items():
        work = make()
        results: list[Any] = [work() for _ in range(steps)]
        sums = [r if isinstance(r, torch.Tensor) else sum(r.losses.values()) for r in results]
        found[name] = [float(total) for total in sums]
    return found


def operations(work: Work, least: float = 0.01) -> str:
    """The operations of some work that take more than a share of its time, in a table."""
    work()
    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with profile(activities=[ProfilerActivity.CPU, *cuda]) as profiler:
        work()
    kind = "device" if cuda else "cpu"
    events = profiler.key_averages()
    times = {e.key: (getattr(e, f"self_{kind}_time_total"), e.count) for e in events}
    total = sum(time for time, _ in times.values())
    rows = [["operation", "time", "share", "calls"]]
    for key, (time, count) in sorted(times.items(), key=lambda item: -item[1][0]):
        if time > least * total:
            rows.append([key[:60], f"{time / 1000:.1f} ms", f"{time / total:.1%}", str(count)])
    return measure.columns(rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", choices=tuple(NETWORKS), default="mtan")
    parser.add_argument("--tasks", type=int, default=3, choices=range(1, 7))
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--width", type=int, default=64, help="channels of the first block")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no", help="of mtlkit's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="operations above 1 %% of the time")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    if args.profile:
        for name in (BASELINE, "mtlkit"):
            print(name, operations(makers(args)[name]()), sep="\n", end="\n\n")
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = device or torch.device("cpu")
    costs: dict[str, Cost] = measure.in_turns(
        makers(args), BASELINE, rounds=args.rounds, device=device
    )
    print(measure.table(costs, BASELINE))
    if args.output:
        given = {name: value for name, value in vars(args).items() if name != "output"}
        found = {"options": given, "items": measure.numbers(costs, BASELINE)}
        measure.write(args.output, shlex.join(["python", *sys.argv]), device, found)


if __name__ == "__main__":
    main()
