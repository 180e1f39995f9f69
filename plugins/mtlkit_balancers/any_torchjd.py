"""Any of TorchJD's weightings and scalarisers, by TorchJD's own name."""

import copy
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtlkit import Columns, LossBalancer, StepStats

Needs = Literal["losses", "gramian", "columns"]

LINEAR = ("Constant", "IMTLL", "Mean", "Random", "Sum", "UW")
"""Scalarisers whose slope does not depend on the losses."""

STATE = ("GradVac", "IMTLL", "PCD", "UW")
"""Stateful classes all of whose state is parameters, or buffers that start as zeros."""

UNSUITABLE = {
    "ConFIG": ("takes the whole Jacobian, of which a process has some columns only", "config"),
    "CRMOGM": ("smooths the weights of another object, which an option cannot hold", ""),
    "DWA": ("keeps its history where checkpoints do not see it", "dwa"),
    "ExcessMTL": ("sums over the whole Jacobian, of which a process has some columns", "excessmtl"),
    "FAMO": ("keeps its optimiser where checkpoints do not see it", "famo"),
    "GradDrop": ("draws columns at random, differently for each number of processes", "graddrop"),
    "MoDo": ("needs the gradients of two independent batches in each step", "mgda"),
    "NashMTL": ("keeps its last solution where checkpoints do not see it", "nash"),
    "SDMGrad": ("needs the gradients of two independent batches in each step", "cagrad"),
}
"""Why a method cannot be used here, and the balancer to use instead."""


class TorchJD(LossBalancer):
    """A method of the library TorchJD: what its own weights are, or how its scalar grows.

    Weightings see the Gramian of the active tasks, and a task's own parameters their raw gradient,
    as in TorchJD; scalarisers see the losses and weigh all gradients. Whenever a method fails or
    its answer is not finite, the step takes the mean of the gradients and reports a failure.

    Args:
        method: TorchJD's name, such as ``UPGrad``, ``MGDAWeighting`` or ``GeometricMean``.
        options: of the method, by TorchJD's names, such as ``c=0.4`` for CAGrad, or ``norm_eps``
            and ``reg_eps`` for UPGrad's and DualProj's projection. A vector is a number per task,
            by task id (``pref_vector: {seg: 1, cls: 2}``) or in the tasks' order; one that is
            about secondary tasks is without the first task, which is PCD's primary one.

    Raises:
        ValueError: TorchJD or one of its extras is not installed, or has no such method or option,
            or the method needs what a run of several processes or a checkpoint cannot give it.

    Reference: Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024,
        arXiv 2406.16232, https://torchjd.org; and each method's own.
    """

    def __init__(
        self, tasks: Sequence[str], /, *, method: str, options: dict[str, Any] | None = None
    ) -> None:
        super().__init__(tasks)
        self.name, (found, self.needs) = _find(method)
        self.heads = "weighted" if self.needs == "losses" else "raw"
        self.linear = self.name in LINEAR
        values = _read_options(self.name, found, options or {}, self.tasks)
        self.stateful = self.needs == "gramian" and self.name in STATE
        self.cut = () if self.stateful else tuple(k for k, v in values.items() if _is_vector(v))
        for name in self.cut:
            self.register_buffer(f"option_{name}", values[name], persistent=False)
        self.build = partial(found, **{k: v for k, v in values.items() if k not in self.cut})
        self.method = self._try({name: values[name] for name in self.cut})

    def weights(self, stats: StepStats) -> Tensor:
        """TorchJD's weights, or d scalar / d losses: ``[A]``."""
        if self.needs == "columns":
            return torch.ones_like(stats.losses)
        mean = torch.full_like(stats.losses, 1 / len(stats.losses))
        try:
            weights = self._decide(self._method(stats), stats).detach()
        except Exception:  # the solvers that TorchJD calls share no class of errors
            self.report = {"failures": 1.0}
            return mean
        finite = weights.isfinite().all()
        if self.needs == "gramian":  # on the CPU, where looking costs nothing
            self.report = {"failures": float(not finite)}
        return torch.where(finite, weights, mean)

    def combine(self, rows_Ap: Tensor, stats: StepStats, columns: Columns) -> Tensor:
        """TorchJD's aggregation, column by column: ``[p]``."""
        try:
            combined: Tensor = self.method(rows_Ap)
        except ValueError:  # too few active tasks
            self.report = {"failures": 1.0}
            return rows_Ap.mean(0)
        self.report = {"failures": 0.0}
        return combined

    def param_objective(self, stats: StepStats) -> Tensor | None:
        """The scalar itself, for scalarisers that learn parameters."""
        if not _learns(self.method):
            return None
        return self._scalar(self.method, stats.losses, stats)

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """Let a stateful weighting see the step; what it knows of inactive tasks stays."""
        if not self.stateful:
            return
        method = self._method(stats)
        try:
            self._decide(method, stats)
        except Exception:  # as in weights: the step was a plain mean
            return
        for kept, seen in zip(self.method.buffers(), method.buffers(), strict=True):
            index = [stats.index.to(kept.device)] * kept.ndim
            grid = torch.meshgrid(*index, indexing="ij") if index else ()
            kept[grid] = seen.to(kept)[grid]

    def _try(self, vectors: Mapping[str, Tensor]) -> nn.Module:
        """The method for all tasks, after it has worked once."""
        count = len(self.tasks)
        losses = torch.ones(count, dtype=torch.float64)
        gramian_TT = torch.eye(count, dtype=torch.float64)
        try:
            method: nn.Module = self.build(**vectors)
            if self.needs == "columns":
                method(gramian_TT)
            else:
                self._decide(method, StepStats(losses=losses, gramian=gramian_TT))
        except ImportError as error:
            raise ValueError(f"TorchJD's {self.name} needs more packages: {error}") from error
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"TorchJD's {self.name} cannot be used on {count} tasks with these options: "
                f"{reason}"
            ) from error
        if self.stateful:  # the trial made its buffers, which a checkpoint then finds
            for buffer in method.buffers():
                buffer.zero_()
        return method

    def _method(self, stats: StepStats) -> nn.Module:
        """The method for the active tasks; a copy if it is stateful."""
        if self.stateful:
            return copy.deepcopy(self.method).cpu()
        if not self.cut:
            return self.method
        cut = {k: self.get_buffer(f"option_{k}")[stats.index].to(stats.losses) for k in self.cut}
        built: nn.Module = self.build(**cut)
        return built

    def _decide(self, method: nn.Module, stats: StepStats) -> Tensor:
        """``[A]``, finite or not; moves a stateful method on."""
        with _global_generator(stats.rng("torchjd")):
            if self.needs == "losses":
                return self._slope(method, stats)
            gramian_AA = cast(Tensor, stats.gramian)
            if not self.stateful:
                return cast(Tensor, method(gramian_AA)).to(gramian_AA)
            gramian_TT = gramian_AA.new_zeros(len(self.tasks), len(self.tasks))
            gramian_TT[stats.index[:, None], stats.index] = gramian_AA
            return cast(Tensor, method(gramian_TT))[stats.index].to(gramian_AA)

    def _slope(self, method: nn.Module, stats: StepStats) -> Tensor:
        """How fast the scalar grows with each loss."""
        losses = stats.losses.detach().clone()
        if self.linear and not self.cut and not _learns(method):
            losses = torch.ones_like(losses, device="cpu")  # random numbers as on any other device
        with torch.enable_grad():
            losses.requires_grad_()
            scalar = self._scalar(method, losses, stats)
            return torch.autograd.grad(scalar, losses)[0].to(stats.losses)

    def _scalar(self, method: nn.Module, losses: Tensor, stats: StepStats) -> Tensor:
        active = {name: parameter[stats.index] for name, parameter in method.named_parameters()}
        return cast(Tensor, functional_call(method, active, losses))


def _find(method: str) -> tuple[str, tuple[type, Needs]]:
    """A method's name without suffix, its class and what it needs."""
    try:
        methods = _methods()
    except ImportError as error:
        raise ValueError(
            "this balancer needs TorchJD 0.18 or newer, which is not installed: "
            'pip install "mtlkit[torchjd]"'
        ) from error
    name = method.removesuffix("Weighting")
    if name in UNSUITABLE:
        why, instead = UNSUITABLE[name]
        hint = f"; use --balancer {instead}" if instead else ""
        raise ValueError(f"TorchJD's {name} cannot be used here: it {why}{hint}")
    if name not in methods:
        raise ValueError(_unknown(f"TorchJD has no method '{method}'", name, methods))
    return name, methods[name]


def _methods() -> dict[str, tuple[type, Needs]]:
    """All that can be used here; scalarisers before weightings of the same name and meaning."""
    from torchjd import Stateful, aggregation, scalarization

    found: dict[str, tuple[type, Needs]] = {"TrimmedMean": (aggregation.TrimmedMean, "columns")}
    for name in aggregation.__all__:
        weighting = getattr(aggregation, f"{name}Weighting", None)
        sees = getattr(aggregation, name)
        if weighting and issubclass(sees, aggregation.GramianWeightedAggregator):
            found[name] = weighting, "gramian"
    found |= {name: (getattr(scalarization, name), "losses") for name in scalarization.__all__}
    return {
        name: (cls, needs)
        for name, (cls, needs) in found.items()
        if not inspect.isabstract(cls)
        and name not in UNSUITABLE
        and (name in STATE or not issubclass(cls, Stateful))
    }


def _unknown(message: str, word: str, known: Iterable[str]) -> str:
    names = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), names, n=1)
    hint = f"; did you mean '{names[near[0]]}'?" if near else "."
    return f"{message}{hint} Available: {', '.join(sorted(names.values())) or 'none'}"


def _read_options(
    name: str, found: type, given: Mapping[str, Any], tasks: Sequence[str]
) -> dict[str, Any]:
    """Arguments of the class: numbers, words, and vectors as tensors."""
    known = _signature(found)
    projects, sized = (known.pop(name, None) is not None for name in ("projector", "shape"))
    projection = _projection() if projects else {}
    every = known | projection
    for option in given:
        if option not in every:
            raise ValueError(_unknown(f"TorchJD's {name} has no option '{option}'", option, every))
    for option, (_, required) in every.items():
        if required and option not in given:
            raise ValueError(f"TorchJD's {name} needs the option '{option}'")
    ids = tasks[1:] if name == "PCD" else tasks
    values = {
        option: _convert(value, every[option][0], f"option '{option}' of TorchJD's {name}", ids)
        for option, value in given.items()
    }
    arguments = {option: value for option, value in values.items() if option in known}
    if sized:
        arguments["shape"] = len(tasks)
    if projects:
        arguments["projector"] = _projector({o: v for o, v in values.items() if o in projection})
    return arguments


def _signature(found: type) -> dict[str, tuple[Any, bool]]:
    """Type of each option, and whether it is required."""
    hints = get_type_hints(found.__init__)  # type: ignore[misc]
    parameters = inspect.signature(found).parameters
    return {name: (hints[name], p.default is p.empty) for name, p in parameters.items()}


def _projection() -> dict[str, tuple[Any, bool]]:
    from torchjd.linalg import QuadprogProjector

    return _signature(QuadprogProjector)


def _projector(options: Mapping[str, Any]) -> Any:
    from torchjd.linalg import QuadprogProjector

    try:
        return QuadprogProjector(**options)
    except ImportError as error:
        raise ValueError(f"TorchJD's projection needs more packages: {error}") from error


def _convert(value: Any, hint: Any, what: str, tasks: Sequence[str]) -> Any:
    """``value`` in the type that TorchJD declares."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and NoneType in members:
        return None
    words = [word for m in members if get_origin(m) is Literal for word in get_args(m)]
    if words:
        if value not in words:
            raise ValueError(f"{what} expects one of {', '.join(words)}, but is {value!r}")
        return value
    if Tensor in members and (float not in members or isinstance(value, list | Mapping)):
        return _vector(value, what, tasks)
    number = _number(value)
    if number is None or (float not in members and not number.is_integer()):
        kind = "a number" if float in members else "a whole number"
        raise ValueError(f"{what} expects {kind}, but is {value!r}")
    return number if float in members else int(number)


def _vector(value: Any, what: str, tasks: Sequence[str]) -> Tensor:
    if isinstance(value, Mapping) and set(value) == set(tasks):
        value = [value[task] for task in tasks]
    numbers = [_number(item) for item in value] if isinstance(value, list | tuple) else []
    if len(numbers) != len(tasks) or None in numbers:
        raise ValueError(
            f"{what} expects one number for each of {', '.join(tasks)}, but is {value!r}"
        )
    return torch.tensor(numbers, dtype=torch.float64)


def _number(value: Any) -> float | None:
    """YAML reads 1e-3 as text."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _learns(method: nn.Module) -> bool:
    return next(method.parameters(), None) is not None


def _is_vector(value: Any) -> bool:
    return isinstance(value, Tensor)


@contextmanager
def _global_generator(generator: torch.Generator) -> Iterator[None]:
    """The CPU's global generator in the state of this one; afterwards as it was."""
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        torch.set_rng_state(before)
