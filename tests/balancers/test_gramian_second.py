"""Nash-MTL, FairGrad, UPGrad, DualProj, Aligned-MTL and ConFIG against code on the gradients."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mtlkit_balancers._newton import CEILING, RIDGES, ZERO, positive_solution, solve
from mtlkit_balancers.aligned import AlignedMTL
from mtlkit_balancers.config import ConFIG
from mtlkit_balancers.dualproj import DualProj
from mtlkit_balancers.fairgrad import FairGrad
from mtlkit_balancers.nash import NashMTL
from mtlkit_balancers.upgrad import UPGrad

from mtlkit import LossBalancer, StepStats

optimize = pytest.importorskip("scipy.optimize")

RIDGE = RIDGES[1]
BALANCERS = (NashMTL, FairGrad, UPGrad, DualProj, AlignedMTL, ConFIG)


def tasks(count: int) -> tuple[str, ...]:
    return tuple(f"task{number}" for number in range(count))


def stats(rows: np.ndarray, **given: object) -> StepStats:
    losses = torch.linspace(0.5, 2.0, len(rows), dtype=torch.float64)
    return StepStats(losses=losses, gramian=torch.from_numpy(rows @ rows.T), **given)


def weigh(kind: type[LossBalancer], rows: np.ndarray, **options: object) -> np.ndarray:
    balancer = kind(tasks(len(rows)), **options)
    found = balancer.weights(stats(rows)).numpy()
    assert not balancer.report.get("failures")
    return found


def random_rows(count: int, seed: int, size: int = 24) -> np.ndarray:
    """Agreeing, conflicting, almost Pareto stationary and badly scaled gradients."""
    rng = np.random.default_rng([count, seed])
    rows = rng.standard_normal((count, size)) + seed % 3 * 0.5 * rng.standard_normal(size)
    if seed % 4 == 1:
        rows -= 0.95 * rows.mean(0)
    if seed % 4 == 2:
        rows *= np.logspace(-3, 2, count)[:, None]
    return rows


X, Y, Z = np.eye(3)
SPECIAL = {
    "one": np.array([2 * X]),
    "orthogonal": np.array([X, 2 * Y, 3 * Z]),
    "parallel": np.array([X + Y, 3 * X + 3 * Y, 7 * X + 7 * Y]),
    "duplicate": np.array([X + Y, X + Y, Z - X]),
    "all alike": np.array([X, X, X]),
    "opposed": np.array([X, -X]),
    "opposed and long": np.array([X, -3 * X, Y]),
    "all opposed": np.array([X, Y, -X - Y]),
    "zero row": np.array([X, 0 * X, Y - X]),
    "all but one zero": np.array([0 * X, X, 0 * X]),
    "all zero": np.zeros((3, 3)),
    "badly scaled": np.array([1e-4 * X, 1e4 * (Y - 0.3 * X), Z]),
    "very badly scaled": np.array([1e-6 * X, 1e5 * (Y - X), Z]),
    "tiny": 1e-9 * np.array([X, Y - X, Z - Y]),
    "huge": 1e9 * np.array([X, Y - X, Z - Y]),
    "more tasks than directions": np.random.default_rng(0).standard_normal((10, 3)),
    "half space": np.abs(np.random.default_rng(1).standard_normal((10, 3))),
}
RANDOM = {
    f"{count} tasks, {seed}": random_rows(count, seed)
    for count in (1, 2, 3, 6, 10)
    for seed in range(8)
}
CASES = SPECIAL | RANDOM
every_case = pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
every_random_case = pytest.mark.parametrize("rows", RANDOM.values(), ids=RANDOM)
every_balancer = pytest.mark.parametrize("kind", BALANCERS)


# All of them


@every_balancer
@every_case
def test_weights_are_finite_float64_and_the_same_twice(
    kind: type[LossBalancer], rows: np.ndarray
) -> None:
    balancer, given = kind(tasks(len(rows))), stats(rows)
    gramian = given.gramian.clone()
    found = balancer.weights(given)
    assert found.shape == (len(rows),)
    assert found.dtype == torch.float64
    assert found.isfinite().all()
    assert torch.equal(balancer.weights(given), found)
    assert torch.equal(given.gramian, gramian)
    assert balancer.state_dict() == {}
    assert not balancer.report.get("failures")


@every_balancer
@pytest.mark.parametrize("factor", [1e-12, 1e12])
@every_random_case
def test_the_unit_of_all_gradients_does_not_turn_the_direction(
    kind: type[LossBalancer], factor: float, rows: np.ndarray
) -> None:
    one, other = weigh(kind, rows), weigh(kind, rows * np.sqrt(factor))
    np.testing.assert_allclose(other / np.abs(other).max(), one / np.abs(one).max(), atol=1e-6)


@every_balancer
@every_random_case
def test_the_order_of_the_tasks_does_not_matter(kind: type[LossBalancer], rows: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(rows))
    one, other = weigh(kind, rows), weigh(kind, rows[order])
    np.testing.assert_allclose(other, one[order], rtol=1e-7, atol=1e-8 * np.abs(one).max())


@every_balancer
def test_only_the_active_tasks_count(kind: type[LossBalancer]) -> None:
    rows = random_rows(6, 0)[[0, 3, 5]]
    balancer = kind(tasks(6))
    found = balancer.weights(stats(rows, index=torch.tensor([0, 3, 5])))
    np.testing.assert_array_equal(found.numpy(), weigh(kind, rows))


@every_balancer
def test_slightly_wrong_gramians_are_survived(kind: type[LossBalancer]) -> None:
    rows = SPECIAL["more tasks than directions"]
    noise = np.random.default_rng(3).standard_normal((10, 10)) * 1e-14
    given = stats(rows)
    noisy = StepStats(losses=given.losses, gramian=given.gramian + torch.from_numpy(noise))
    balancer = kind(tasks(10))
    assert balancer.weights(noisy).isfinite().all()
    assert not balancer.report.get("failures")


@every_balancer
def test_a_zero_gramian_gives_every_head_something_to_learn_or_nothing_at_all(
    kind: type[LossBalancer],
) -> None:
    expected = {NashMTL: 1, FairGrad: 1, AlignedMTL: 1, UPGrad: 1 / 3, DualProj: 1 / 3, ConFIG: 0}
    np.testing.assert_allclose(weigh(kind, SPECIAL["all zero"]), expected[kind], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NashMTL(tasks(2), max_norm=-1.0), "max_norm must be 0 or more .* but is -1.0"),
        (lambda: NashMTL(tasks(2), max_norm=float("nan")), "max_norm .* but is nan"),
        (lambda: FairGrad(tasks(2), alpha=-1.0), "alpha must be 0 or from 0.05 .* but is -1.0"),
        (lambda: FairGrad(tasks(2), alpha=0.01), "alpha .* but is 0.01"),
        (lambda: FairGrad(tasks(2), alpha=11.0), "alpha .* but is 11.0"),
        (lambda: UPGrad(tasks(2), norm_eps=-1.0), "norm_eps must be 0 or more .* but is -1.0"),
        (lambda: UPGrad(tasks(2), reg_eps=0.0), r"reg_eps must be in \(0, 1\], but is 0.0"),
        (lambda: DualProj(tasks(2), norm_eps=-1.0), "norm_eps must be 0 or more .* but is -1.0"),
        (lambda: DualProj(tasks(2), reg_eps=2.0), r"reg_eps must be in \(0, 1\], but is 2.0"),
        (
            lambda: AlignedMTL(tasks(2), scale="max"),  # type: ignore[arg-type]
            "scale must be one of min, median, rmse, but is 'max'",
        ),
    ],
)
def test_options_outside_their_range_are_refused(
    make: Callable[[], LossBalancer], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# Nash-MTL and FairGrad


def check_fair(weights: np.ndarray, rows: np.ndarray, power: float) -> None:
    """G w = w^-p up to 1e-8 and what rounding allows, for the tasks that have a gradient."""
    gramian = rows @ rows.T
    moving = gramian.diagonal() > ZERO * gramian.diagonal().max()
    if not moving.any():
        np.testing.assert_array_equal(weights, 1)
        return
    np.testing.assert_allclose(weights[~moving], weights[moving].mean(), rtol=1e-12)
    assert (weights > 0).all()
    gramian, weights = gramian[np.ix_(moving, moving)], weights[moving]
    if (weights ** (1 + power) * gramian.diagonal()).max() > 0.9 * CEILING / (1 + RIDGE * CEILING):
        gramian = gramian + np.diag(gramian.diagonal() * RIDGE)
    pull = weights**-power
    allowed = 1e-8 * pull + 1e-14 * np.abs(gramian) @ weights
    assert (np.abs(gramian @ weights - pull) <= allowed).all()


@every_case
def test_nash_gains_are_the_reciprocals_of_the_weights(rows: np.ndarray) -> None:
    check_fair(weigh(NashMTL, rows, max_norm=0.0), rows, power=1.0)


@every_case
@pytest.mark.parametrize("alpha", [0.05, 0.5, 2.0, 5.0, 10.0])
def test_fairgrad_gains_are_the_weights_to_the_power_of_minus_one_over_alpha(
    rows: np.ndarray, alpha: float
) -> None:
    check_fair(weigh(FairGrad, rows, alpha=alpha), rows, power=1 / alpha)


@every_random_case
def test_nash_maximises_the_product_of_the_gains(rows: np.ndarray) -> None:
    """The bargain itself: over directions d in the span with |d|^2 <= T, by scipy, by log gains."""
    count = len(rows)
    basis, _ = np.linalg.qr(rows.T)
    scaled = (rows / np.linalg.norm(rows, axis=1)[:, None]) @ basis
    found = optimize.minimize(
        lambda d: d @ d / 2 - np.log(scaled @ d).sum()
        if (scaled @ d > 0).all() else np.inf,
        np.linalg.pinv(scaled) @ np.ones(count),
        jac=lambda d: d - scaled.T @ (1 / (scaled @ d)),
        method="BFGS",
        options={"gtol": 1e-9},
    )  # fmt: skip
    direction = weigh(NashMTL, rows, max_norm=0.0) @ rows
    np.testing.assert_allclose(direction @ basis, found.x, atol=2e-6 * np.sqrt(count))


@pytest.mark.parametrize("cosine", [-0.999, -0.5, 0.0, 0.7, 1.0])
def test_nash_weights_of_two_tasks_have_a_closed_form(cosine: float) -> None:
    rows = np.array([2 * X, 5 * (cosine * X + np.sqrt(1 - cosine**2) * Y)])
    expected = 1 / np.sqrt(1 + cosine) / np.array([2, 5])
    np.testing.assert_allclose(weigh(NashMTL, rows, max_norm=0.0), expected, rtol=1e-6)


@every_random_case
@pytest.mark.parametrize("max_norm", [0.5, 1.0, 2.0])
def test_the_nash_step_is_not_longer_than_max_norm(rows: np.ndarray, max_norm: float) -> None:
    free, found = weigh(NashMTL, rows, max_norm=0.0), weigh(NashMTL, rows, max_norm=max_norm)
    norm = np.linalg.norm(free @ rows)
    assert norm == pytest.approx(np.sqrt(len(rows)), rel=1e-7)
    np.testing.assert_allclose(found, free * min(1, max_norm / norm), rtol=1e-9)


def test_the_unit_of_one_loss_does_not_turn_the_nash_step() -> None:
    rows = random_rows(4, 0)
    factors = np.array([1.0, 1e4, 1e-4, 3.0])
    other = weigh(NashMTL, rows * factors[:, None])
    np.testing.assert_allclose(other * factors, weigh(NashMTL, rows), rtol=1e-8)


def test_opposed_tasks_get_large_but_finite_nash_weights() -> None:
    weights = weigh(NashMTL, SPECIAL["opposed"], max_norm=0.0)
    np.testing.assert_allclose(weights, 1 / np.sqrt(RIDGE), rtol=1e-4)


@every_random_case
def test_fairgrad_minimises_its_convex_function(rows: np.ndarray) -> None:
    rows = rows / np.linalg.norm(rows, axis=1)[:, None] * np.linspace(0.5, 2, len(rows))[:, None]
    gramian, power = rows @ rows.T, 0.5
    found = optimize.minimize(
        lambda x: (
            np.exp(x) @ gramian @ np.exp(x) / 2 - (np.exp(x) ** (1 - power)).sum() / (1 - power)
        ),
        np.zeros(len(rows)),
        jac=lambda x: np.exp(x) * (gramian @ np.exp(x)) - np.exp(x) ** (1 - power),
        method="BFGS",
        options={"gtol": 1e-10},
    )
    weights = weigh(FairGrad, rows, alpha=2.0)
    np.testing.assert_allclose(weights, np.exp(found.x), rtol=1e-6)


def test_fairgrad_is_nash_for_alpha_1_and_summing_for_alpha_0() -> None:
    rows = random_rows(6, 1)
    np.testing.assert_array_equal(weigh(FairGrad, rows), weigh(NashMTL, rows, max_norm=0.0))
    np.testing.assert_array_equal(weigh(FairGrad, rows, alpha=0.0), np.ones(6))


def test_summing_is_where_fairgrad_goes_as_alpha_goes_to_0() -> None:
    rows = random_rows(3, 0)
    near, far = (np.abs(weigh(FairGrad, rows, alpha=a) - 1).max() for a in (0.05, 0.5))
    assert near < 0.2
    assert near < far


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fair_weights_of_orthogonal_tasks_have_a_closed_form(alpha: float) -> None:
    squares = np.array([1.0, 4.0, 9.0])
    expected = squares ** (-alpha / (1 + alpha))
    found = weigh(FairGrad, SPECIAL["orthogonal"], alpha=alpha)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_task_without_a_gradient_does_not_change_the_others_fair_weights() -> None:
    rows = random_rows(3, 0)
    for kind in (NashMTL, FairGrad):
        with_zero = weigh(kind, np.vstack([rows, np.zeros(24)]))
        np.testing.assert_allclose(with_zero[:3], weigh(kind, rows), rtol=1e-12)
        assert with_zero[3] > 0


def test_a_solution_that_is_not_found_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlkit_balancers._newton.STEPS", 1)
    monkeypatch.setattr("mtlkit_balancers._quadratic.STEPS", 0)
    for kind in (NashMTL, FairGrad, UPGrad, DualProj):
        balancer = kind(tasks(6))
        assert balancer.weights(stats(random_rows(6, 1))).isfinite().all()
        assert balancer.report["failures"] == 1


def test_choleskys_factors_solve_the_system() -> None:
    rows = random_rows(7, 0)
    matrix, right, ridge = rows @ rows.T, rows[:, 0], np.abs(rows[:, 1])
    found = solve(matrix.tolist(), right.tolist(), ridge.tolist())
    expected = np.linalg.solve(matrix + np.diag(ridge), right)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_choleskys_factors_need_a_positive_definite_matrix() -> None:
    assert solve([[1.0, 2.0], [2.0, 1.0]], [1.0, 1.0], [0.5, 0.5]) is None


@pytest.mark.parametrize("alpha", [0.05, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("seed", range(20))
def test_opposed_tasks_whose_gramian_is_rounded_get_finite_fair_weights(
    alpha: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((2 + seed % 9, 24))
    rows -= rows.mean(0)
    noise = rng.standard_normal((len(rows), len(rows))) * 1e-6
    balancer = FairGrad(tasks(len(rows)), alpha=alpha)
    losses = torch.ones(len(rows), dtype=torch.float64)
    gramian = torch.from_numpy(rows @ rows.T + noise + noise.T)
    weights = balancer.weights(StepStats(losses=losses, gramian=gramian))
    assert not balancer.report["failures"]
    assert weights.isfinite().all()
    assert (weights > 0).all()


def test_newton_starts_at_the_solution_for_orthogonal_tasks() -> None:
    rows = SPECIAL["orthogonal"]
    assert positive_solution((rows @ rows.T).tolist(), 0.5).iterations <= 1


# UPGrad and DualProj


def regularised(rows: np.ndarray, reg_eps: float) -> np.ndarray:
    gramian = rows @ rows.T
    return gramian / (gramian.trace() or 1.0) + reg_eps * np.eye(len(rows))


def at_least(rows: np.ndarray, bound: np.ndarray, reg_eps: float) -> np.ndarray:
    """The least v'Gv with v >= bound, as non-negative least squares by scipy."""
    root = np.linalg.cholesky(regularised(rows, reg_eps)).T
    excess, _ = optimize.nnls(root, -root @ bound)
    return bound + excess


@every_case
@pytest.mark.parametrize("reg_eps", [1e-4, 1e-2])
def test_upgrad_sums_the_projections_of_all_gradients(rows: np.ndarray, reg_eps: float) -> None:
    bounds = np.eye(len(rows)) / len(rows)
    expected = sum(at_least(rows, bound, reg_eps) for bound in bounds)
    np.testing.assert_allclose(weigh(UPGrad, rows, reg_eps=reg_eps), expected, rtol=1e-8)


@every_case
@pytest.mark.parametrize("reg_eps", [1e-4, 1e-2])
def test_dualproj_is_the_projection_of_the_mean(rows: np.ndarray, reg_eps: float) -> None:
    expected = at_least(rows, np.full(len(rows), 1 / len(rows)), reg_eps)
    np.testing.assert_allclose(weigh(DualProj, rows, reg_eps=reg_eps), expected, rtol=1e-8)


@every_case
def test_dualproj_fulfils_the_conditions_of_karush_kuhn_and_tucker(rows: np.ndarray) -> None:
    weights = weigh(DualProj, rows)
    slack, slope = weights - 1 / len(rows), regularised(rows, 1e-4) @ weights
    scale = np.abs(weights).max()
    assert (slack >= 0).all()
    assert (slope >= -1e-10 * scale).all()
    np.testing.assert_allclose(slack * slope, 0, atol=1e-10 * scale**2)


@every_random_case
def test_dualproj_is_the_nearest_direction_that_harms_no_task(rows: np.ndarray) -> None:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mean = rows.mean(0)
    pulls, _ = optimize.nnls(rows.T, -mean)  # Moreau: what is left of the mean beside the cone
    weights = weigh(DualProj, rows, reg_eps=1e-10)
    norm = np.linalg.norm(rows)
    np.testing.assert_allclose(weights @ rows / norm, (mean + pulls @ rows) / norm, atol=1e-6)


@every_random_case
def test_upgrad_harms_no_task(rows: np.ndarray) -> None:
    weights = weigh(UPGrad, rows, reg_eps=1e-10)
    norm = np.linalg.norm(rows)
    assert (rows @ (weights @ rows) >= -1e-6 * norm**2).all()


@pytest.mark.parametrize("kind", [UPGrad, DualProj])
def test_without_a_conflict_the_projections_are_the_mean(kind: type[LossBalancer]) -> None:
    for name in ("half space", "orthogonal", "parallel", "one"):
        rows = SPECIAL[name]
        np.testing.assert_allclose(weigh(kind, rows), 1 / len(rows), rtol=1e-12)


@pytest.mark.parametrize("kind", [UPGrad, DualProj])
def test_gradients_below_norm_eps_are_averaged(kind: type[LossBalancer]) -> None:
    rows = 1e-3 * random_rows(3, 1)
    square = (rows**2).sum()
    below, above = (weigh(kind, rows, norm_eps=square * factor) for factor in (1.01, 0.99))
    np.testing.assert_allclose(below, 1 / 3, rtol=1e-12)
    np.testing.assert_array_equal(above, weigh(kind, rows))
    assert (above > 0.34).any()


def test_active_sets_that_would_go_round_in_circles_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1174)  # the first of its kind
    assert rng.integers(3, 9) == 7
    rows = rng.standard_normal((7, 8))
    rows -= rng.random() * rows.mean(0)
    expected = sum(at_least(rows, bound, 1e-4) for bound in np.eye(7) / 7)
    np.testing.assert_allclose(weigh(UPGrad, rows), expected, rtol=1e-8)
    monkeypatch.setattr("mtlkit_balancers._quadratic.PATIENCE", 1_000_000)
    balancer = UPGrad(tasks(7))
    balancer.weights(stats(rows))
    assert balancer.report["failures"] == 1


# Aligned-MTL


def aligned(rows: np.ndarray, scale: Callable[[np.ndarray], float]) -> np.ndarray:
    """The sum of the gradients with equal singular values, from the gradients themselves."""
    left, lengths, right = np.linalg.svd(rows, full_matrices=False)
    kept = lengths > 1e-6 * lengths[0]
    if not kept.any():
        return rows.sum(0)
    return scale(lengths[kept]) * left[:, kept].sum(0) @ right[kept]


SCALES = {
    "min": np.min,
    "median": lambda lengths: np.sort(lengths)[(len(lengths) - 1) // 2],
    "rmse": lambda lengths: np.sqrt(np.mean(lengths**2)),
}


@every_case
@pytest.mark.parametrize("scale", SCALES)
def test_aligned_sums_gradients_with_equal_singular_values(rows: np.ndarray, scale: str) -> None:
    found = weigh(AlignedMTL, rows, scale=scale) @ rows
    expected = aligned(rows, SCALES[scale])
    atol = 1e-8 * max(np.abs(expected).max(), 1e-6 * np.abs(rows).max())
    if np.linalg.norm(rows, axis=1).min() < 1e-8 * np.linalg.norm(rows):
        atol *= 1e3  # the eigenvalues' rounding is relative to the largest
    np.testing.assert_allclose(found, expected, atol=atol + 1e-300)


def test_aligned_is_the_default_scale_and_sums_orthogonal_gradients_of_one_length() -> None:
    np.testing.assert_allclose(weigh(AlignedMTL, np.eye(3)), 1, rtol=1e-12)
    rows = random_rows(3, 0)
    np.testing.assert_array_equal(weigh(AlignedMTL, rows), weigh(AlignedMTL, rows, scale="min"))


@every_random_case
def test_aligned_gradients_progress_alike(rows: np.ndarray) -> None:
    """With components of one length each aligned gradient has that square as its product."""
    left, lengths, right = np.linalg.svd(rows, full_matrices=False)
    gradients = lengths.min() * left @ right
    direction = weigh(AlignedMTL, rows) @ rows
    np.testing.assert_allclose(gradients @ direction, lengths.min() ** 2, rtol=1e-6)


# ConFIG


def config(rows: np.ndarray) -> np.ndarray:
    """Eq. 2 on the gradients themselves."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    direction = np.linalg.pinv(units, rcond=1e-6) @ np.ones(len(rows))
    norm = np.linalg.norm(direction)
    return direction * (rows @ direction).sum() / norm**2 if norm > 1e-9 else 0 * direction


@every_case
def test_config_is_eq_2_on_the_gradients(rows: np.ndarray) -> None:
    scale = np.linalg.norm(rows)
    found = weigh(ConFIG, rows) @ rows
    np.testing.assert_allclose(found, config(rows), atol=1e-9 * scale + 1e-300)


@every_random_case
def test_config_is_at_the_same_angle_to_all_gradients(rows: np.ndarray) -> None:
    direction = weigh(ConFIG, rows) @ rows
    lengths = np.linalg.norm(rows, axis=1)
    cosines = rows @ direction / lengths / np.linalg.norm(direction)
    assert (cosines > 0).all()
    np.testing.assert_allclose(cosines, cosines.mean(), rtol=1e-7)
    assert np.linalg.norm(direction) == pytest.approx((cosines * lengths).sum(), rel=1e-7)


@pytest.mark.parametrize("name", ["opposed", "all zero"])
def test_config_stands_still_where_no_direction_is_better(name: str) -> None:
    assert not weigh(ConFIG, SPECIAL[name]).any()


def test_the_lengths_of_the_gradients_do_not_turn_config() -> None:
    rows = random_rows(4, 0)
    other = rows * np.array([[1.0], [1e4], [1e-4], [3.0]])
    one, other = weigh(ConFIG, rows) @ rows, weigh(ConFIG, other) @ other
    np.testing.assert_allclose(
        other / np.linalg.norm(other), one / np.linalg.norm(one), atol=1e-9
    )  # fmt: skip
