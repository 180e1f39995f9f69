"""The balancers that see losses alone, each against its formula."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Literal

import numpy as np
import pytest
import torch
from mtlkit_balancers.dwa import DWA
from mtlkit_balancers.equal import Equal
from mtlkit_balancers.famo import FAMO
from mtlkit_balancers.fixed import Fixed
from mtlkit_balancers.geometric import Geometric
from mtlkit_balancers.imtl_l import IMTLL
from mtlkit_balancers.log import Log
from mtlkit_balancers.rlw import RLW
from mtlkit_balancers.softadapt import SoftAdapt
from mtlkit_balancers.stch import STCH
from mtlkit_balancers.uncertainty import Uncertainty
from mtlkit_balancers.uw_so import UWSO
from torch import Tensor

from mtlkit import LossBalancer, StepStats

TASKS = ("seg", "cls", "bbox")
LOSSES = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)

WEIGHTS = {"seg": 0.7, "cls": 0.1, "bbox": 0.2}
Form = Literal["original", "loss-weighted", "normalised"]


def softadapt(form: Form) -> Callable[[Sequence[str]], LossBalancer]:
    return lambda tasks: SoftAdapt(tasks, form=form, window=2, every=2)


MAKERS: dict[str, Callable[[Sequence[str]], LossBalancer]] = {
    "equal": Equal,
    "fixed": lambda tasks: Fixed(tasks, weights={task: WEIGHTS[task] for task in tasks}),
    "uncertainty": lambda tasks: Uncertainty(tasks, initial=-0.5),
    "imtl-l": lambda tasks: IMTLL(tasks, initial=0.3),
    "dwa": DWA,
    "rlw": RLW,
    "softadapt": softadapt("original"),
    "softadapt loss-weighted": softadapt("loss-weighted"),
    "softadapt normalised": softadapt("normalised"),
    "log": Log,
    "geometric": Geometric,
    "uw-so": UWSO,
    "famo": lambda tasks: FAMO(tasks, lr=0.1),
    "stch": lambda tasks: STCH(tasks, warmup=0, mu=0.5),
    "stch plain": lambda tasks: STCH(tasks, log=False),
}
LINEAR = {"equal", "fixed", "uncertainty", "imtl-l", "dwa", "rlw"} | {
    name for name in MAKERS if name.startswith("softadapt")
}
STATEFUL = {"uncertainty", "imtl-l", "dwa", "famo", "stch"} | {
    name for name in MAKERS if name.startswith("softadapt")
}
AFTER = {"epoch": 3, "step": 12}  # the step after those of `train`

every_balancer = pytest.mark.parametrize("name", MAKERS)


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


def slope_of(function: Callable[[np.ndarray], float], at: Tensor) -> list[float]:
    """The gradient of a scalar, by central differences."""
    steps = np.diag(at.numpy() * 1e-5)
    return [(function(at.numpy() + h) - function(at.numpy() - h)) / (2 * h.sum()) for h in steps]


def train(balancer: LossBalancer, scale: float = 1.0, device: str = "cpu") -> LossBalancer:
    """Three epochs of four steps, in which the losses rise and fall each in its own way."""
    optimizer = torch.optim.SGD([*balancer.parameters(), torch.zeros(1, requires_grad=True)], 0.1)
    for step in range(12):
        losses = scale * LOSSES * torch.tensor([0.9, 1.0, 1.02]) ** step
        stats = StepStats(losses.to(device), step=step, epoch=step // 4)
        weights = balancer.weights(stats)
        objective = balancer.param_objective(stats)
        if objective is not None:
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
        balancer.commit(stats, weights)
        if balancer.revisits:
            balancer.revisit(stats, losses.to(device) * torch.tensor([0.9, 1.0, 1.1]).to(device))
    return balancer


def state(balancer: LossBalancer) -> dict[str, Tensor]:
    return deepcopy(balancer.state_dict())


# What all of them share


@every_balancer
def test_the_second_answer_is_the_first_and_nothing_is_remembered(name: str) -> None:
    balancer = train(MAKERS[name](TASKS))
    before = state(balancer)
    stats = StepStats(LOSSES, **AFTER)
    assert torch.equal(balancer.weights(stats), balancer.weights(stats))
    for key, value in balancer.state_dict().items():
        assert torch.equal(value, before[key])


@every_balancer
def test_linear_says_whether_weights_are_known_before_the_losses(name: str) -> None:
    balancer = train(MAKERS[name](TASKS))
    known = balancer.weights(StepStats(torch.zeros(3, dtype=torch.float64), **AFTER))
    same = torch.equal(known, balancer.weights(StepStats(LOSSES, **AFTER)))
    assert balancer.linear == same == (name in LINEAR)


@every_balancer
def test_weights_have_the_type_of_the_losses_and_no_gradient(name: str) -> None:
    balancer = train(MAKERS[name](TASKS))
    weights = balancer.weights(StepStats(LOSSES.float(), **AFTER))
    assert weights.dtype == torch.float32
    assert not weights.requires_grad
    wanted = balancer.weights(StepStats(LOSSES, **AFTER)).float()
    torch.testing.assert_close(weights, wanted, rtol=1e-5, atol=0)


@every_balancer
def test_nothing_waits_for_the_device(name: str) -> None:
    """Tensors of the meta device have no values: whoever asks for one fails."""
    balancer = train(MAKERS[name](TASKS).to("meta"), device="meta")
    assert balancer.weights(StepStats(LOSSES.to("meta"), **AFTER)).device.type == "meta"


@every_balancer
@pytest.mark.parametrize("losses", [(0, 0, 0), (0, 1, 1e4), (1e-30, 1e-4, 1), (1e4, 1e8, 1e4)])
def test_weights_are_finite_for_extreme_losses(name: str, losses: tuple[float, ...]) -> None:
    balancer = MAKERS[name](TASKS)
    values = torch.tensor(losses, dtype=torch.float32)
    for step in range(12):
        stats = StepStats(values, step=step, epoch=step // 4)
        weights = balancer.weights(stats)
        assert weights.isfinite().all(), step
        assert (weights >= 0).all()
        objective = balancer.param_objective(stats)
        assert objective is None or objective.isfinite()
        balancer.commit(stats, weights)
        if balancer.revisits:
            balancer.revisit(stats, values.flip(0))


@every_balancer
def test_weights_go_on_from_a_saved_state(name: str) -> None:
    one, other = train(MAKERS[name](TASKS)), MAKERS[name](TASKS)
    stats = StepStats(LOSSES, **AFTER)
    if name in STATEFUL:
        assert not torch.equal(one.weights(stats), other.weights(stats))
    other.load_state_dict(state(one))
    for balancer in (one, other):
        balancer.commit(stats, balancer.weights(stats))
        balancer.revisit(stats, LOSSES.flip(0))
    later = StepStats(LOSSES, step=16, epoch=4)
    assert torch.equal(one.weights(later), other.weights(later))


@every_balancer
def test_a_task_without_labels_keeps_its_state_and_counts_for_nothing(name: str) -> None:
    pair = torch.tensor([0, 2])
    balancer, alone = MAKERS[name](TASKS), MAKERS[name](("seg", "bbox"))
    before = state(balancer)
    for step in range(12):
        losses = LOSSES[pair] * torch.tensor([0.9, 1.02]) ** step
        stats = StepStats(losses, index=pair, step=step, epoch=step // 4)
        same = StepStats(losses, step=step, epoch=step // 4)
        weights = balancer.weights(stats)
        assert weights.shape == (2,)
        if name not in ("rlw", "stch plain"):  # drawn for all tasks; 1 / T is a constant
            torch.testing.assert_close(weights, alone.weights(same), rtol=1e-12, atol=0)
        balancer.commit(stats, weights)
        alone.commit(same, weights)
        balancer.revisit(stats, losses * 0.9)
        alone.revisit(same, losses * 0.9)
    for key, value in balancer.state_dict().items():
        if value.shape[-1:] == (3,):
            assert torch.equal(value[..., 1], before[key][..., 1]), key
    assert balancer.weights(StepStats(LOSSES, **AFTER)).isfinite().all()


ADDING_UP = {"rlw": 1, "uw-so": 1, "famo": 1, "softadapt": 1, "softadapt normalised": 1, "dwa": 3}


@pytest.mark.parametrize(("name", "total"), ADDING_UP.items())
def test_weights_add_up_as_published(name: str, total: float) -> None:
    weights = train(MAKERS[name](TASKS)).weights(StepStats(LOSSES, **AFTER))
    assert weights.sum().item() == pytest.approx(total, rel=1e-12)
    if total == 3:
        some = StepStats(LOSSES[:2], index=torch.tensor([0, 1]), **AFTER)
        assert train(MAKERS[name](TASKS)).weights(some).sum().item() == pytest.approx(2, rel=1e-12)


VALUES = [
    (Equal(TASKS), [1, 1, 1]),
    (Fixed(TASKS, weights={"bbox": 0.2, "seg": 0.7, "cls": 0.1}), [0.7, 0.1, 0.2]),
    (Log(TASKS), [2, 0.5, 0.125]),
    (Geometric(TASKS), [4 / 3, 1 / 3, 1 / 12]),  # the mean is 2
    (UWSO(TASKS), softmax(np.array([2, 0.5, 0.125]))),
    (UWSO(TASKS, temperature=4), softmax(np.array([0.5, 0.125, 0.03125]))),
    (FAMO(TASKS), np.array([16, 4, 1]) / 21),
    (
        FAMO(TASKS, bound={"bbox": 4, "seg": 0.25, "cls": 0}),
        np.array([4, 1 / 2, 1 / 4]) / 4.75,
    ),
    (DWA(TASKS), [1, 1, 1]),
    (SoftAdapt(TASKS), [1 / 3, 1 / 3, 1 / 3]),
    (SoftAdapt(TASKS, form="loss-weighted"), [1 / 3, 1 / 3, 1 / 3]),
    (SoftAdapt(TASKS, form="normalised"), [1 / 3, 1 / 3, 1 / 3]),
    (Uncertainty(TASKS), [0.5, 0.5, 0.5]),
    (IMTLL(TASKS), [1, 1, 1]),
    (STCH(TASKS), [2, 0.5, 0.125]),
    (STCH(TASKS, log=False, mu=2), softmax(np.array([0.5, 2, 8]) / 6) / 3),
]


@pytest.mark.parametrize(("balancer", "weights"), VALUES, ids=[type(b).__name__ for b, _ in VALUES])
def test_first_weights(balancer: LossBalancer, weights: list[float]) -> None:
    found = balancer.weights(StepStats(LOSSES))
    np.testing.assert_allclose(found.numpy(), weights, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(TASKS, weights={"seg": 1.0}), "exactly the tasks seg, cls, bbox, but names"),
        (lambda: Fixed(TASKS, weights={}), "but names none"),
        (lambda: fixed(-1, 0, 1), "weights must be 0 or more and not all 0, but is"),
        (lambda: fixed(0, 0, 0), "weights must be 0 or more and not all 0, but is"),
        (lambda: fixed(math.inf, 0, 0), "weights must be finite, but is"),
        (lambda: Uncertainty(TASKS, initial=math.inf), "initial must be finite, but is inf"),
        (lambda: IMTLL(TASKS, initial=math.nan), "initial must be finite, but is nan"),
        (lambda: DWA(TASKS, temperature=0), "temperature must be above 0, but is 0"),
        (lambda: UWSO(TASKS, temperature=-1), "temperature must be above 0, but is -1"),
        (lambda: SoftAdapt(TASKS, form="best"), "form must be original, .* but is best"),  # type: ignore[arg-type]
        (lambda: SoftAdapt(TASKS, beta=math.nan), "beta must be finite, but is nan"),
        (lambda: SoftAdapt(TASKS, window=1), "window must be 2 or more, but is 1"),
        (lambda: SoftAdapt(TASKS, every=-1), "every must be 0 or more, but is -1"),
        (lambda: FAMO(TASKS, lr=-1), "lr must be 0 or more, but is -1"),
        (lambda: FAMO(TASKS, weight_decay=-1), "weight_decay must be 0 or more, but is -1"),
        (lambda: FAMO(TASKS, bound={"seg": 1}), "bound must name exactly .* but names seg"),
        (lambda: STCH(TASKS, mu=0), "mu must be above 0, but is 0"),
        (lambda: STCH(TASKS, warmup=-1), "warmup must be 0 or more, but is -1"),
        (lambda: STCH(TASKS, weights={"seg": 1}), "weights belongs to the form without a log"),
        (lambda: STCH(TASKS, reference={"seg": 1}), "reference belongs to the form without a log"),
        (lambda: STCH(TASKS, log=False, weights={"seg": 1}), "weights must name exactly"),
        (lambda: STCH(TASKS, log=False, reference={"x": 1}), "reference must name exactly"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    make: Callable[[], LossBalancer], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def fixed(*values: float) -> Fixed:
    return Fixed(TASKS, weights=dict(zip(TASKS, values, strict=True)))


def test_fixed_weights_go_by_task_name_for_some_tasks_too() -> None:
    some = StepStats(LOSSES[[0, 2]], index=torch.tensor([0, 2]))
    assert fixed(0.7, 0.1, 0.2).weights(some).tolist() == [0.7, 0.2]


# Learned variances and scales


def test_uncertainty_is_the_papers_objective() -> None:
    balancer = Uncertainty(TASKS).double()
    s = np.array([0.1, -0.3, 0.7])
    balancer.log_variance.data.copy_(torch.from_numpy(s))
    stats = StepStats(LOSSES)
    expected = (np.exp(-s) * LOSSES.numpy() / 2 + s / 2).sum()
    assert balancer.param_objective(stats).item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(balancer.weights(stats).numpy(), np.exp(-s) / 2, rtol=1e-12)
    balancer.param_objective(stats).backward()
    slopes = (1 - np.exp(-s) * LOSSES.numpy()) / 2
    np.testing.assert_allclose(balancer.log_variance.grad.numpy(), slopes, rtol=1e-12)


def test_imtl_l_is_the_papers_objective() -> None:
    balancer = IMTLL(TASKS).double()
    s = np.array([0.1, -0.3, 0.7])
    balancer.log_scale.data.copy_(torch.from_numpy(s))
    stats = StepStats(LOSSES)
    expected = (np.exp(s) * LOSSES.numpy() - s).sum()
    assert balancer.param_objective(stats).item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(balancer.weights(stats).numpy(), np.exp(s), rtol=1e-12)
    balancer.param_objective(stats).backward()
    slopes = np.exp(s) * LOSSES.numpy() - 1
    np.testing.assert_allclose(balancer.log_scale.grad.numpy(), slopes, rtol=1e-12)


@pytest.mark.parametrize(("kind", "sign"), [(Uncertainty, 1), (IMTLL, -1)])
@pytest.mark.parametrize("losses", [LOSSES, torch.zeros(3, dtype=torch.float64), -LOSSES])
def test_learned_variances_and_scales_come_to_rest(
    kind: type[Uncertainty | IMTLL], sign: int, losses: Tensor
) -> None:
    balancer = kind(TASKS).double()
    (parameter,) = balancer.parameters()
    parameter.data.copy_(sign * losses.clamp(min=1e-8).log())
    balancer.param_objective(StepStats(losses)).backward()
    assert parameter.grad.abs().max() < 1e-12


@pytest.mark.parametrize("kind", [Uncertainty, IMTLL])
def test_a_task_without_labels_does_not_move_its_parameter(
    kind: type[Uncertainty | IMTLL],
) -> None:
    balancer = kind(TASKS)
    balancer.param_objective(StepStats(LOSSES[[2]], index=torch.tensor([2]))).backward()
    (parameter,) = balancer.parameters()
    assert parameter.grad[:2].tolist() == [0, 0]
    assert parameter.grad[2] != 0


# Means of earlier epochs and steps


def parts(mean: Tensor, shift: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Losses of two steps and their counts, with the given means over elements."""
    factors, counts = [[0.5, 0.5, 1.0], [2.0, 1.5, 1.0]], [[8.0, 2.0, 1.0], [4.0, 2.0, 5.0]]
    for factor, count in zip(factors, counts, strict=True):
        yield mean * torch.tensor(factor).roll(shift), torch.tensor(count).roll(shift)


def test_dwa_follows_the_ratio_of_the_last_two_epochs() -> None:
    balancer = DWA(TASKS, temperature=2.0)
    means = torch.tensor([[1.0, 2.0, 4.0], [0.5, 2.0, 1.0]], dtype=torch.float64)
    for epoch, mean in enumerate(means):
        for step, (losses, counts) in enumerate(parts(mean, shift=epoch)):
            stats = StepStats(losses, counts=counts, epoch=epoch, step=step)
            weights = balancer.weights(stats)
            torch.testing.assert_close(weights, torch.ones_like(LOSSES), rtol=1e-12, atol=0)
            balancer.commit(stats, weights)
    expected = 3 * softmax((means[1] / means[0] / 2.0).numpy())
    for losses in (LOSSES, 7 * LOSSES):
        found = balancer.weights(StepStats(losses, epoch=2))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_dwa_forgets_epochs_that_are_too_long_ago() -> None:
    balancer = DWA(TASKS)
    for epoch in (0, 1, 5):
        stats = StepStats(LOSSES[:2] * (epoch + 1), index=torch.tensor([0, 1]), epoch=epoch)
        balancer.commit(stats, balancer.weights(stats))
    for epoch in (5, 6, 7, 20):  # of the last two epochs, one at most is known
        weights = balancer.weights(StepStats(LOSSES, epoch=epoch))
        torch.testing.assert_close(weights, torch.ones_like(LOSSES), rtol=1e-12, atol=0)


def test_dwa_counts_a_task_without_labels_or_without_a_loss_as_level() -> None:
    balancer = DWA(TASKS, temperature=1.0)
    for epoch, losses in enumerate([[1.0, 0.0], [3.0, 2.0]]):
        stats = StepStats(torch.tensor(losses), index=torch.tensor([0, 1]), epoch=epoch)
        balancer.commit(stats, balancer.weights(stats))
    found = balancer.weights(StepStats(LOSSES, epoch=2)).numpy()
    np.testing.assert_allclose(found, 3 * softmax(np.array([3.0, 1.0, 1.0])), rtol=1e-12)


POINTS = np.array([[1.0, 0.8, 0.7, 0.65], [2.0, 2.1, 1.9, 1.4], [5.0, 5.0, 5.5, 5.6]])


def show(balancer: LossBalancer, points: np.ndarray, *, every: int) -> StepStats:
    """Commit the points, each split over ``every`` steps or over an epoch; return what is next."""
    steps = every or 3
    for number, point in enumerate(points.T):
        for part in range(steps):
            stats = StepStats(
                torch.from_numpy(point) * (1 + (part - (steps - 1) / 2) / 10),
                step=number * steps + part,
                epoch=0 if every else number,
            )
            balancer.commit(stats, balancer.weights(stats))
    number = points.shape[1]
    return StepStats(LOSSES, step=number * steps, epoch=0 if every else number)


def last_slopes(points: np.ndarray) -> np.ndarray:
    """Of the polynomials through all points, at the last one."""
    times = np.arange(points.shape[1])
    fits = [np.polynomial.Polynomial.fit(times, row, len(times) - 1) for row in points]
    return np.array([fit.deriv()(times[-1]) for fit in fits])


@pytest.mark.parametrize("every", [0, 1, 4])
@pytest.mark.parametrize("beta", [0.1, 2.0, -1.0])
def test_softadapt_is_the_softmax_of_the_slopes(every: int, beta: float) -> None:
    slopes = last_slopes(POINTS)
    forms: dict[Form, np.ndarray] = {
        "original": softmax(beta * slopes),
        "loss-weighted": POINTS.mean(1) * np.exp(beta * slopes),
        "normalised": softmax(beta * slopes / np.abs(slopes).sum()),
    }
    for form, expected in forms.items():
        balancer = SoftAdapt(TASKS, form=form, beta=beta, window=4, every=every)
        found = balancer.weights(show(balancer, POINTS, every=every)).numpy()
        rtol = 2e-7 if form == "normalised" else 1e-10  # the slopes' sum has a small number added
        np.testing.assert_allclose(found, expected / expected.sum(), rtol=rtol, err_msg=form)


@pytest.mark.parametrize("window", range(2, 9))
def test_softadapts_slope_is_exact_for_polynomials(window: int) -> None:
    times = np.arange(window) - window + 1.0
    highest = (times / 5) ** (window - 1)
    points = np.stack([times * 0 + 3, 0.7 * times + 9, 2 + 0.3 * times + highest])
    slopes = np.array([0, 0.7, 0.3 if window > 2 else 0.5])
    balancer = SoftAdapt(TASKS, beta=1.0, window=window, every=1)
    found = balancer.weights(show(balancer, points, every=1)).numpy()
    np.testing.assert_allclose(found, softmax(slopes), rtol=1e-9)


def test_softadapt_looks_at_the_last_points_only() -> None:
    one, other = (SoftAdapt(TASKS, window=3, every=2) for _ in range(2))
    late = one.weights(show(one, POINTS, every=2))
    alone = other.weights(show(other, POINTS[:, 1:], every=2))
    assert torch.equal(late, alone)


def test_softadapts_weights_stay_while_a_point_is_made() -> None:
    balancer = SoftAdapt(TASKS, window=2, every=4)
    stats = show(balancer, POINTS, every=4)
    first = balancer.weights(stats)
    for step in range(stats.step, stats.step + 4):
        now = StepStats(LOSSES, step=step)
        assert torch.equal(balancer.weights(now), first)
        balancer.commit(now, first)
    assert not torch.equal(balancer.weights(StepStats(LOSSES, step=stats.step + 4)), first)


def test_softadapts_normalised_form_survives_slopes_that_cancel() -> None:
    balancer = SoftAdapt(TASKS, form="normalised", beta=1.0, window=2, every=1)
    points = np.array([[1.0, 2.0], [4.0, 3.0], [5.0, 5.0]])
    found = balancer.weights(show(balancer, points, every=1)).numpy()
    np.testing.assert_allclose(found, softmax(np.array([0.5, -0.5, 0])), rtol=1e-7)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_softadapts_normalised_form_knows_no_unit(scale: float) -> None:
    one, other = (SoftAdapt(TASKS, form="normalised", window=4, every=1) for _ in range(2))
    found = one.weights(show(one, POINTS, every=1))
    scaled = other.weights(show(other, POINTS * scale, every=1))
    torch.testing.assert_close(found, scaled, rtol=1e-9, atol=0)


def test_softadapt_takes_a_task_with_too_few_points_for_level() -> None:
    balancer = SoftAdapt(TASKS, beta=1.0, window=2, every=1)
    pair = torch.tensor([0, 2])
    for step, losses in enumerate([[1.0, 2.0], [1.5, 1.0]]):
        stats = StepStats(torch.tensor(losses), index=pair, step=step)
        balancer.commit(stats, balancer.weights(stats))
    found = balancer.weights(StepStats(LOSSES, step=2)).numpy()
    np.testing.assert_allclose(found, softmax(np.array([0.5, 0, -1])), rtol=1e-12)


def test_softadapts_loss_of_a_task_with_too_few_points_is_of_those_or_the_others() -> None:
    balancer = SoftAdapt(TASKS, form="loss-weighted", beta=1.0, window=2, every=1)
    for step, losses in enumerate([[1.0, 2.0], [1.5]]):
        index = torch.tensor([0, 2])[: len(losses)]
        stats = StepStats(torch.tensor(losses), index=index, step=step)
        balancer.commit(stats, balancer.weights(stats))
    found = balancer.weights(StepStats(LOSSES, step=2)).numpy()
    expected = np.array([1.25 * np.exp(0.5), (1.25 + 2) / 2, 2])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-12)


# Functions of this step's losses


def test_geometric_weights_are_the_means_derivatives() -> None:
    losses = torch.tensor([0.3, 1.7, 2.2, 40.0], dtype=torch.float64)
    found = Geometric(("a", "b", "c", "d")).weights(StepStats(losses)).numpy()
    np.testing.assert_allclose(found, slope_of(lambda x: x.prod() ** 0.25, losses), rtol=1e-8)


def test_geometric_never_takes_the_product() -> None:
    tasks = [str(i) for i in range(40)]
    for size in (1e-6, 1e6):  # 1e-240 and 1e240 are no numbers of float32
        losses = torch.full((40,), size)
        found = Geometric(tasks).weights(StepStats(losses))
        torch.testing.assert_close(found, torch.full((40,), 1 / 40), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["log", "geometric", "stch"])
def test_a_losss_unit_does_not_change_the_direction(name: str) -> None:
    units = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    shares = []
    for unit in (torch.ones(3), units):
        weights = MAKERS[name](TASKS).weights(StepStats(LOSSES * unit)) * LOSSES * unit
        shares.append(weights / weights.sum())
    torch.testing.assert_close(*shares, rtol=1e-9, atol=0)


PREFERENCES, IDEALS = np.array([0.5, 0.2, 0.3]), np.array([0.1, 1.0, -2.0])


@pytest.mark.parametrize("mu", [0.01, 0.1, 1.0, 10.0])
def test_stch_without_a_logarithm_has_the_derivatives_of_the_papers_function(mu: float) -> None:
    def scalar(losses: np.ndarray) -> float:
        regrets = PREFERENCES * (losses - IDEALS) / mu
        return float(mu * (np.log(np.exp(regrets - regrets.max()).sum()) + regrets.max()))

    balancer = STCH(
        TASKS,
        log=False,
        mu=mu,
        weights={"bbox": 0.3, "cls": 0.2, "seg": 0.5},
        reference={"cls": 1.0, "bbox": -2.0, "seg": 0.1},
    )
    losses = torch.tensor([4.0, 9.9, 4.8], dtype=torch.float64)
    found = balancer.weights(StepStats(losses)).numpy()
    np.testing.assert_allclose(found, slope_of(scalar, losses), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_stch_with_a_logarithm_measures_its_nadir_in_one_epoch(mu: float) -> None:
    balancer = STCH(TASKS, mu=mu, warmup=2)
    nadirs = LOSSES.numpy() * [1.0, 2.0, 3.0]
    for epoch in range(5):
        factor = torch.tensor([1.0, 1.0, 1.0] if epoch == 2 else [9.0, 3.0, 0.1])
        for losses, counts in parts(torch.from_numpy(nadirs) * factor):
            stats = StepStats(losses, counts=counts, epoch=epoch)
            weights = balancer.weights(stats)
            if epoch < 3:
                torch.testing.assert_close(weights, 1 / losses, rtol=1e-12, atol=0)
            balancer.commit(stats, weights)

    def scalar(losses: np.ndarray) -> float:
        return float(3 * mu * np.log((np.exp(np.log(losses / nadirs) / mu)).sum()))

    found = balancer.weights(StepStats(LOSSES, epoch=5)).numpy()
    np.testing.assert_allclose(found, slope_of(scalar, LOSSES), rtol=1e-7)


def test_stch_counts_a_task_without_a_nadir_as_being_there() -> None:
    balancer = STCH(TASKS, warmup=0)
    pair = torch.tensor([0, 1])
    balancer.commit(StepStats(LOSSES[pair], index=pair), LOSSES)
    found = balancer.weights(StepStats(LOSSES * torch.tensor([2, 3, 9]), epoch=1)).numpy()
    expected = 3 * np.array([2, 3, 1]) / 6 / LOSSES.numpy() / [2, 3, 9]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# Random weights


def draws(count: int, **given: int) -> np.ndarray:
    return np.stack([
        RLW(TASKS).weights(StepStats(LOSSES, step=step, **given)).numpy() for step in range(count)
    ])  # fmt: skip


def test_rlw_is_the_softmax_of_normal_numbers() -> None:
    weights = draws(4000)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.02)
    ratios = np.log(weights[:, 0] / weights[:, 1])  # the difference of two standard normal numbers
    assert ratios.mean() == pytest.approx(0, abs=0.1)
    assert ratios.var() == pytest.approx(2, abs=0.2)
    assert np.mean(np.abs(ratios) < math.sqrt(2)) == pytest.approx(0.6827, abs=0.03)


def test_rlw_depends_on_seed_and_step_alone() -> None:
    assert (draws(3) == draws(3, epoch=5)).all()
    assert len(np.unique(np.concatenate([draws(3), draws(3, seed=1)]), axis=0)) == 6


def test_rlw_draws_the_same_for_a_task_whoever_else_is_there() -> None:
    everyone = RLW(TASKS).weights(StepStats(LOSSES))
    pair = torch.tensor([0, 2])
    some = RLW(TASKS).weights(StepStats(LOSSES[pair], index=pair))
    torch.testing.assert_close(some, everyone[pair] / everyone[pair].sum(), rtol=1e-12, atol=0)


# FAMO


def revisits(index: list[list[int]]) -> Iterator[tuple[StepStats, Tensor]]:
    """Steps and the losses after them, for the tasks of each step."""
    numbers = np.random.default_rng(0)
    for step, tasks in enumerate(index):
        before, after = torch.from_numpy(numbers.uniform(0.5, 5, (2, len(tasks))))
        yield StepStats(before, index=torch.tensor(tasks), step=step), after


@pytest.mark.parametrize("bound", [0.0, 0.2])
def test_famo_is_adam_on_the_softmax_of_how_far_losses_fell(bound: float) -> None:
    balancer = FAMO(TASKS, lr=0.05, weight_decay=0.1, bound=dict.fromkeys(TASKS, bound))
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.05, weight_decay=0.1)
    for stats, after in revisits([[0, 1, 2]] * 20):
        above = stats.losses.clone().requires_grad_()
        shares = torch.softmax(logits.detach(), 0)
        constant = 1 / (shares / (above.detach() - bound)).sum()
        (constant * shares * (above - bound).log()).sum().backward()
        torch.testing.assert_close(balancer.weights(stats), above.grad, rtol=1e-10, atol=0)
        balancer.commit(stats, balancer.weights(stats))
        balancer.revisit(stats, after)
        fall = (stats.losses - bound).log() - (after - bound).log()
        adam.zero_grad()
        (torch.softmax(logits, 0) * fall).sum().backward()
        adam.step()
    torch.testing.assert_close(balancer.logits, logits.detach(), rtol=1e-9, atol=0)


def test_famo_moves_a_task_by_its_own_steps_alone() -> None:
    """Two tasks alternating with a third are where they would be without it."""
    one, other = FAMO(TASKS), FAMO(TASKS[:2])
    for stats, after in revisits([[0, 1], [2]] * 10):
        one.revisit(stats, after)
        if len(after) == 2:
            other.revisit(stats, after)
    torch.testing.assert_close(one.logits[:2], other.logits, rtol=1e-12, atol=0)
    assert one.steps.tolist() == [10, 10, 10]
    assert one.logits[2] == 0  # the softmax of one number has no slope


def test_famo_turns_to_the_task_that_falls_least() -> None:
    balancer = FAMO(TASKS)
    stats = StepStats(LOSSES)
    balancer.revisit(stats, LOSSES * torch.tensor([0.5, 0.9, 1.0]))
    assert balancer.logits[0] < 0 < balancer.logits[2]


# Random numbers


def test_random_numbers_depend_on_seed_step_and_salt() -> None:
    def draw(salt: str = "", **given: int) -> list[float]:
        return torch.rand(3, generator=StepStats(LOSSES, **given).rng(salt)).tolist()

    assert draw(seed=1, step=2) == draw(seed=1, step=2, epoch=9)
    assert len({tuple(d) for d in (draw(), draw(seed=1), draw(step=1), draw("x"))}) == 4
