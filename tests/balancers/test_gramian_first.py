"""MGDA, PCGrad, GradVac, CAGrad, GradNorm and IMTL-G against code that works on the gradients."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mtlkit_balancers._simplex import min_norm
from mtlkit_balancers.cagrad import CAGrad
from mtlkit_balancers.gradnorm import GradNorm
from mtlkit_balancers.gradvac import GradVac
from mtlkit_balancers.imtl_g import IMTLG
from mtlkit_balancers.mgda import MGDA
from mtlkit_balancers.pcgrad import PCGrad

from mtlkit import LossBalancer, StepStats

scipy_optimize = pytest.importorskip("scipy.optimize")

BALANCERS = (MGDA, PCGrad, GradVac, CAGrad, GradNorm, IMTLG)


def tasks(count: int) -> tuple[str, ...]:
    return tuple(f"task{number}" for number in range(count))


def stats(rows: np.ndarray, losses: np.ndarray | None = None, **given: object) -> StepStats:
    values = np.linspace(0.5, 2.0, len(rows)) if losses is None else losses
    gramian = torch.from_numpy(rows @ rows.T)
    return StepStats(losses=torch.from_numpy(values), gramian=gramian, **given)


def random_rows(count: int, seed: int, size: int = 20) -> np.ndarray:
    """Gradients of many kinds: agreeing, conflicting, almost Pareto stationary, badly scaled."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, size)) + seed % 3 * 0.4 * rng.standard_normal(size)
    if seed % 4 == 1:
        rows -= 0.9 * rows.mean(0)
    if seed % 4 == 2:
        rows *= np.logspace(-2, 2, count)[:, None]
    return rows


E1, E2, E3 = np.eye(3)
SPECIAL = {
    "one": np.array([E1]),
    "orthogonal": np.array([E1, 2 * E2, 3 * E3]),
    "parallel": np.array([E1, 2 * E1, 5 * E1]),
    "duplicate": np.array([E1 + E2, E1 + E2, E3 - E1]),
    "all alike": np.array([E1, E1, E1]),
    "opposite": np.array([E1, -E1]),
    "opposite and long": np.array([E1, -3 * E1, E2]),
    "two against one": np.array([E1, E1, -E1]),
    "balanced": np.array([E1, E2, -E1 - E2]),
    "zero row": np.array([E1, 0 * E1, E2 - E1]),
    "all but one zero": np.array([0 * E1, E1, 0 * E1]),
    "all zero": np.zeros((3, 3)),
    "badly scaled": np.array([1e-6 * E1, 1e6 * (E2 - 0.3 * E1), E3]),
    "badly scaled, opposite": np.array([E1 + E2, 1e5 * E3, -1e5 * E3 - 1e5 * E1]),
    "long and exactly opposite": np.array([E2 - E3, 2e5 * E1, E1 + E3, -3e5 * E1, E1 + 2 * E2]),
    "almost duplicate": np.array([E1 + E2, (1 + 1e-9) * (E1 + E2), E3 - E1]),
    "more tasks than directions": np.random.default_rng(0).standard_normal((10, 3)),
    "same side": np.abs(np.random.default_rng(1).standard_normal((10, 3))),
}
RANDOM = {f"{count} tasks, {seed}": random_rows(count, seed) for count in (1, 2, 3, 6, 10)
          for seed in range(8)}  # fmt: skip
CASES = SPECIAL | RANDOM
every_case = pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
every_balancer = pytest.mark.parametrize("kind", BALANCERS)


def shortest(rows: np.ndarray) -> float:
    return np.linalg.norm(rows, axis=1).min()


def min_norm_by_nnls(rows: np.ndarray) -> np.ndarray:
    """Wolfe's problem as non-negative least squares on the gradients themselves."""
    unit = shortest(rows) or 1.0
    system = np.vstack([rows.T / unit, np.ones(len(rows))])
    weights, _ = scipy_optimize.nnls(system, np.r_[np.zeros(rows.shape[1]), 1.0])
    return weights / weights.sum()


# MGDA


@every_case
def test_mgda_meets_the_optimality_conditions(rows: np.ndarray) -> None:
    balancer = MGDA(tasks(len(rows)))
    weights = balancer.weights(stats(rows)).numpy()
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    vector = weights @ rows
    gap = vector @ vector - (rows @ vector).min()  # 0 at the optimum alone
    rounding = 1e-15 * np.abs(rows).max() * (weights @ np.abs(rows)).max()  # of the gap
    assert gap <= 1e-9 * shortest(rows) ** 2 + rounding
    assert balancer.report["failures"] == 0


@pytest.mark.parametrize("rows", RANDOM.values(), ids=RANDOM)
def test_mgda_is_the_optimum_to_1e_8(rows: np.ndarray) -> None:
    weights = MGDA(tasks(len(rows))).weights(stats(rows)).numpy()
    expected = min_norm_by_nnls(rows)
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-9)
    assert np.sum((weights @ rows) ** 2) <= np.sum((expected @ rows) ** 2) * (1 + 1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_mgda_agrees_with_a_general_purpose_solver(seed: int) -> None:
    rows = random_rows(4, seed)
    gramian = rows @ rows.T
    gramian /= np.trace(gramian)
    found = scipy_optimize.minimize(
        lambda w: w @ gramian @ w,
        np.full(4, 0.25),
        jac=lambda w: 2 * gramian @ w,
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    weights = MGDA(tasks(4)).weights(stats(rows)).numpy()
    assert weights @ gramian @ weights == pytest.approx(found.fun, rel=1e-6)
    assert weights @ gramian @ weights <= found.fun * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_mgda_of_two_tasks_is_the_best_point_of_a_grid(seed: int) -> None:
    rows = random_rows(2, seed)
    grid = np.linspace(0, 1, 200_001)
    lengths = ((grid[:, None] * rows[0] + (1 - grid[:, None]) * rows[1]) ** 2).sum(1)
    first = MGDA(tasks(2)).weights(stats(rows))[0].item()
    assert first == pytest.approx(grid[lengths.argmin()], abs=5e-6)


def test_mgda_of_two_tasks_by_closed_form_is_that_of_the_general_solver() -> None:
    for seed in range(8):
        rows = random_rows(2, seed)
        long = np.vstack([rows, 100 * rows.sum(0) + 1000])  # a third that no optimum wants
        general = min_norm((long @ long.T).tolist())[0]
        closed = min_norm((rows @ rows.T).tolist())[0]
        if general[2] == 0:
            np.testing.assert_allclose(general[:2], closed, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["none", "l2", "loss", "loss+"])
@pytest.mark.parametrize("seed", range(4))
def test_mgda_weights_come_from_normalised_gradients_and_go_to_raw_losses(
    norm: str, seed: int
) -> None:
    rows, losses = random_rows(5, seed), np.array([0.1, 3.0, 1.0, 10.0, 0.7])
    lengths = np.linalg.norm(rows, axis=1)
    divisors = {"none": 1 + 0 * losses, "l2": lengths, "loss": losses, "loss+": losses * lengths}
    expected = min_norm_by_nnls(rows / divisors[norm][:, None])
    weights = MGDA(tasks(5), norm=norm).weights(stats(rows, losses)).numpy()
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("norm", ["none", "l2", "loss", "loss+"])
@pytest.mark.parametrize("losses", [(0, 0, 0), (0, 1, 2), (-1, 1e-30, 2), (1e4, 1e-4, 1)])
@pytest.mark.parametrize("case", [name for name, rows in SPECIAL.items() if len(rows) == 3])
def test_mgda_with_every_norm_stays_finite(norm: str, losses: tuple[float], case: str) -> None:
    given = stats(SPECIAL[case], np.array(losses, dtype=float))
    weights = MGDA(tasks(3), norm=norm).weights(given)
    assert weights.isfinite().all()
    assert weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("norm", ["loss", "loss+"])
def test_mgda_divides_by_a_loss_of_zero_as_by_a_very_small_one(norm: str) -> None:
    given = stats(SPECIAL["orthogonal"], np.array([0.0, 1.0, 1.0]))
    assert MGDA(tasks(3), norm=norm).weights(given)[0].item() < 1e-12


def test_mgda_gives_equal_tasks_equal_weights() -> None:
    for name in ("duplicate", "all alike", "two against one", "all zero"):
        weights = MGDA(tasks(3)).weights(stats(SPECIAL[name]))
        assert weights[0].item() == pytest.approx(weights[1].item(), abs=1e-12)
    assert MGDA(tasks(2)).weights(stats(np.array([E1, E1]))).tolist() == [0.5, 0.5]


def test_mgda_leaves_everything_to_a_task_without_a_gradient() -> None:
    assert MGDA(tasks(3)).weights(stats(SPECIAL["zero row"])).tolist() == [0, 1, 0]


# PCGrad and GradVac


def order(given: StepStats, name: str, count: int) -> list[list[int]]:
    generator = given.rng(name)
    return [torch.randperm(count, generator=generator).tolist() for _ in range(count)]


def surgery(rows: np.ndarray, orders: list[list[int]]) -> np.ndarray:
    """Algorithm 1 on the gradients themselves."""
    total = np.zeros(rows.shape[1])
    for i, others in enumerate(orders):
        vector = rows[i].copy()
        for j in others:
            if j != i and (product := vector @ rows[j]) < 0:
                vector -= product / (rows[j] @ rows[j]) * rows[j]
        total += vector
    return total


@pytest.mark.parametrize("rows", RANDOM.values(), ids=RANDOM)
def test_pcgrad_is_algorithm_1_on_the_gradients(rows: np.ndarray) -> None:
    for step in range(3):
        given = stats(rows, step=step, seed=7)
        weights = PCGrad(tasks(len(rows))).weights(given).numpy()
        expected = surgery(rows, order(given, "pcgrad", len(rows)))
        scale = np.abs(weights[:, None] * rows).sum()
        np.testing.assert_allclose(weights @ rows, expected, rtol=1e-9, atol=1e-13 * scale)


def test_pcgrad_of_two_conflicting_tasks_is_known() -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 1.0]])
    # g1 + g1.g2 terms: g1 - (-1/2) g2 and g2 - (-1/1) g1
    assert PCGrad(tasks(2)).weights(stats(rows)).tolist() == pytest.approx([2.0, 1.5])


def test_pcgrad_and_gradvac_sum_what_does_not_conflict() -> None:
    for kind in (PCGrad, GradVac):
        assert kind(tasks(3)).weights(stats(SPECIAL["orthogonal"])).tolist() == [1, 1, 1]


def test_pcgrad_and_gradvac_do_not_divide_by_a_length_that_underflows() -> None:
    given = stats(np.array([[1.0], [-1e-170]]))
    for kind in (PCGrad, GradVac):
        assert kind(tasks(2)).weights(given).tolist() == [1, 1 + 1e-170]


def test_the_order_of_pcgrad_depends_on_the_step_alone() -> None:
    rows = random_rows(6, 1)
    one, other = PCGrad(tasks(6)), PCGrad(tasks(6))
    torch.manual_seed(3)
    first = one.weights(stats(rows, step=4))
    torch.manual_seed(5)
    assert torch.equal(first, other.weights(stats(rows, step=4)))
    assert not torch.equal(first, one.weights(stats(rows, step=5)))


class Vaccine:
    """Eq. 2 and 3 on the gradients themselves, by trigonometry."""

    def __init__(self, count: int, beta: float) -> None:
        self.goals = np.zeros((count, count))
        self.beta = beta

    def __call__(self, rows: np.ndarray, orders: list[list[int]]) -> np.ndarray:
        total = np.zeros(rows.shape[1])
        for i, others in enumerate(orders):
            vector = rows[i].copy()
            for j in others:
                if j == i:
                    continue
                length, other = np.linalg.norm(vector), np.linalg.norm(rows[j])
                angle = math.acos(vector @ rows[j] / length / other)
                goal = math.acos(self.goals[i, j])
                if angle > goal:  # law of sines
                    vector = vector + length * math.sin(angle - goal) / math.sin(goal) * (
                        rows[j] / other
                    )
                self.goals[i, j] += self.beta * (math.cos(angle) - self.goals[i, j])
            total += vector
        return total


@pytest.mark.parametrize("beta", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 10])
def test_gradvac_is_its_equations_on_the_gradients(count: int, beta: float) -> None:
    balancer, reference = GradVac(tasks(count), beta=beta), Vaccine(count, beta)
    for step in range(6):
        rows = random_rows(count, step + 100 * count)
        given = stats(rows, step=step, seed=1)
        weights = balancer.weights(given)
        expected = reference(rows, order(given, "gradvac", count))
        balancer.commit(given, weights)
        scale = np.abs(weights.numpy()[:, None] * rows).sum()
        np.testing.assert_allclose(weights.numpy() @ rows, expected, rtol=1e-7, atol=1e-11 * scale)
        np.testing.assert_allclose(balancer.goals.numpy(), reference.goals, atol=1e-7)


def test_gradvac_with_a_beta_of_zero_is_pcgrad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.arange(n))
    rows = random_rows(6, 1)
    one, other = (kind(tasks(6)).weights(stats(rows)) for kind in (GradVac, PCGrad))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_gradvac_brings_gradients_to_their_usual_cosine() -> None:
    balancer = GradVac(tasks(2))
    balancer.goals.fill_(0.6)
    rows = np.array([[1.0, 0.0], [0.0, 2.0]])
    # each gets 0.6 / 0.8 of its own length of the other's direction
    weights = balancer.weights(stats(rows)).tolist()
    assert weights == pytest.approx([1 + 0.75 * 2, 1 + 0.75 / 2], rel=1e-12)


def test_gradvac_remembers_nothing_of_tasks_without_a_gradient() -> None:
    balancer = GradVac(tasks(3))
    balancer.goals.fill_(0.2)
    given = stats(SPECIAL["zero row"])
    balancer.commit(given, balancer.weights(given))
    changed = (balancer.goals != 0.2).tolist()
    assert changed == [[False, False, True], [False, False, False], [True, False, False]]


@pytest.mark.parametrize("goal", [1.0, -1.0])
def test_gradvac_stays_finite_at_the_ends_of_its_range(goal: float) -> None:
    for rows in SPECIAL.values():
        balancer = GradVac(tasks(len(rows)))
        balancer.goals.fill_(goal)
        weights = balancer.weights(stats(rows))
        assert weights.isfinite().all()
        lengths = np.linalg.norm(rows, axis=1)
        assert np.linalg.norm(weights.numpy() @ rows) <= 1000 ** len(rows) * (lengths.sum() + 1)


# CAGrad


def direction(rows: np.ndarray, c: float) -> np.ndarray:
    balancer = CAGrad(tasks(len(rows)), c=c, rescale="none")
    weights = balancer.weights(stats(rows)).numpy()
    assert balancer.report["failures"] == 0
    return weights @ rows


def dual(rows: np.ndarray, c: float, w: np.ndarray) -> float:
    average = rows.mean(0)
    return w @ rows @ average + c * np.linalg.norm(average) * np.linalg.norm(w @ rows)


@pytest.mark.parametrize("c", [0.1, 0.4, 0.9])
@every_case
def test_cagrad_has_no_duality_gap_inside_its_ball(rows: np.ndarray, c: float) -> None:
    average = rows.mean(0)
    found = direction(rows, c)
    size = np.linalg.norm(average)
    radius = np.linalg.norm(found - average)
    assert radius <= c * size * (1 + 1e-7) + 1e-12 * np.abs(rows).max()
    progress = (rows @ found).min()
    balancer = CAGrad(tasks(len(rows)), c=c, rescale="none")
    weights = balancer.weights(stats(rows)).numpy() - 1 / len(rows)
    assert (weights >= -1e-12).all()
    candidates = [min_norm_by_nnls(rows)]
    if weights.sum() > 0:
        candidates.append(weights / weights.sum())
    gap = min(dual(rows, c, w) for w in candidates) - progress
    rounding = 1e-13 * np.abs(rows).max() * size
    assert gap <= 1e-8 * shortest(rows) * size + rounding


@pytest.mark.parametrize("c", [0.2, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_cagrad_agrees_with_a_general_purpose_solver(seed: int, c: float) -> None:
    rows = random_rows(4, seed)
    found = min(
        scipy_optimize.minimize(
            lambda w: dual(rows, c, w),
            start,
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        ).fun
        for start in [np.full(4, 0.25), *np.eye(4)]
    )
    scale = shortest(rows) * np.linalg.norm(rows.mean(0))
    assert (rows @ direction(rows, c)).min() == pytest.approx(found, rel=1e-6, abs=1e-7 * scale)


@pytest.mark.parametrize("seed", range(8))
def test_cagrad_of_two_tasks_is_the_best_point_of_a_circle(seed: int) -> None:
    rows, c = random_rows(2, seed, size=2), 0.4
    average = rows.mean(0)
    angles = np.linspace(0, 2 * np.pi, 400_001)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1) * c * np.linalg.norm(average)
    best = ((average + circle) @ rows.T).min(1).argmax()
    found = direction(rows, c)
    np.testing.assert_allclose(found, average + circle[best], atol=1e-4 * np.linalg.norm(average))
    assert (rows @ found).min() >= ((average + circle) @ rows.T).min(1).max() * (1 - 1e-12)


def test_cagrad_without_a_radius_is_the_average() -> None:
    for rows in CASES.values():
        weights = CAGrad(tasks(len(rows)), c=0).weights(stats(rows))
        assert weights.tolist() == pytest.approx([1 / len(rows)] * len(rows), rel=1e-15)


def test_cagrad_at_a_stationary_point_keeps_what_harms_nobody() -> None:
    rows = np.array([E1, -3 * E1, E2 + 0.1 * E1])  # average -0.63 E1 + E2 / 3
    np.testing.assert_allclose(direction(rows, 0.95), [0, 1 / 3, 0], atol=1e-12)
    rows = np.array([E1, -E1 + 1e-9 * E2, E2])
    found = direction(rows, 0.4)
    assert np.linalg.norm(found - rows.mean(0)) <= 0.4 * np.linalg.norm(rows.mean(0)) * (1 + 1e-9)
    assert (rows @ found).min() >= -1e-8


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_cagrad_next_to_a_stationary_point_is_still_exact(share: float) -> None:
    rng = np.random.default_rng(0)
    for distance in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        rows = rng.standard_normal((4, 6))
        rows[2:] += 4 * share * np.abs(rows[2:])  # all four balance, or the first two alone
        opposed = [0.5, 0.3, 0.8] if share == 0 else [0.5, 0, 0]
        rows[3 if share == 0 else 1] = distance * rng.standard_normal(6) - opposed @ rows[:3]
        weights = CAGrad(tasks(4), c=0.5, rescale="none").weights(stats(rows)).numpy()
        w = (weights - 0.25) / (weights - 0.25).sum()
        gap = dual(rows, 0.5, w) - (rows @ (weights @ rows)).min()
        assert gap <= 1e-8 * shortest(rows) * np.linalg.norm(rows.mean(0))


def test_cagrad_rescales_as_the_authors_do() -> None:
    rows = random_rows(3, 1)
    plain = CAGrad(tasks(3), c=0.5, rescale="none").weights(stats(rows))
    for rescale, divisor in (("square", 1.25), ("linear", 1.5)):
        weights = CAGrad(tasks(3), c=0.5, rescale=rescale).weights(stats(rows))
        torch.testing.assert_close(weights, plain / divisor)


# GradNorm


def test_gradnorm_objective_is_the_papers() -> None:
    balancer = GradNorm(tasks(3), alpha=1.5, num_first_steps=1).double()
    rows = random_rows(3, 2)
    first = stats(rows, np.array([1.0, 4.0, 0.5]))
    balancer.commit(first, balancer.weights(first))
    balancer.logits.data.copy_(torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64))
    given = stats(rows, np.array([0.5, 3.0, 0.4]))

    def objective(v: np.ndarray, mean: float | None = None) -> float:
        lengths = 3 * np.exp(v) / np.exp(v).sum() * np.linalg.norm(rows, axis=1)
        ratios = np.array([0.5, 0.75, 0.8])
        rates = ratios / ratios.mean()
        mean = lengths.mean() if mean is None else mean
        return np.abs(lengths - mean * rates**1.5).sum()

    v = np.array([0.3, -0.2, 0.9])
    weights = 3 * np.exp(v) / np.exp(v).sum()
    np.testing.assert_allclose(balancer.weights(given).numpy(), weights, rtol=1e-12)
    found = balancer.param_objective(given)
    assert found.item() == pytest.approx(objective(v), rel=1e-12)
    found.backward()
    mean = (weights * np.linalg.norm(rows, axis=1)).mean()  # a constant to the derivative
    expected = [
        (objective(v + step, mean) - objective(v - step, mean)) / 2e-6 for step in 1e-6 * np.eye(3)
    ]
    np.testing.assert_allclose(balancer.logits.grad.numpy(), expected, rtol=1e-6, atol=1e-8)


def test_gradnorm_trained_alone_makes_the_gradients_equally_long() -> None:
    balancer = GradNorm(tasks(3), alpha=0)
    rows = random_rows(3, 3) * np.array([[1.0], [3.0], [0.5]])
    optimizer = torch.optim.Adam(balancer.parameters(), lr=0.02)
    for step in range(3000):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * 0.998**step
        optimizer.zero_grad()
        balancer.param_objective(stats(rows)).backward()
        optimizer.step()
    lengths = balancer.weights(stats(rows)).numpy() * np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=1e-3)


def test_gradnorm_measures_from_the_mean_of_the_first_losses_above_zero() -> None:
    balancer = GradNorm(tasks(2), num_first_steps=2)
    for losses in ([0.0, 1.0], [2.0, 3.0], [4.0, 8.0], [100.0, 100.0]):
        given = stats(np.eye(2), np.array(losses))
        balancer.commit(given, balancer.weights(given))
    assert (balancer.first_sums / balancer.first_steps).tolist() == [3, 2]


def test_gradnorm_is_finite_while_a_task_has_had_no_loss() -> None:
    balancer = GradNorm(tasks(2))
    for losses in ([0.0, 0.0], [0.0, 1.0], [1e-300, 1.0], [1e4, -1.0]):
        given = stats(np.eye(2), np.array(losses))
        objective = balancer.param_objective(given)
        assert objective.isfinite()
        objective.backward()
        assert balancer.logits.grad.isfinite().all()
        balancer.commit(given, balancer.weights(given))


def test_gradnorm_weights_are_detached_and_sum_to_the_number_of_all_tasks() -> None:
    balancer = GradNorm(tasks(4))
    balancer.logits.data.copy_(torch.tensor([1.0, 2.0, -1.0, 0.0]))
    weights = balancer.weights(stats(random_rows(4, 0)))
    assert not weights.requires_grad
    assert weights.sum().item() == pytest.approx(4)
    part = balancer.weights(stats(random_rows(2, 0), index=torch.tensor([1, 3])))
    assert torch.equal(part, weights[[1, 3]])


# IMTL-G


@pytest.mark.parametrize("rows", RANDOM.values(), ids=RANDOM)
def test_imtl_g_projects_equally_onto_every_task(rows: np.ndarray) -> None:
    weights = IMTLG(tasks(len(rows))).weights(stats(rows)).numpy()
    units = rows / np.linalg.norm(rows, axis=1)[:, None]
    projections = units @ (weights @ rows)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-7)
    assert projections[0] > 0
    assert weights.sum() <= 1 + 1e-12


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_imtl_g_is_the_papers_closed_form(count: int, seed: int) -> None:
    rows = random_rows(count, seed)
    units = rows / np.linalg.norm(rows, axis=1)[:, None]
    differences, unit_differences = rows[0] - rows[1:], units[0] - units[1:]
    others = rows[0] @ unit_differences.T @ np.linalg.inv(differences @ unit_differences.T)
    expected = np.r_[1 - others.sum(), others]
    weights = IMTLG(tasks(count)).weights(stats(rows)).numpy()
    np.testing.assert_allclose(weights, expected, rtol=1e-8, atol=1e-10)


def test_imtl_g_of_orthogonal_tasks_weights_by_inverse_length() -> None:
    weights = IMTLG(tasks(3)).weights(stats(SPECIAL["orthogonal"])).tolist()
    assert weights == pytest.approx([6 / 11, 3 / 11, 2 / 11], rel=1e-12)


def test_imtl_g_never_climbs_where_the_weights_sum_to_less_than_nothing() -> None:
    between = 0.9 * (E1 + E2) + 0.3 * E3
    for length in np.logspace(-4, 1, 200):  # the sum goes from below 0 through 0 to above
        rows = np.array([E1, E2, length * between])
        weights = IMTLG(tasks(3)).weights(stats(rows)).numpy()
        assert np.abs(weights).max() <= 100
        projections = rows @ (weights @ rows) / np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(projections, projections[0], rtol=1e-9)
        assert projections[0] > 0


def test_imtl_g_takes_no_step_between_opposite_tasks() -> None:
    for rows in (np.array([E1, -E1]), np.array([E1, -7 * E1]), np.zeros((2, 2))):
        assert IMTLG(tasks(2)).weights(stats(rows)).tolist() == [0, 0]


def test_imtl_g_ignores_a_task_without_a_gradient() -> None:
    weights = IMTLG(tasks(3)).weights(stats(np.array([E1, 0 * E1, 3 * E2]))).tolist()
    assert weights == pytest.approx([0.75, 0, 0.25], rel=1e-12)


# all of them


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@every_balancer
def test_weights_are_finite_whatever_the_gramian(kind: Callable, scale: float) -> None:
    for name, rows in CASES.items():
        losses = np.linspace(0, 1, len(rows)) * 10.0 ** (4 if len(rows) % 2 else -4)
        given = stats(rows * math.sqrt(scale), losses)
        balancer = kind(tasks(len(rows)))
        weights = balancer.weights(given)
        assert weights.shape == (len(rows),), name
        assert weights.dtype == torch.float64
        assert weights.isfinite().all(), name
        assert balancer.report.get("failures", 0) == 0, name
        balancer.commit(given, weights)
        assert all(value.isfinite().all() for value in balancer.state_dict().values())


@every_balancer
def test_weights_do_not_depend_on_the_units_of_the_gradient(kind: Callable) -> None:
    for rows in RANDOM.values():
        balancer = kind(tasks(len(rows)))
        expected = balancer.weights(stats(rows))
        for scale in (1e-6, 1e6):
            torch.testing.assert_close(
                balancer.weights(stats(rows * scale)), expected, rtol=1e-6, atol=1e-9
            )


@pytest.mark.parametrize("kind", [MGDA, CAGrad, GradNorm, IMTLG])
def test_the_order_of_the_tasks_makes_no_difference(kind: Callable) -> None:
    names = [n for n in CASES if n not in ("more tasks than directions", "same side", "parallel")]
    for name in names:
        rows = CASES[name]
        turn = np.random.default_rng(1).permutation(len(rows))
        one, other = (kind(tasks(len(rows))).weights(stats(r)) for r in (rows, rows[turn]))
        torch.testing.assert_close(other, one[torch.from_numpy(turn)], rtol=1e-6, atol=1e-8)


def used(kind: Callable) -> LossBalancer:
    """After a few steps, of which some had only a part of the tasks."""
    balancer = kind(tasks(4))
    for step, index in enumerate(([0, 1, 2, 3], [0, 2], [3], [1, 2, 3])):
        given = stats(random_rows(len(index), step), index=torch.tensor(index), step=step)
        balancer.commit(given, balancer.weights(given))
    return balancer


@every_balancer
def test_weights_are_a_pure_function(kind: Callable) -> None:
    balancer, given = used(kind), stats(random_rows(4, 9), step=9)
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    first = balancer.weights(given)
    balancer.param_objective(given)
    assert torch.equal(first, balancer.weights(given))
    assert all(torch.equal(value, before[n]) for n, value in balancer.state_dict().items())


@every_balancer
def test_a_balancer_goes_on_from_its_state(kind: Callable) -> None:
    one, other = used(kind), kind(tasks(4))
    other.load_state_dict(one.state_dict())
    for step in (10, 11):
        given = stats(random_rows(4, step), step=step)
        weights = one.weights(given)
        assert torch.equal(weights, other.weights(given))
        for balancer in (one, other):
            balancer.commit(given, weights)
    assert all(torch.equal(v, other.state_dict()[n]) for n, v in one.state_dict().items())


@pytest.mark.parametrize("kind", [MGDA, PCGrad, GradVac, CAGrad, IMTLG])
def test_with_some_tasks_it_is_as_if_there_were_no_others(kind: Callable) -> None:
    rows, index = random_rows(3, 1), torch.tensor([0, 2, 3])
    full, part = kind(tasks(5)), kind(tasks(3))
    for step in range(3):
        given = stats(rows, index=index, step=step)
        alone = stats(rows, step=step)
        assert torch.equal(full.weights(given), part.weights(alone))
        full.commit(given, full.weights(given))
        part.commit(alone, part.weights(alone))


def test_state_of_absent_tasks_does_not_change() -> None:
    for kind in (GradVac, GradNorm):
        balancer = kind(tasks(4))
        given = stats(random_rows(2, 1), index=torch.tensor([1, 3]))
        balancer.commit(given, balancer.weights(given))
        state = balancer.goals if kind is GradVac else balancer.first_steps
        changed = state.reshape(4, -1).any(1)
        assert changed.tolist() == [False, True, False, True]
        assert not state.reshape(4, -1)[:, [0, 2] if kind is GradVac else []].any()


def test_heads_are_weighted_by_mgda_alone() -> None:
    assert {kind.__name__: kind.heads for kind in BALANCERS} == {
        "MGDA": "weighted", "PCGrad": "raw", "GradVac": "raw",
        "CAGrad": "raw", "GradNorm": "raw", "IMTLG": "raw",
    }  # fmt: skip
    assert all(kind.needs == "gramian" for kind in BALANCERS)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MGDA, {"norm": "l1"}, "norm must be one of none, l2, loss, loss\\+, but is 'l1'"),
        (GradVac, {"beta": 1.5}, "beta must be in \\[0, 1\\], but is 1.5"),
        (GradVac, {"beta": math.nan}, "beta must be in \\[0, 1\\], but is nan"),
        (CAGrad, {"c": 1.0}, "c must be in \\[0, 1\\), but is 1.0"),
        (CAGrad, {"c": -0.1}, "c must be in \\[0, 1\\), but is -0.1"),
        (CAGrad, {"rescale": "1"}, "rescale must be one of none, square, linear, but is '1'"),
        (GradNorm, {"alpha": -1.0}, "alpha must be 0 or more, but is -1.0"),
        (GradNorm, {"alpha": math.inf}, "alpha must be 0 or more, but is inf"),
        (GradNorm, {"num_first_steps": 0}, "num_first_steps must be 1 or more, but is 0"),
    ],
)
def test_options_out_of_range_are_refused(kind: Callable, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(tasks(3), **options)
