"""What balancing by gradients costs: ours, TorchJD's and LibMTL's, on one network, in turn.

Everything is compared with a step written by hand: forward, the sum of the losses backward, SGD.
Each is measured next to such a step, round after round; what is printed are medians of ratios.
``floor`` is what no exact method can beat: (F + H + K T) / (F + H + T), with F the forward pass,
H the heads' backward pass and T that of what comes before the features, all measured here.

TorchJD and LibMTL are used as installed; what cannot be imported or fails is named and left out.
"""

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import mtlkit
from mtlkit import api, config
from mtlkit.bench import MIB, peak_bytes
from mtlkit.build import build_engine, create
from mtlkit.gradients import Cut
from mtlkit.run import environment
from mtlkit.settings import Choice
from mtlkit.train import windows

OURS = ("mgda", "upgrad", "cagrad", "pcgrad", "nash")
LIBMTL_OPTIONS = {"calpha": 0.4, "rescale": 1, "mgda_gn": "none"}
NETWORKS = {
    "resnet18": (["--backbone", "timm"], "cls"),
    "segnet": (["--backbone", "segnet"], "seg"),
}
"""Options of each network, and the first task; the others are ``cls``, whose head is linear."""

Step = Callable[[], Any]


class Bench:
    """A network, a batch, and every way to do one optimiser step on them."""

    def __init__(self, network: str, tasks: int, size: int, batch: int, *, channels_last: bool):
        backbone, first = NETWORKS[network]
        kinds = [first, *["cls"] * (tasks - 1)]
        ids = ",".join(f"t{i}={kind}" for i, kind in enumerate(kinds))
        words = ["--tasks", ids, *backbone, "--data", "shapes", "--data.size", str(size)]
        words += ["--batch-size", str(batch), "--workers", "0"]
        words += [f"--channels-last={str(channels_last).lower()}"]
        self.run = api._assemble(config.parse(words))
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

    def ours(self, name: str, gradients: str) -> Step:
        """A new engine."""
        settings = self.run.settings
        settings.gradients = gradients  # type: ignore[assignment]
        balancer = create("balancer", Choice(name), tuple(self.model.tasks))
        engine = build_engine(
            settings, self.run.accelerator, self.model, balancer, self.optimizer, self.sharing
        )
        return partial(engine, [self.batch], step=0, epoch=0)

    def torchjd(self, name: str, chunk: int | None) -> Step:
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

    def libmtl(self, name: str) -> Step:
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

    def items(self) -> Iterator[tuple[str, Callable[[], Step]]]:
        """Every way by name, and what makes it ready."""
        yield "plain", lambda: self.plain
        known = [name for name in OURS if name in mtlkit.names("balancer")]
        yield "mtlkit equal", partial(self.ours, "equal", "parameters")
        for gradients in ("parameters", "features"):
            for name in known:
                yield f"mtlkit {name}, {gradients}", partial(self.ours, name, gradients)
        for chunk in (None, 1):
            for name in ("UPGrad", "MGDA", "CAGrad", "PCGrad"):
                yield f"torchjd {name}, chunk {chunk}", partial(self.torchjd, name, chunk)
        for name in ("UPGrad", "MGDA", "CAGrad", "PCGrad", "Nash_MTL"):
            yield f"LibMTL {name}", partial(self.libmtl, name)


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


def measure(bench: Bench, rounds: int) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Seconds and peak bytes by item, and why others have none."""
    found: dict[str, dict[str, Any]] = {}
    failed = {}
    device = bench.run.accelerator.device
    for name, make in bench.items():
        try:
            make()()
            found[name] = {"peak_bytes": peak_bytes(device, make()), "seconds": [], "plain": []}
        except Exception as error:  # a peer's own, whatever it is
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            bench.optimizer.zero_grad(set_to_none=True)
            for parameter in bench.shared:
                vars(parameter).pop("jac", None)
    parts = []
    for number in range(rounds):
        parts.append(bench.parts())
        for name, make in bench.items():
            if name in found:
                step = make()
                if name.startswith("mtlkit"):  # an engine takes its memory in its first step
                    step()
                found[name]["plain"].append(_seconds(bench.plain))
                found[name]["seconds"].append(_seconds(step))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    found["floor"] = _floor(parts, len(bench.own))
    plain = found["plain"]["peak_bytes"]
    for item in found.values():
        ratios = [a / b for a, b in zip(item["seconds"], item["plain"], strict=True)]
        item["ratio"] = statistics.median(ratios)
        item["quartiles"] = _quartiles(ratios)
        if "peak_bytes" in item:
            item["memory_ratio"] = item["peak_bytes"] / plain
    return found, failed


def _floor(parts: list[list[float]], tasks: int) -> dict[str, Any]:
    return {
        "seconds": [forward + heads + tasks * trunk for forward, heads, trunk in parts],
        "plain": [forward + heads + trunk for forward, heads, trunk in parts],
        "parts": dict(zip(("forward", "heads", "trunk"), zip(*parts, strict=True), strict=True)),
    }


def _seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _quartiles(values: list[float]) -> list[float]:
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return [ordered[quarter], ordered[-1 - quarter]]


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


def report(found: dict[str, dict[str, Any]], failed: dict[str, str]) -> str:
    """The numbers as text."""
    lines = [f"{'':30}  x plain  {'':16}  memory  x plain"]
    for name, item in found.items():
        low, high = item["quartiles"]
        line = f"{name:30}  {item['ratio']:7.2f}  ({low:.2f} to {high:.2f})".ljust(57)
        if "peak_bytes" in item:
            line += f"  {item['peak_bytes'] / MIB:4.0f} MiB  {item['memory_ratio']:.2f}"
        lines.append(line)
    return "\n".join([*lines, *(f"{name} left out: {why}" for name, why in failed.items())])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet18")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--channels-last", action="store_true", help="LibMTL cannot do this")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    bench = Bench(args.network, args.tasks, args.size, args.batch, channels_last=args.channels_last)
    found, failed = measure(bench, args.rounds)
    alone = solvers()
    print(report(found, failed))
    print("a decision alone, in ms:")
    for name, by_tasks in alone.items():
        numbers = ", ".join(f"{value:.2f} for {tasks} tasks" for tasks, value in by_tasks.items())
        print(f"{name:30}  {numbers}")
    if args.output:
        device = str(bench.run.accelerator.device)
        tree = environment(device, 1)
        tree["versions"] |= {name: _version(name) for name in ("torchjd", "LibMTL")}
        tree["threads"] = torch.get_num_threads()
        tree |= {"items": found, "left out": failed, "solvers": alone}
        command = " ".join(["python", *sys.argv])
        args.output.write_text(json.dumps({"command": command, **tree}, indent=2) + "\n")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
