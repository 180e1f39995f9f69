"""What balancing by gradients costs: ours, TorchJD's and LibMTL's, on one network, in turn.

Everything is compared with a step written by hand: forward, the sum of the losses backward, SGD.
``floor`` is what no exact method can beat: (F + H + K T) / (F + H + T), with F the forward pass,
H the heads' backward pass and T that of what comes before the features, all measured here.

TorchJD and LibMTL are used as installed; what cannot be imported or fails is named and left out.
"""

import argparse
import importlib
import importlib.util
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import mtlkit
from mtlkit import api, config, measure, registry
from mtlkit.build import build_engine, create
from mtlkit.gradients import Cut
from mtlkit.options import required
from mtlkit.settings import Choice
from mtlkit.train import windows

OURS = ("mgda", "upgrad", "cagrad", "pcgrad", "nash")
PLAIN = "by hand"
LIBMTL_OPTIONS = {"calpha": 0.4, "rescale": 1, "mgda_gn": "none"}
NETWORKS = {
    "resnet18": (["--backbone", "timm"], "cls"),
    "segnet": (["--backbone", "segnet"], "seg"),
}
"""Options of each network, and the first task; the others are ``cls``, whose head is linear."""


class Bench:
    """A network, a batch, and every way to do one optimiser step on them."""

    def __init__(self, network: str, tasks: int, size: int, batch: int, *, channels_last: bool):
        backbone, first = NETWORKS[network]
        kinds = [first, *["cls"] * (tasks - 1)]
        ids = ",".join(f"t{i}={kind}" for i, kind in enumerate(kinds))
        words = ["--tasks", ids, *backbone, "--data", "shapes", "--data.size", str(size)]
        words += ["--batch-size", str(batch), "--workers", "0"]
        words += [f"--channels-last={str(channels_last).lower()}"]
        self.run = api.assemble(config.parse(words))
        self.model = self.run.model.train()
        self.sharing = self.run.engine.sharing
        (self.batch,) = next(windows(self.run.loader("train"), self.model, self.run.settings))
        sgd = torch.optim.SGD(self.model.parameters(), lr=0.0)  # costs next to nothing
        self.optimizer = self.run.accelerator.prepare_optimizer(sgd)
        self.shared = self.sharing.shared
        self.own = list(self.sharing.own.values())

    def losses(self, predictions: dict[str, Tensor]) -> list[Tensor]:
        """Mean loss of each task."""
        tasks = self.model.tasks.values()
        pairs = zip(tasks, self.batch.targets, self.batch.present, strict=True)
        return [
            total / count.clamp(min=1)
            for total, count in (task.loss(predictions[task.id], *rest) for task, *rest in pairs)
        ]

    def done(self) -> None:
        """The end of every step."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def plain(self) -> None:
        """The step by hand."""
        torch.stack(self.losses(self.model(*self.batch.inputs))).sum().backward()
        self.done()

    def parts(self) -> list[float]:
        """Seconds of the forward pass, the heads' backward pass and the trunk's."""
        times = [time.perf_counter()]
        images = self.batch.inputs[0]
        cut = Cut(self.model.encode(images), len(self.own))
        size = (images.shape[-2], images.shape[-1])
        losses = self.losses(self.model.decode(cut.features, tuple(self.model.tasks), size))
        times.append(time.perf_counter())
        torch.stack(losses).sum().backward()
        times.append(time.perf_counter())
        pairs = zip(cut.before, cut.after, strict=True)
        used = [(x, y.grad) for x, y in pairs if y.grad is not None]
        torch.autograd.backward([x for x, _ in used], [grad for _, grad in used])
        times.append(time.perf_counter())
        self.optimizer.zero_grad(set_to_none=True)
        return [b - a for a, b in pairwise(times)]

    def ours(self, name: str, gradients: str) -> measure.Work:
        """A new engine."""
        settings = self.run.settings
        settings.gradients = gradients  # type: ignore[assignment]
        balancer = create("balancer", Choice(name), tuple(self.model.tasks))
        engine = build_engine(
            settings, self.run.accelerator, self.model, balancer, self.optimizer, self.sharing
        )
        return partial(engine, [self.batch], step=0, epoch=0)

    def torchjd(self, name: str, chunk: int | None) -> measure.Work:
        """TorchJD's step for several tasks, as its documentation has it."""
        from torchjd import aggregation, autojac

        options = {"c": 0.4} if name == "CAGrad" else {}
        aggregator = getattr(aggregation, name)(**options)
        images = self.batch.inputs[0]
        size = (images.shape[-2], images.shape[-1])

        def step() -> None:
            encoded = self.model.encode(images)
            losses = self.losses(self.model.decode(encoded, tuple(self.model.tasks), size))
            features = [x for x in tree_leaves(encoded) if isinstance(x, Tensor)]
            autojac.mtl_backward(
                losses,
                features=features[-1:] if self.last_alone else features,
                tasks_params=self.own,
                shared_params=self.shared,
                parallel_chunk_size=chunk,
            )
            autojac.jac_to_grad(self.shared, aggregator)
            self.done()

        return step

    last_alone = True
    """Both networks' heads read only the last features; the others only lead to them."""

    def libmtl(self, name: str) -> measure.Work:
        """LibMTL's weighting class, with what its architecture class would give it."""
        weighting = getattr(_libmtl(name), name)

        def zero_grad(_: Any) -> None:
            for parameter in self.shared:
                parameter.grad = torch.zeros_like(parameter)

        members = {
            "get_share_params": lambda _: iter(self.shared),
            "zero_grad_share_params": zero_grad,
        }
        method = type(name, (weighting,), members)()
        method.task_num, method.task_name = len(self.own), list(self.model.tasks)
        method.device, method.rep_grad = self.run.accelerator.device, False
        method.init_param()

        def step() -> None:
            losses = self.losses(self.model(*self.batch.inputs))
            method.backward(torch.stack(losses), **LIBMTL_OPTIONS)
            self.done()

        return step

    def ways(self, balancers: Sequence[str]) -> dict[str, measure.Maker]:
        """What makes each way ready, by name."""
        found: dict[str, measure.Maker] = {PLAIN: lambda: self.plain}
        found["mtlkit equal"] = partial(self.ours, "equal", "parameters")
        for gradients in ("parameters", "features"):
            for name in balancers:
                found[f"mtlkit {name}, {gradients}"] = partial(self.ours, name, gradients)
        for chunk, words in ((None, "batched"), (1, "one pass at a time")):
            for name in ("UPGrad", "MGDA", "CAGrad", "PCGrad"):
                found[f"TorchJD {name}, {words}"] = partial(self.torchjd, name, chunk)
        for name in ("UPGrad", "MGDA", "CAGrad", "PCGrad", "Nash_MTL"):
            found[f"LibMTL {name}"] = partial(self.libmtl, name)
        return found

    def usable(self, ways: dict[str, measure.Maker]) -> dict[str, measure.Maker]:
        """Without those that fail, which are named."""
        good = {}
        for name, make in ways.items():
            try:
                make()()
                good[name] = make
            except Exception as error:  # a peer's own, whatever it is
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"{name} left out: {reason}", file=sys.stderr)
                self.optimizer.zero_grad(set_to_none=True)
                for parameter in self.shared:
                    vars(parameter).pop("jac", None)
        return good

    def floor(self, rounds: int) -> float:
        """The least that an exact method costs, against the plain step; median over rounds."""
        tasks = len(self.own)
        parts = [self.parts() for _ in range(rounds + 1)][1:]
        return statistics.median((f + h + tasks * t) / (f + h + t) for f, h, t in parts)


def _libmtl(name: str) -> types.ModuleType:
    """One module of LibMTL, whose package imports what newer torchvisions do not have."""
    if "LibMTL" not in sys.modules:
        spec = importlib.util.find_spec("LibMTL")
        if spec is None:
            raise ImportError("LibMTL is not installed")
        package = types.ModuleType("LibMTL")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["LibMTL"] = package
    return importlib.import_module(f"LibMTL.weighting.{name}")


def _seconds(work: measure.Work) -> float:
    return measure.seconds(torch.device("cpu"), work)


def solvers() -> dict[str, dict[str, float]]:
    """Milliseconds of a decision alone, by number of tasks; median over 20 Gramians."""
    from torchjd import aggregation

    theirs = {
        "torchjd UPGrad": lambda _: aggregation.UPGradWeighting(),
        "torchjd MGDA": lambda _: aggregation.MGDAWeighting(),
        "torchjd CAGrad": lambda _: aggregation.CAGradWeighting(c=0.4),
        "torchjd PCGrad": lambda _: aggregation.PCGradWeighting(),
    }
    known = [name for name in OURS if name in mtlkit.names("balancer")]
    ours = {f"mtlkit {n}": partial(_solver, n) for n in known}
    found = {}
    for name, make in {**ours, **theirs}.items():
        found[name] = {str(tasks): _milliseconds(make(tasks), tasks) for tasks in (3, 10)}
    return found


def _solver(name: str, tasks: int) -> Callable[[Tensor], Any]:
    balancer = create("balancer", Choice(name), [f"t{i}" for i in range(tasks)])

    def decide(gramian: Tensor) -> Tensor:
        losses = torch.ones(tasks, dtype=torch.float64)
        weights: Tensor = balancer.weights(mtlkit.StepStats(losses, gramian))
        return weights

    return decide


def _milliseconds(solve: Callable[[Tensor], Any], tasks: int) -> float:
    random = torch.Generator().manual_seed(0)
    times = []
    for _ in range(20):
        rows = torch.randn(tasks, 2 * tasks, generator=random, dtype=torch.float64)
        gramian = rows @ rows.T
        solve(gramian)
        times.append(min(_seconds(partial(solve, gramian)) for _ in range(3)))
    return 1000 * statistics.median(times)


def all_balancers() -> list[str]:
    """Every registered balancer that decides by gradients and needs no option."""
    found = registry.load()
    classes = {name: found.find("balancer", name).load() for name in found.names("balancer")}
    return [name for name, cls in classes.items() if cls.needs != "losses" and not required(cls)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet18")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--balancers", nargs="+", default=OURS, help="of mtlkit, or: all")
    parser.add_argument("--channels-last", action="store_true", help="LibMTL cannot do this")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args(argv)
    bench = Bench(args.network, args.tasks, args.size, args.batch, channels_last=args.channels_last)
    names = all_balancers() if args.balancers == ["all"] else args.balancers
    ways = bench.usable(bench.ways(names))
    device = bench.run.accelerator.device
    costs = measure.in_turns(ways, PLAIN, rounds=args.rounds, device=device)
    floor = bench.floor(args.rounds)
    alone = solvers()
    print(measure.table(costs, PLAIN))
    print(f"floor of exact methods: {floor:.2f}")
    print("a decision alone, in ms, for 3 and 10 tasks:")
    rows = [[name, *(f"{value:.2f}" for value in by_tasks.values())]
            for name, by_tasks in alone.items()]  # fmt: skip
    print(measure.columns(rows))
    if args.output:
        found = {"steps": measure.numbers(costs, PLAIN), "floor": floor, "solvers": alone}
        measure.write(args.output, " ".join(["python", *sys.argv]), device, found)


if __name__ == "__main__":
    main()
