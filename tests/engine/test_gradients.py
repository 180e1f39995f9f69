"""Where gradients are taken, what heads get, and what is put around a balancer."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from balancer_cases import build
from textbook import textbook
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from toys import ToyBackbone, ToyData, ToyHead, toy_model, train_steps

from mtlkit import ConfigError, Features, LossBalancer, StepStats
from mtlkit.balancing import Balancing
from mtlkit.errors import RunError
from mtlkit.gradients import BLOCK, Cut, Rows, gramian
from mtlkit.model import Model
from mtlkit.processes import Processes
from mtlkit.sharing import find_sharing
from mtlkit.step import Step

TASKS = ("a", "b", "c")
ALONE = Processes(device=torch.device("cpu"))


def run(name: str | LossBalancer, **options: Any) -> tuple[Model, list[Any]]:
    balancer = build(name, TASKS).double() if isinstance(name, str) else name
    accumulate = options.setdefault("accumulate", 1)
    return train_steps(
        Accelerator(cpu=True), balancer, batch_size=12 // accumulate,
        optimizer=torch.optim.Adam, **options,
    )  # fmt: skip


def assert_alike(ours: Model, paper: Sequence[Tensor]) -> None:
    for one, other in zip(ours.parameters(), paper, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


# The numbers.


def test_the_gramian_is_that_of_the_rows_whatever_their_length() -> None:
    for length in (1, BLOCK - 1, BLOCK, 3 * BLOCK + 5):
        rows = torch.randn(3, length, generator=torch.Generator().manual_seed(length))
        exact = rows.double() @ rows.double().T
        torch.testing.assert_close(gramian(rows), exact, rtol=1e-5, atol=1e-4)


def test_the_gramian_of_nearly_parallel_rows_keeps_single_precision() -> None:
    base = torch.randn(4 * BLOCK, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([base, base * 1.001, -base * 1000])
    exact = rows.double() @ rows.double().T
    torch.testing.assert_close(gramian(rows), exact, rtol=1e-6, atol=0)


def test_rows_hold_gradients_in_the_parameters_own_memory_order() -> None:
    layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    rows = Rows(list(layer.parameters()), 2, ALONE)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = layer(images)
    rows.add(0, out.sum(), [], keep_graph=True)
    rows.add(1, out.square().sum(), [], keep_graph=True)
    expected = torch.autograd.grad(2 * out.sum() - 0.5 * out.square().sum(), layer.parameters())
    rows.give(rows.weigh({0: 2.0, 1: -0.5}))
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()
        torch.testing.assert_close(parameter.grad, gradient)


def test_what_lies_with_the_columns_is_saved_without_padding_and_comes_back() -> None:
    layer = nn.Linear(5, 3)
    rows = Rows(list(layer.parameters()), 2, ALONE)
    rows.state("average")[:, :18] = torch.arange(36.0).view(2, 18)
    saved = rows.saved_states()
    assert saved["average"].tolist() == torch.arange(36.0).view(2, 18).tolist()
    other = Rows(list(layer.parameters()), 2, ALONE)
    other.load_states(saved)
    assert torch.equal(other.state("average"), rows.state("average"))


def test_the_cut_sends_back_what_an_uncut_graph_would() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    first = weight * 3
    cut = Cut({"first": first, "second": (first.square(), torch.tensor([1, 2]))}, 3)
    features = cut.features
    assert torch.equal(features["second"][1], torch.tensor([1, 2]))
    for task, factor in ((0, 1.0), (2, -4.0)):
        loss = factor * (features["first"].sum() + features["second"][0].sum())
        torch.autograd.backward(loss, inputs=cut.after, retain_graph=True)
        cut.take(task)
    at = torch.ones(4)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for i, a in ((0, 1.0), (2, -4.0)):
        for j, b in ((0, 1.0), (2, -4.0)):
            expected[i, j] = a * b * at.sum()
    torch.testing.assert_close(cut.gramian(), expected)
    cut.go_on({0: 1.0, 2: 0.5})
    torch.testing.assert_close(weight.grad, -1.0 * (3 + 18 * weight.detach()))


# Where gradients are taken.


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["cagrad", "mgda", "gradnorm", "pcgrad"])
def test_gradients_at_the_features_are_those_on_paper(name: str, accumulate: int) -> None:
    model, _ = run(name, gradients="features", accumulate=accumulate)
    assert_alike(model, textbook(build(name, TASKS).double(), at_features=True)[0])


def test_features_and_parameters_are_the_same_to_weights_that_look_at_neither() -> None:
    here, _ = run("fixed", gradients="features", conflict_every=1)
    there, _ = run("fixed", gradients="parameters")
    assert_alike(here, list(there.parameters()))


def test_features_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(ConfigError, match="GradDrop works on single parameters' gradients"):
        run("graddrop", gradients="features")
    data = ToyData()
    model = toy_model(data.spec)
    model.passes = [("a",), ("b",)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="--views own shows them different ones"):
        Step(
            Accelerator(cpu=True), model, Balancing(build("cagrad", ("a", "b"))), optimizer,
            find_sharing(model), gradients="features",
        )  # fmt: skip


# What is put around a balancer.


@pytest.mark.parametrize("heads", ["weighted", "raw"])
@pytest.mark.parametrize("name", ["cagrad", "fixed", "geometric", "graddrop"])
def test_heads_get_what_was_asked_for(name: str, heads: str) -> None:
    model, _ = run(name, balancing={"heads": heads})
    assert_alike(model, textbook(build(name, TASKS).double(), heads=heads)[0])


class Script(LossBalancer):
    """Says what it was told to say, one line a step, and notes what it saw."""

    needs = "gramian"

    def __init__(self, lines: Sequence[Sequence[float]]) -> None:
        super().__init__(TASKS)
        self.lines = lines
        self.seen: list[StepStats] = []

    def weights(self, stats: StepStats) -> Tensor:
        self.seen.append(stats)
        return torch.tensor(self.lines[stats.step], dtype=torch.float64)


LINES = [[1.0, 2.0, 3.0], [3.0, 0.0, 3.0], [-1.0, 2.0, 5.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]


def weights(**balancing: Any) -> list[list[float]]:
    _, steps = run(Script(LINES), balancing=balancing)
    return [torch.stack(list(step.weights.values())).tolist() for step in steps]


def test_weights_are_smoothed_by_their_own_past() -> None:
    expected = [LINES[0]]
    for line in LINES[1:]:
        last = expected[-1]
        expected.append([0.75 * a + 0.25 * b for a, b in zip(last, line, strict=True)])
    assert torch.tensor(weights(smooth=0.75)).allclose(torch.tensor(expected))


@pytest.mark.parametrize(("scale", "total"), [("sum-t", 3.0), ("sum-1", 1.0)])
def test_weights_are_scaled_to_what_was_asked_for(scale: str, total: float) -> None:
    for found, line in zip(weights(scale=scale), LINES, strict=True):
        size = sum(map(abs, line)) or 1.0
        assert found == pytest.approx([total * w / size for w in line])


def test_weights_are_reused_between_decisions_and_cost_one_backward_pass() -> None:
    balancer = Script(LINES)
    _, steps = run(balancer, balancing={"every": 2})
    found = [torch.stack(list(step.weights.values())).tolist() for step in steps]
    assert found == [LINES[0], LINES[0], LINES[2], LINES[2], LINES[4]]
    assert [step.backward_passes for step in steps] == [3, 1, 3, 1, 3]
    assert [stats.step for stats in balancer.seen] == [0, 2, 4]


@pytest.mark.parametrize("heads", ["weighted", "raw"])
def test_reused_weights_move_the_network_like_fresh_ones(heads: str) -> None:
    same = [LINES[0]] * 5
    reused, _ = run(Script(LINES[:1] * 5), balancing={"every": 5, "heads": heads})
    fresh, _ = run(Script(same), balancing={"heads": heads})
    assert_alike(reused, list(fresh.parameters()))


def test_a_task_that_appears_between_decisions_gets_one_made() -> None:
    balancer = build("cagrad", TASKS)
    _, steps = run(
        balancer, balancing={"every": 100}, labelled=(True, False, False, False, False, False),
    )  # fmt: skip
    appeared = [not step.weights["b"].isnan() for step in steps]
    assert all(
        step.weights["b"].isfinite() for step, there in zip(steps, appeared, strict=True) if there
    )


def test_log_losses_are_what_the_balancer_sees_and_the_network_trains_on() -> None:
    balancer, plain = Script([[1.0, 1.0, 1.0]] * 5), Script(LINES)
    _, steps = run(balancer, balancing={"losses": "log"}, steps=1)
    run(plain, steps=1)
    losses = plain.seen[0].losses
    torch.testing.assert_close(balancer.seen[0].losses, losses.log(), rtol=1e-6, atol=1e-6)
    expected = plain.seen[0].gramian / torch.outer(losses, losses)
    torch.testing.assert_close(balancer.seen[0].gramian, expected, rtol=1e-6, atol=0)
    found = torch.stack(list(steps[0].weights.values()))
    torch.testing.assert_close(found, 1 / losses, rtol=1e-6, atol=0)
    logs, _ = run("equal", balancing={"losses": "log"})
    assert_alike(logs, textbook(build("log", TASKS).double())[0])


def test_columns_have_no_weights_to_smooth_scale_or_reuse() -> None:
    for options in ({"smooth": 0.5}, {"scale": "sum-t"}, {"every": 2}):
        with pytest.raises(ConfigError, match="column by column, not by weights"):
            Balancing(build("graddrop", TASKS), **options)


def test_looking_at_conflicts_changes_nothing() -> None:
    plain, _ = run("uncertainty")
    looked, steps = run("uncertainty", conflict_every=2)
    assert_alike(looked, list(plain.parameters()))
    assert [step.gramian is not None for step in steps] == [True, False, True, False, True]


def test_a_balancer_that_does_not_give_a_weight_for_every_task_is_named() -> None:
    with pytest.raises(RunError, match=r"Script gave weights of shape \(2,\) for 3 active tasks"):
        run(Script([[1.0, 2.0]] * 5))
    with pytest.raises(RunError, match=r"Script gave the weights \[nan, 1.0, 1.0\] at step 0"):
        run(Script([[float("nan"), 1.0, 1.0]] * 5))


def engine(model: Model, balancer: LossBalancer, accelerator: Accelerator | None = None) -> Step:
    accelerator = accelerator or Accelerator(cpu=True)
    optimizer = accelerator.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    return Step(accelerator, model, Balancing(balancer), optimizer, find_sharing(model))


def batch(model: Model) -> Any:
    from mtlkit.loader import Key, Prepared

    data = ToyData()
    prepared = Prepared(data.split("train"), data.spec.targets, model.image_size)
    loaded = model.prepare(prepared.collate([prepared[Key(0, i, True)] for i in range(6)]))
    loaded.inputs[:] = [images.to(model.mean.dtype) for images in loaded.inputs]
    return loaded


# Half precision.


def test_overflow_under_a_scaler_skips_the_step_and_not_the_run() -> None:
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    model = toy_model(ToyData().spec, TASKS)
    plain = toy_model(ToyData().spec, TASKS)
    balancer = Script([[1.0, 2.0, 0.5]] * 200)
    scaled = engine(model, balancer, accelerator)
    alone = engine(plain, Script([[1.0, 2.0, 0.5]] * 200))
    work = batch(model)
    before = [p.clone() for p in model.parameters()]
    scaled([work], step=0, epoch=0)
    assert accelerator.scaler.get_scale() == 2.0**126
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert balancer.seen == []
    for step in range(1, 130):
        scaled([work], step=step, epoch=0)
        if balancer.seen:
            break
    alone([work], step=0, epoch=0)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cagrad", "mgda", "upgrad", "nash", "graddrop"])
def test_decisions_in_bf16_are_those_of_float32(name: str) -> None:
    decided = []
    for precision in ("no", "bf16"):
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        model = toy_model(ToyData().spec, TASKS)
        result = engine(model, build(name, TASKS), accelerator)([batch(model)], step=0, epoch=0)
        decided.append(torch.stack(list(result.weights.values())))
    AcceleratorState._reset_state()
    torch.testing.assert_close(decided[1], decided[0], rtol=1e-2, atol=1e-2)


# Which parameters are shared.


def test_sharing_is_found_out_from_the_graph() -> None:
    model = toy_model(ToyData().spec, TASKS)
    model.backbone.never = nn.Linear(2, 2)
    sharing = find_sharing(model)
    conv = list(model.backbone.conv.parameters())
    assert [id(p) for p in sharing.shared] == [id(p) for p in conv]
    assert sharing.after_features == []
    assert sharing.unused == ["backbone.never.weight", "backbone.never.bias"]
    for task in TASKS:
        assert {id(p) for p in sharing.own[task]} == {id(p) for p in model.own_parameters(task)}
    sharing.freeze_unused(model)
    assert not model.backbone.never.weight.requires_grad


def test_finding_out_leaves_no_trace() -> None:
    model = toy_model(ToyData().spec, TASKS, norm=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    find_sharing(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_one_task_alone_shares_its_backbone_with_nobody_but_it_counts_as_shared() -> None:
    model = toy_model(ToyData().spec, ("a",))
    sharing = find_sharing(model)
    assert [p.shape for p in sharing.shared] == [p.shape for p in model.backbone.conv.parameters()]


class Greedy(ToyBackbone):
    """Says that its convolution belongs to one task."""

    def own_modules(self, task: str, /) -> list[nn.Module]:
        return [self.scales[task], *([self.conv] if task == "a" else [])]


class Checkpointed(ToyBackbone):
    """Hides its convolution from the graph."""

    def encode(self, images: Tensor) -> Tensor:
        return checkpoint(super().encode, images.requires_grad_(), use_reentrant=True)


class Deeper(ToyBackbone):
    """Shares a layer that comes after the features."""

    def __init__(self, tasks: Sequence[str], /) -> None:
        super().__init__(tasks)
        self.after = nn.Conv2d(4, 4, 1)

    def route(self, shared: Tensor, tasks: Sequence[str], /) -> dict[str, Features]:
        return super().route(torch.tanh(self.after(shared)), tasks)


def with_backbone(backbone: ToyBackbone) -> Model:
    plain = toy_model(ToyData().spec, TASKS)
    heads = {id: ToyHead(backbone.spec, task.out_channels) for id, task in plain.tasks.items()}
    return Model(list(plain.tasks.values()), backbone, heads, image_size=plain.image_size)


def test_a_backbone_that_declares_wrongly_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"Greedy declares backbone\.conv\.weight to be used by task 'a' alone"
    ):
        find_sharing(with_backbone(Greedy(TASKS)))


def test_reentrant_checkpointing_is_refused() -> None:
    with pytest.raises(ConfigError, match="use_reentrant=False"):
        find_sharing(with_backbone(Checkpointed(TASKS)))


@pytest.mark.parametrize("gradients", ["parameters", "features"])
def test_what_is_shared_after_the_features_is_weighed_as_well(gradients: Any) -> None:
    torch.manual_seed(0)
    model = with_backbone(Deeper(TASKS)).double()
    sharing = find_sharing(model)
    assert [p.shape for p in sharing.after_features] == [
        p.shape for p in model.backbone.after.parameters()
    ]
    work = batch(model)
    losses = [
        (prediction - work.targets[i]).square().mean()
        for i, prediction in enumerate(model(*work.inputs).values())
    ]
    total = sum(w * loss for w, loss in zip(LINES[0], losses, strict=True))
    expected = torch.autograd.grad(total, sharing.shared)
    before = [p.clone() for p in sharing.shared]
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    balancing = Balancing(Script(LINES))
    Step(accelerator, model, balancing, optimizer, sharing, gradients=gradients)(
        [work], step=0, epoch=0
    )
    for parameter, old, gradient in zip(sharing.shared, before, expected, strict=True):
        torch.testing.assert_close(parameter, old - 0.1 * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gradients", ["parameters", "features"])
@pytest.mark.parametrize("name", ["equal", "cagrad", "famo"])
def test_activations_that_are_computed_again_change_nothing(name: str, gradients: Any) -> None:
    kept, _ = run(name, gradients=gradients, accumulate=2, norm=True)
    computed, _ = run(name, gradients=gradients, accumulate=2, norm=True, recompute=True)
    for ours, theirs in zip(
        computed.state_dict().values(), kept.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("gradients", ["parameters", "features"])
def test_a_compiled_network_trains_like_an_eager_one(gradients: Any) -> None:
    eager, _ = run("cagrad", gradients=gradients, accumulate=2)
    compiled, _ = run("cagrad", gradients=gradients, accumulate=2, compile=True)
    for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, on its way
@pytest.mark.parametrize("name", ["equal", "cagrad"])
def test_a_compiled_network_can_compute_activations_again(name: str) -> None:
    eager, _ = run(name, norm=True)
    compiled, _ = run(name, norm=True, compile=True, recompute=True)
    for ours, theirs in zip(
        compiled.state_dict().values(), eager.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
