"""One optimiser step, the same whichever components are in use."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mtlkit.balancer import StepStats
from mtlkit.balancing import Balancing
from mtlkit.errors import ConfigError
from mtlkit.gradients import Cut, Rows
from mtlkit.model import Model, TaskBatch
from mtlkit.nonfinite import Fault, Policy, Watch, without
from mtlkit.processes import Processes
from mtlkit.sharing import Sharing, kept_buffers
from mtlkit.window import Window

Gradients = Literal["parameters", "features"]
Network = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True)
class StepResult:
    """What one step did; tensors stay on the device until somebody logs them.

    Args:
        losses: global mean loss of each task, by id, float64; NaN for a task without labels.
        weights: what multiplied each task's gradient, by id; NaN likewise.
        gramian: ``[T, T]`` inner products of the tasks' gradients where they were taken, NaN for a
            task without labels; None in a step that did not take them one by one.
        report: of the balancer about its decision.
        backward_passes: through the network.
        faults: by task id, whether its ``loss`` or ``gradient`` was not finite, in a step that was
            left out for it, or did without that task.
    """

    losses: dict[str, Tensor]
    weights: dict[str, Tensor]
    gramian: Tensor | None = None
    report: Mapping[str, float] = field(default_factory=dict)
    backward_passes: int = 1
    faults: Mapping[str, str] = field(default_factory=dict)


class Step:
    """Trains the network on a window of batches: one optimiser step.

    There are two ways. When weights are known early enough, the weighted sum of the losses goes
    back once for every batch. Else each task's loss goes back by itself, into a row of its own.

    Args:
        accelerator: runs it, on one process or many.
        model: on the device; its parameters are the optimiser's.
        balancing: what decides the weights.
        optimizer: prepared, over the model's and the balancer's parameters.
        sharing: which parameters are shared.
        gradients: where the gradients are taken that a balancer looks at: at all shared
            ``parameters``, or at the backbone's shared ``features``.
        accumulate: batches in a window.
        clip: largest norm of the gradient; 0 is off.
        seed: of the run.
        conflict_every: steps between two looks at the tasks' gradients for the log alone; 0 never.
        compile: compile the network.
        on_nonfinite: what to do about a loss or gradient that is not finite.

    Raises:
        ConfigError: ``features`` cannot be used with this balancer or these tasks.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: Model,
        balancing: Balancing,
        optimizer: Any,
        sharing: Sharing,
        *,
        gradients: Gradients = "parameters",
        accumulate: int = 1,
        clip: float = 0.0,
        seed: int = 0,
        conflict_every: int = 0,
        compile: bool = False,
        on_nonfinite: Policy = "raise",
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.tasks = tuple(model.tasks.values())
        self.balancing = balancing
        self.optimizer = optimizer
        self.sharing = sharing
        self.at_features = gradients == "features"
        self.clip = clip
        self.seed = seed
        self.conflict_every = conflict_every
        self.processes = Processes.of(accelerator)
        on_device = balancing.needs == "losses" and accelerator.device.type != "mps"
        self.home = accelerator.device if on_device else torch.device("cpu")
        self.one_by_one = balancing.needs != "losses" or (accumulate > 1 and not balancing.linear)
        if self.at_features:
            self._check_features()
        own_exchange = self.one_by_one or conflict_every or balancing.heads == "raw"
        if compile and own_exchange:  # a graph that is walked several times keeps its buffers
            torch._functorch.config.donated_buffer = False
        compiled = torch.compile if compile else _as_it_is
        self.network = compiled(model)
        self.encode, self.decode = compiled(model.encode), compiled(model.decode)
        self.parallel: nn.Module | None = None
        if self.processes.count > 1 and not own_exchange:
            self.parallel = accelerator.prepare_model(self.network)
        balancing.to(self.home)
        self._rows: Rows | None = None
        self.watch = Watch(on_nonfinite, accelerator, model, optimizer)

    def _check_features(self) -> None:
        if self.balancing.needs == "columns":
            raise ConfigError(
                f"{type(self.balancing.balancer).__name__} works on single parameters' gradients; "
                "use --gradients parameters"
            )
        if len(self.model.passes) > 1:
            raise ConfigError(
                "--gradients features needs all tasks to share the features of one image, but "
                "--views own shows them different ones; use --gradients parameters"
            )

    @property
    def rows(self) -> Rows:
        """The tasks' gradients; the memory is taken when they are first needed."""
        if self._rows is None:
            processes = self.processes
            columns = self.sharing.shared
            if self.at_features:  # only the cut's Gramian is looked at, so each keeps its own rows
                processes, columns = Processes(device=processes.device), self.sharing.after_features
            self._rows = Rows(columns, len(self.tasks), processes)
        return self._rows

    def __call__(self, batches: Sequence[TaskBatch], *, step: int, epoch: int) -> StepResult:
        """One optimiser step on the mean losses over a window of batches, on all processes.

        Raises:
            RunError: a loss or gradient is not finite; the message says whose. On a device that
                works behind our back the next call may raise it, or :meth:`settle`.
        """
        before = [b.clone() for b in self.model.buffers()] if self.watch.may_undo else []
        window = Window(
            batches, self.tasks, self.processes, self.home, step=step, epoch=epoch, seed=self.seed
        )
        if not window.active:  # no process has a label for any task
            return self._nothing()
        reused = self.balancing.reuses(window.early_stats)
        stats, weights, passes = self._gradients(window)
        fault = self.watch.check(window, self._finite(stats), self._predict_alone)
        if fault is not None:
            return self._do_without(fault, window, before)
        self._move(window, stats, weights, reused=reused)
        return StepResult(
            self._by_task(stats.losses, stats),
            self._by_task(weights, stats),
            self._by_pair(stats),
            {} if reused else dict(self.balancing.balancer.report),
            passes,
        )

    def _gradients(self, window: Window) -> tuple[StepStats, Tensor, int]:
        """Leave the step's gradients; returns what was decided, and the backward passes made."""
        weights = self.balancing.known(window.early_stats)
        looks = bool(self.conflict_every) and window.step % self.conflict_every == 0
        passes = len(window.batches)
        if looks or (weights is None and self.one_by_one):
            stats, weights = self._one_by_one(window, weights)
            passes *= len(window.active)
        else:
            stats, weights = self._together(window, weights)
        self._set_balancer_gradients(stats)
        self._drop_idle(window)
        return stats, weights, passes

    def _move(self, window: Window, stats: StepStats, weights: Tensor, *, reused: bool) -> None:
        """Move the parameters, and let the balancer remember the step."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not self.optimizer.step_was_skipped:
            self.balancing.commit(stats, weights, reused=reused)
            if self.balancing.balancer.revisits:
                self._revisit(window, stats)

    def _sums(self, predictions: Mapping[str, Tensor], batch: TaskBatch) -> list[Tensor]:
        """Each task's loss, summed over this batch.

        They stay apart: back from an entry of a stacked vector, zeros would flow through every
        other head, and one task's infinity become every task's NaN.
        """
        return [
            task.loss(predictions[task.id], target, present)[0]
            for task, target, present in zip(self.tasks, batch.targets, batch.present, strict=True)
        ]

    def _predict_alone(self, batch: TaskBatch) -> Mapping[str, Tensor]:
        """Without the other processes."""
        return self._predictions(self.network, batch)

    def _predictions(self, network: Network, batch: TaskBatch) -> Mapping[str, Tensor]:
        with self.accelerator.autocast():
            return network(*batch.inputs)

    # When the weights are known in time: their sum goes back, once for every batch.

    def _together(self, window: Window, weights: Tensor | None) -> tuple[StepStats, Tensor]:
        """Leave the step's gradient; weights that need the losses wait for the only batch's."""
        stats, values = None, []
        for number, batch in enumerate(window.batches, start=1):
            network = self.network if self.parallel is None else self.parallel
            predictions = self._predictions(network, batch)
            sums = self._sums(predictions, batch)
            values.append(_values(sums))
            if weights is None:
                stats = window.stats(values)
                weights = self.balancing.weights(stats)
            if self.parallel is None:
                self._backward(sums, weights, window)
            else:
                total = window.weighted_mean(sums, weights * self.processes.count)
                last = number == len(window.batches)
                self._parallel_backward(self.parallel, total, predictions, last=last)
        assert weights is not None
        if self.parallel is None:
            self._sum_gradients([*self.sharing.shared, *self._own_together(window)])
        return stats or window.stats(values), weights

    def _backward(self, sums: list[Tensor], weights: Tensor, window: Window) -> None:
        """Add this batch's share of the weighted mean losses' gradient."""
        total = window.weighted_mean(sums, weights)
        own = self._own_together(window)
        if self.balancing.heads == "raw" and own:
            raw = window.weighted_mean(sums, self.balancing.own_weights(weights))
            self.accelerator.backward(raw, inputs=own, retain_graph=True)
            self.accelerator.backward(total, inputs=self.sharing.shared)
        else:
            self.accelerator.backward(total)

    def _parallel_backward(
        self, network: nn.Module, total: Tensor, predictions: Mapping[str, Tensor], *, last: bool
    ) -> None:
        """The same through DDP, which averages over processes and must see every head used."""
        used = [p.reshape(-1)[:0].sum().to(total) for p in predictions.values()]  # zeros, exactly
        with nullcontext() if last else self.accelerator.no_sync(network):
            self.accelerator.backward(torch.stack([total, *used]).sum())

    # When they depend on the tasks' gradients: each loss goes back by itself.

    def _one_by_one(self, window: Window, weights: Tensor | None) -> tuple[StepStats, Tensor]:
        """Leave the step's gradient, and decide the weights unless they are given."""
        values, cuts = self._fill_rows(window)
        scale = self.accelerator.scaler.get_scale() if self.accelerator.scaler else 1.0
        if cuts:
            gramian = self.processes.sum(torch.stack([cut.gramian() for cut in cuts]).sum(0))
        else:
            self.rows.exchange()
            gramian = self.rows.gramian()
        stats = window.stats(values, gramian / scale**2)
        assert stats.gramian is not None
        if not bool((stats.losses.isfinite() & stats.gramian.diagonal().isfinite()).all()):
            weights = torch.full_like(stats.losses, float("nan"))  # nothing can be decided
        if weights is None and self.balancing.needs == "columns":
            rows_Ap = self.rows.active(window.active)
            if scale != 1:
                rows_Ap.div_(scale)
            gradient = self.balancing.combine(rows_Ap, stats, self.rows).mul_(scale)
            weights = self.balancing.weights(stats)
        else:
            if weights is None:
                weights = self.processes.first(self.balancing.weights(stats))
            by_row = dict(zip(window.active, weights.tolist(), strict=True))
            gradient = self.rows.weigh(by_row)
            for cut in cuts:
                cut.go_on(by_row)
        self.rows.give(gradient)
        self._weigh_own(window, self.balancing.own_weights(weights))
        self._sum_gradients([*self._own_together(window), *(self.sharing.shared if cuts else ())])
        return stats, weights

    def _fill_rows(self, window: Window) -> tuple[list[Tensor], list[Cut]]:
        """Send each task's loss back by itself; returns each batch's sums, and its cut if any."""
        values, cuts = [], []
        self.rows.clear()
        for batch in window.batches:
            predictions, cut = self._predict(batch)
            sums = self._sums(predictions, batch)
            values.append(_values(sums))
            cuts += [cut] if cut else []
            for task, own in zip(window.active, self._own(window), strict=True):
                loss = window.mean(sums, task)
                if self.accelerator.scaler:
                    loss = self.accelerator.scaler.scale(loss)
                others = [*own, *(cut.after if cut else ())]
                self.rows.add(task, loss, others, keep_graph=task != window.active[-1])
                if cut:
                    cut.take(task)
        return values, cuts

    def _predict(self, batch: TaskBatch) -> tuple[Mapping[str, Tensor], Cut | None]:
        """Raw predictions, and where the graph was cut if gradients are taken at the features."""
        with self.accelerator.autocast():
            if not self.at_features:
                return self.network(*batch.inputs), None
            (images,), (tasks,) = batch.inputs, self.model.passes
            cut = Cut(self.encode(images), len(self.tasks))
            size = (images.shape[-2], images.shape[-1])
            return self.decode(cut.features, tasks, size), cut

    # What is not finite.

    def _finite(self, stats: StepStats) -> Tensor:
        """Whether losses and gradients are, as one boolean; clips the gradients on the way."""
        finite = stats.losses.isfinite().all()
        if self.clip:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
        if self.accelerator.scaler is not None:  # it sees to the gradients
            return finite
        if not self.clip:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
        return torch.logical_and(finite.to(norm.device), norm.isfinite())

    def _do_without(self, fault: Fault, window: Window, before: Sequence[Tensor]) -> StepResult:
        """Undo a step's beginnings, and do it without the tasks at fault if any are left."""
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)
        bad = [i for i in window.active if self.tasks[i].id in fault.tasks]
        if self.watch.policy == "drop-task" and 0 < len(bad) < len(window.active):
            rest = [without(batch, bad) for batch in window.batches]
            result = self(rest, step=window.step, epoch=window.early_stats.epoch)
            return replace(result, faults={**fault.tasks, **result.faults})
        return replace(self._nothing(), faults=fault.tasks)

    def _nothing(self) -> StepResult:
        """Of a step that moved nothing."""
        unknown = torch.full((), float("nan"), dtype=torch.float64, device=self.home)
        by_task = dict.fromkeys(self.model.tasks, unknown)
        return StepResult(by_task, by_task, backward_passes=0)

    # After the backward passes.

    def _own(self, window: Window) -> list[list[nn.Parameter]]:
        """Each active task's own parameters."""
        return [self.sharing.own[self.tasks[i].id] for i in window.active]

    def _weigh_own(self, window: Window, weights: Tensor) -> None:
        """Multiply the gradients of each task's own parameters."""
        for parameters, weight in zip(self._own(window), weights.tolist(), strict=True):
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], weight)

    def _own_together(self, window: Window) -> list[nn.Parameter]:
        return [parameter for parameters in self._own(window) for parameter in parameters]

    def _drop_idle(self, window: Window) -> None:
        """What no active task uses must not be moved by weight decay or momentum."""
        if len(window.active) < len(self.tasks):
            for parameter, users in self.sharing.users.items():
                if users.isdisjoint(window.active):
                    parameter.grad = None

    def _sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum these parameters' gradients over all processes."""
        if self.processes.count > 1:
            for parameter in parameters:
                if parameter.grad is None:  # on this process; others may have had labels
                    parameter.grad = torch.zeros_like(parameter)
            self.processes.sum_in_place([p.grad for p in parameters if p.grad is not None])

    def _set_balancer_gradients(self, stats: StepStats) -> None:
        """Gradients of the balancer's own parameters, alike on every process."""
        parameters = [p for p in self.balancing.parameters() if p.requires_grad]
        objective = self.balancing.param_objective(stats) if parameters else None
        if objective is None:
            return
        gradients = torch.autograd.grad(objective, parameters, allow_unused=True)
        scaler = self.accelerator.scaler
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient * (scaler.get_scale() if scaler else 1)

    @torch.no_grad()
    def _revisit(self, window: Window, stats: StepStats) -> None:
        """Show the balancer the losses of the same batches after the step."""
        with kept_buffers(self.model):
            values = [
                _values(self._sums(self._predict_alone(batch), batch)) for batch in window.batches
            ]
        self.balancing.revisit(stats, window.stats(values).losses)

    def _by_task(self, values: Tensor, stats: StepStats) -> dict[str, Tensor]:
        """``[A]`` by task id, NaN where a task was not active."""
        out = values.new_full((len(self.tasks),), float("nan"))
        out[stats.index] = values.detach()
        return dict(zip(self.model.tasks, out.unbind(), strict=True))

    def _by_pair(self, stats: StepStats) -> Tensor | None:
        """The Gramian ``[T, T]``, NaN where a task was not active."""
        if stats.gramian is None:
            return None
        out = stats.gramian.new_full((len(self.tasks),) * 2, float("nan"))
        out[stats.index[:, None], stats.index] = stats.gramian
        return out

    # Between the steps.

    def settle(self) -> None:
        """Find out what the last step left open: before its outcome is kept.

        Raises:
            RunError: a loss or gradient was not finite.
        """
        self.watch.settle(self._predict_alone)

    def share_buffers(self) -> None:
        """Give all processes the running statistics of the first, so that all evaluate alike."""
        if self.processes.count > 1:
            for buffer in self.model.buffers():
                buffer.copy_(self.processes.first(buffer))

    def state(self) -> dict[str, Tensor]:
        """What a balancer keeps for every parameter, whole, by name; empty for most."""
        return self._rows.saved_states() if self._rows else {}

    def load_state(self, saved: Mapping[str, Tensor]) -> None:
        """Take up :meth:`state`, on any number of processes."""
        if saved:
            self.rows.load_states(saved)


def _values(sums: Sequence[Tensor]) -> Tensor:
    return torch.stack([s.detach() for s in sums])


def _as_it_is(function: Any) -> Any:
    return function
