"""A training step of mtlkit's against one written by hand: same network, losses and data.

The loop by hand knows its three tasks and takes no missing label; everything else is what a good
loop has: channels-last images, autocast, one backward pass, a fused AdamW.

``--profile`` prints which operations take more than one percent of mtlkit's step.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from mtlkit import api, config, measure
from mtlkit.build import build_engine, build_optimizer
from mtlkit.session import Run

BORDER = 255
NETWORKS = {
    "resnet18": ["--backbone", "timm"],
    "resnet50-unet": ["--backbone.model", "resnet50", "--tasks.seg.head", "unet"],
    "segnet": ["--backbone", "segnet"],
    "mtan": ["--backbone", "mtan"],
}


class Steps:
    """Two ways to do one step on the same batch of a run's loader.

    Args:
        words: the options of ``mtlkit train``.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.run: Run = api.assemble(config.parse([*words, "--workers", "0"]))
        self.run.model.train()
        self.device = self.run.accelerator.device
        batch = next(iter(self.run.loader("train", train=True)))
        self.batch = {**batch, "image": batch["image"].to(self.device)}
        self.raw = batch["image"].to(self.device)
        self.targets = {name: value.to(self.device) for name, value in batch["targets"].items()}

    def mtlkit(self) -> measure.Work:
        """What ``mtlkit train`` does with a batch of its loader."""
        run, settings = self.run, self.run.settings
        optimizer = build_optimizer(settings, run.model, run.balancer)
        prepared = run.accelerator.prepare_optimizer(optimizer)
        sharing = run.engine.sharing
        engine = build_engine(settings, run.accelerator, run.model, run.balancer, prepared, sharing)

        def work() -> None:
            batch = run.model.prepare(self.batch, channels_last=settings.channels_last)
            engine([batch], step=0, epoch=0)

        return work

    def by_hand(self) -> measure.Work:
        """The same in plain PyTorch."""
        model, settings = self.run.model, self.run.settings
        backbone, heads = model.backbone, model.heads
        network: Callable[..., Any] = backbone.encode
        route = backbone.route
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        half = settings.precision == "bf16"
        mean, std, tasks = model.mean, model.std, tuple(heads)

        def work() -> None:
            images = self.raw.to(memory_format=layout).float().div_(255)
            context = torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()
            with context:
                features = route(network((images - mean) / std), tasks)
                size = (images.shape[-2], images.shape[-1])
                out = {name: heads[name](features[name], size).float() for name in tasks}
            labels = self.targets["seg"].long()
            box = out["bbox"] + out["bbox"].new_tensor((0.25, 0.25, 0.75, 0.75))
            loss = (
                F.cross_entropy(out["seg"], labels, ignore_index=BORDER)
                + F.cross_entropy(out["cls"], self.targets["cls"])
                + F.smooth_l1_loss(box, self.targets["bbox"], beta=0.1)
            )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return work


def profiled(work: measure.Work, device: torch.device, *, steps: int = 3) -> str:
    """Operations with more than one percent of the time, by the time they take themselves."""
    work()
    activities = [ProfilerActivity.CPU]
    on_gpu = device.type == "cuda"
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            work()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events)
    rows = [["operation", "share", "calls"]]
    for event in events:
        share = getattr(event, key) / total
        if share > 0.01:
            rows.append([event.key, f"{100 * share:.1f} %", str(event.count // steps)])
    return measure.columns(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet18")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, help="of segnet or mtan")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--compile", action="store_true", help="the network, in mtlkit's step")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args(argv)
    words = [*NETWORKS[args.network], "--data", "shapes", "--data.size", str(args.size)]
    words += ["--batch-size", str(args.batch), "--precision", args.precision]
    words += [f"--compile={str(args.compile).lower()}", "--tasks", "seg,cls,bbox"]
    words += ["--backbone.width", str(args.width)] if args.width else []
    steps = Steps(words)
    makers: dict[str, measure.Maker] = {"by hand": steps.by_hand, "mtlkit": steps.mtlkit}
    if args.profile:
        print(profiled(steps.mtlkit(), steps.device))
    costs = measure.in_turns(makers, "by hand", rounds=args.rounds, device=steps.device)
    print(measure.table(costs, "by hand"))
    if args.output:
        command = " ".join(["python", *sys.argv])
        found = {"steps": measure.numbers(costs, "by hand")}
        measure.write(args.output, command, steps.device, found)


if __name__ == "__main__":
    main()
