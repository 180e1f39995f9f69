"""GradDrop, DB-MTL, MoCo and ExcessMTL against numpy, on one process and spread over several."""

import copy
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from mtlkit_balancers import _columns
from mtlkit_balancers.db_mtl import DBMTL
from mtlkit_balancers.excessmtl import ExcessMTL
from mtlkit_balancers.graddrop import GradDrop
from mtlkit_balancers.moco import MoCo
from torch import Tensor

from mtlkit import LossBalancer, StepStats

Make = Callable[[Sequence[str]], LossBalancer]

KINDS: dict[str, Make] = {
    "graddrop": GradDrop,
    "graddrop, leak": lambda tasks: GradDrop(tasks, leak=0.25),
    "db-mtl": DBMTL,
    "db-mtl, fading": lambda tasks: DBMTL(tasks, beta=0.5, beta_sigma=0.5),
    "db-mtl, no average": lambda tasks: DBMTL(tasks, beta=0.0),
    "moco": MoCo,
    "moco, simplex": lambda tasks: MoCo(tasks, gamma=0.3, rho=0.1, projection="simplex"),
    "excessmtl": lambda tasks: ExcessMTL(tasks, lr=0.3),
    "excessmtl, eps": lambda tasks: ExcessMTL(tasks, lr=0.3, eps=1e-3),
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_columns, "CHUNK", 7)


def tasks(count: int) -> tuple[str, ...]:
    return tuple(f"task{number}" for number in range(count))


class Group:
    """Processes of a run that are threads of this one."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=20)
        self.values: list[Tensor | None] = [None] * count


class Shard:
    """The columns of one of them."""

    def __init__(
        self, tasks: int, size: int, dtype: torch.dtype, group: Group | None = None, rank: int = 0
    ) -> None:
        self.group = group or Group(1)
        self.rank, self.size = rank, size
        bounds = np.linspace(0, size, len(self.group.values) + 1).astype(int)
        self.mine = slice(bounds[rank], bounds[rank + 1])
        self.zeros = torch.zeros(tasks, bounds[rank + 1] - bounds[rank], dtype=dtype)
        self.states: dict[str, Tensor] = {}

    def rand(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self.size, generator=generator)[self.mine]

    def sum(self, values: Tensor) -> Tensor:
        self.group.values[self.rank] = values
        self.group.barrier.wait()
        total = sum(value for value in self.group.values if value is not None)
        self.group.barrier.wait()
        assert isinstance(total, Tensor)
        return total

    def state(self, name: str) -> Tensor:
        return self.states.setdefault(name, self.zeros.clone())


@dataclass(frozen=True)
class Step:
    rows: np.ndarray  # [A, P]
    losses: np.ndarray  # [A]
    index: list[int]
    number: int

    @property
    def stats(self) -> StepStats:
        return StepStats(
            losses=torch.from_numpy(self.losses),
            gramian=torch.from_numpy(self.rows @ self.rows.T),
            index=torch.tensor(self.index),
            step=self.number,
            seed=3,
        )


EVERYONE = [list(range(3))] * 5
COMING_AND_GOING = [[0, 1], [0, 1, 2], [2], [1, 2], [0, 1, 2], [0, 2]]
every_presence = pytest.mark.parametrize(
    "presence", [EVERYONE, COMING_AND_GOING], ids=["everyone", "coming and going"]
)


def steps(presence: Sequence[list[int]], size: int = 31, seed: int = 0) -> list[Step]:
    rng = np.random.default_rng(seed)
    common, scales = rng.standard_normal(size), np.array([0.1, 1.0, 5.0])
    out = []
    for number, index in enumerate(presence):
        rows = (rng.standard_normal((len(index), size)) + 0.5 * common) * scales[index][:, None]
        rows[:, 4] = 0
        out.append(Step(rows, rng.uniform(0.2, 3.0, len(index)), index, number))
    return out


class Process:
    """A balancer and the columns it is given."""

    def __init__(self, make: Make, columns: Shard, count: int = 3) -> None:
        self.balancer = make(tasks(count))
        self.columns = columns

    def take(self, step: Step) -> tuple[Tensor, Tensor]:
        """The combined gradient of this process's columns, and the weights."""
        stats = step.stats
        rows = torch.from_numpy(step.rows[:, self.columns.mine]).to(self.columns.zeros.dtype)
        combined = self.balancer.combine(rows.clone(), stats, self.columns)
        assert combined.shape == rows.shape[1:]
        weights = self.balancer.weights(stats)
        self.balancer.commit(stats, weights)
        return combined, weights


def alone(
    make: Make, size: int = 31, dtype: torch.dtype = torch.float64, count: int = 3
) -> Process:
    return Process(make, Shard(count, size, dtype), count)


def check(make: Make, presence: Sequence[list[int]], expected: Iterator[np.ndarray]) -> Process:
    """Combined gradients against those an independent implementation gives."""
    process = alone(make)
    for step, direction in zip(steps(presence), expected, strict=True):
        combined, _ = process.take(step)
        np.testing.assert_allclose(combined.numpy(), direction, rtol=1e-9, atol=1e-11)
    return process


# All of them


@every_kind
@every_presence
@pytest.mark.parametrize("count", [2, 3])
def test_spreading_the_columns_over_processes_changes_nothing(
    make: Make, presence: Sequence[list[int]], count: int
) -> None:
    group = Group(count)
    one = alone(make, dtype=torch.float32)
    several = [Process(make, Shard(3, 31, torch.float32, group, r)) for r in range(count)]
    with ThreadPoolExecutor(count) as pool:
        for step in steps(presence):
            combined, weights = one.take(step)
            parts = list(pool.map(lambda process, step=step: process.take(step), several))
            together = torch.cat([part for part, _ in parts])
            torch.testing.assert_close(together, combined, rtol=1e-5, atol=1e-6)
            for _, others in parts:
                torch.testing.assert_close(others, weights, rtol=1e-12, atol=1e-12)
                assert torch.equal(others, parts[0][1])
    for name, state in one.columns.states.items():
        together = torch.cat([process.columns.states[name] for process in several], dim=1)
        torch.testing.assert_close(together, state, rtol=1e-5, atol=1e-6)


@every_kind
@every_presence
def test_a_resumed_run_goes_on_alike(make: Make, presence: Sequence[list[int]]) -> None:
    one, other = alone(make, dtype=torch.float32), alone(make, dtype=torch.float32)
    first, last = steps(presence)[:3], steps(presence)[3:]
    for step in first:
        one.take(step)
    file = io.BytesIO()
    torch.save(one.balancer.state_dict(), file)
    file.seek(0)
    other.balancer.load_state_dict(torch.load(file))
    other.columns.states = {name: s.clone() for name, s in one.columns.states.items()}
    for step in last:
        for found, expected in zip(other.take(step), one.take(step), strict=True):
            assert torch.equal(found, expected)


@every_kind
def test_absent_tasks_keep_their_state(make: Make) -> None:
    process = alone(make)
    *before, last = steps([[0, 1, 2], [0, 1, 2], [0, 2]])
    for step in before:
        process.take(step)
    buffers = copy.deepcopy(process.balancer.state_dict())
    states = {name: state.clone() for name, state in process.columns.states.items()}
    process.take(last)
    for name, buffer in process.balancer.state_dict().items():
        assert torch.equal(buffer[1], buffers[name][1])
    for name, state in process.columns.states.items():
        assert torch.equal(state[1], states[name][1])
        assert not torch.equal(state[0], states[name][0])


@every_kind
def test_weights_change_nothing_and_are_the_same_twice(make: Make) -> None:
    process = alone(make)
    for step in steps(EVERYONE):
        process.take(step)
        before = copy.deepcopy(process.balancer.state_dict())
        stats = step.stats
        found = process.balancer.weights(stats)
        assert torch.equal(process.balancer.weights(stats), found)
        assert found.dtype == torch.float64
        for name, buffer in process.balancer.state_dict().items():
            assert torch.equal(buffer, before[name])


@every_kind
@pytest.mark.parametrize("count", [1, 2, 3, 6, 10])
@pytest.mark.parametrize("factor", [0.0, 1e-12, 1.0, 1e12])
@pytest.mark.parametrize("losses", [0.0, 1e-4, 1e4])
def test_all_sizes_of_gradients_and_losses_are_survived(
    make: Make, count: int, factor: float, losses: float
) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, 31)) * factor
    rows[-1] = -rows[0] if count > 1 else rows[0]
    if count > 3:
        rows[1], rows[2] = rows[0], 0
        rows[3] *= 1e-9
    process = alone(make, dtype=torch.float32, count=count)
    for number in range(3):
        given = Step(rows, rng.uniform(0.5, 1, count) * losses, list(range(count)), number)
        combined, weights = process.take(given)
        assert combined.isfinite().all()
        assert weights.isfinite().all()
        assert combined.dtype == torch.float32
        if not factor:
            assert not combined.any()


@every_kind
def test_gradients_may_grow_by_orders_of_magnitude(make: Make) -> None:
    process = alone(make, dtype=torch.float32)
    for number, step in enumerate(steps([[0, 1, 2]] * 6)):
        grown = Step(step.rows * 10.0 ** (6 * number - 6), step.losses, step.index, number)
        combined, weights = process.take(grown)
        assert combined.isfinite().all()
        assert weights.isfinite().all()


@every_kind
def test_random_numbers_come_from_the_step_alone(make: Make) -> None:
    before = torch.get_rng_state()
    step = steps(EVERYONE)[0]
    assert torch.equal(alone(make).take(step)[0], alone(make).take(step)[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradDrop(tasks(2), leak=-0.1), r"leak must be in \[0, 1\], but is -0.1"),
        (lambda: GradDrop(tasks(2), leak=1.1), r"leak must be in \[0, 1\], but is 1.1"),
        (lambda: DBMTL(tasks(2), beta=1.0), r"beta must be in \[0, 1\), but is 1.0"),
        (lambda: DBMTL(tasks(2), beta_sigma=-1.0), "beta_sigma must be 0 or more, but is -1.0"),
        (lambda: MoCo(tasks(2), beta=0.0), r"beta must be in \(0, 1\], but is 0.0"),
        (lambda: MoCo(tasks(2), beta_sigma=-1.0), "beta_sigma must be 0 or more .* but is -1.0"),
        (lambda: MoCo(tasks(2), gamma=-1.0), "gamma must be 0 or more .* but is -1.0"),
        (lambda: MoCo(tasks(2), gamma_sigma=-1.0), "gamma_sigma must be .* but is -1.0"),
        (lambda: MoCo(tasks(2), rho=float("inf")), "rho must be .* finite, but is inf"),
        (
            lambda: MoCo(tasks(2), projection="cut"),  # type: ignore[arg-type]
            "projection must be softmax or simplex, but is 'cut'",
        ),
        (lambda: ExcessMTL(tasks(2), lr=-1.0), "lr must be 0 or more .* but is -1.0"),
        (lambda: ExcessMTL(tasks(2), eps=-1.0), "eps must be 0 or more .* but is -1.0"),
    ],
)
def test_options_outside_their_range_are_refused(
    make: Callable[[], LossBalancer], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# GradDrop


def graddrop(presence: Sequence[list[int]], leak: float) -> Iterator[np.ndarray]:
    for step in steps(presence):
        uniform = torch.rand(step.rows.shape[1], generator=step.stats.rng("graddrop"))
        out = np.zeros(step.rows.shape[1])
        for column, draw in enumerate(uniform.double().numpy()):
            values = step.rows[:, column]
            if not values.any():
                continue
            purity = (1 + values.sum() / np.abs(values).sum()) / 2
            kept = values[values > 0] if purity > draw else values[values < 0]
            out[column] = kept.sum() + leak * (values.sum() - kept.sum())
        yield out


@every_presence
@pytest.mark.parametrize("leak", [0.0, 0.25, 1.0])
def test_graddrop_keeps_one_sign_in_each_column(presence: Sequence[list[int]], leak: float) -> None:
    process = check(lambda t: GradDrop(t, leak=leak), presence, graddrop(presence, leak))
    stats = steps(presence)[-1].stats
    assert process.balancer.weights(stats).tolist() == [1] * len(presence[-1])


def test_graddrop_chooses_a_sign_as_often_as_it_prevails() -> None:
    rows = np.array([[3.0, -1.0, 2.0], [-1.0, -1.0, 0.0]])
    process = alone(GradDrop, size=3, count=2)
    positive = np.zeros(3)
    for number in range(4000):
        combined, _ = process.take(Step(rows, np.ones(2), [0, 1], number))
        positive += combined.numpy() > 0
    np.testing.assert_allclose(positive / 4000, [0.75, 0, 1], atol=0.03)


# DB-MTL


def db_mtl(presence: Sequence[list[int]], beta: float, sigma: float) -> Iterator[np.ndarray]:
    averages, times = np.zeros((3, 31)), np.zeros(3)
    for step in steps(presence):
        for task, row, loss in zip(step.index, step.rows, step.losses, strict=True):
            times[task] += 1
            keep = beta / times[task] ** sigma
            averages[task] = keep * averages[task] + (1 - keep) * row / loss
        lengths = {task: np.linalg.norm(averages[task]) for task in step.index}
        longest = max(lengths.values())
        yield sum(averages[task] * longest / length for task, length in lengths.items())


@every_presence
@pytest.mark.parametrize(("beta", "sigma"), [(0.9, 0.0), (0.5, 0.5), (0.0, 0.0)])
def test_db_mtl_sums_averages_made_equally_long(
    presence: Sequence[list[int]], beta: float, sigma: float
) -> None:
    expected = (d for d in db_mtl(presence, beta, sigma))
    process = alone(lambda t: DBMTL(t, beta=beta, beta_sigma=sigma))
    for step, direction in zip(steps(presence), expected, strict=True):
        combined, weights = process.take(step)
        np.testing.assert_allclose(combined.numpy(), direction, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(weights.numpy(), 1 / step.losses, rtol=1e-12)


def test_db_mtl_without_averages_keeps_no_state() -> None:
    process = alone(lambda t: DBMTL(t, beta=0.0))
    process.take(steps(EVERYONE)[0])
    assert process.columns.states == {}


def test_no_losss_unit_matters_to_db_mtl() -> None:
    one, other = alone(DBMTL), alone(DBMTL)
    factors = np.array([1e3, 1e-3, 7.0])
    for step in steps(EVERYONE):
        scaled = Step(step.rows * factors[:, None], step.losses * factors, step.index, step.number)
        torch.testing.assert_close(other.take(scaled)[0], one.take(step)[0], rtol=1e-9, atol=1e-9)


# MoCo


def nearest_on_simplex(point: np.ndarray) -> np.ndarray:
    """By halving for the number that is taken from all entries."""
    low, high = point.min() - 1, point.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - low, 0)


def softmax(point: np.ndarray) -> np.ndarray:
    return np.exp(point) / np.exp(point).sum()


def moco(presence: Sequence[list[int]], **given: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    beta, beta_sigma = given.get("beta", 0.5), given.get("beta_sigma", 0.5)
    gamma, gamma_sigma = given.get("gamma", 0.1), given.get("gamma_sigma", 0.5)
    project = softmax if given.get("projection") != "simplex" else nearest_on_simplex
    averages, times, shares = np.zeros((3, 31)), np.zeros(3), np.full(3, 1 / 3)
    for step in steps(presence):
        index = step.index
        times[index] += 1
        for task, row, loss in zip(index, step.rows, step.losses, strict=True):
            target = row / np.linalg.norm(row) * loss
            averages[task] += beta / times[task] ** beta_sigma * (target - averages[task])
        active = averages[index]
        whole = shares[index].sum()
        weights = shares[index] / whole
        matrix = active @ active.T + given.get("rho", 0.0) * np.eye(len(index))
        weights = project(weights - gamma / times[index] ** gamma_sigma * (matrix @ weights))
        shares[index] = whole * weights
        yield weights @ active, weights


@every_presence
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta": 1.0, "beta_sigma": 0.0, "gamma": 1.0, "gamma_sigma": 1.0},
        {"rho": 0.5, "gamma": 0.3},
        {"projection": "simplex"},
        {"projection": "simplex", "gamma": 0.5, "gamma_sigma": 0.0, "rho": 0.1},
    ],
)
def test_moco_follows_its_formula(presence: Sequence[list[int]], options: dict[str, Any]) -> None:
    process = alone(lambda t: MoCo(t, **options))
    for step, expected in zip(steps(presence), moco(presence, **options), strict=True):
        for found, value in zip(process.take(step), expected, strict=True):
            np.testing.assert_allclose(found.numpy(), value, rtol=1e-9, atol=1e-11)


def test_on_the_simplex_mocos_weights_go_to_the_shortest_combination() -> None:
    rows = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 3.0, 1.0]])
    process = alone(
        lambda t: MoCo(t, beta=1.0, beta_sigma=0.0, gamma_sigma=0.0, projection="simplex"), size=3
    )
    losses = np.linalg.norm(rows, axis=1)  # so that the gradients are as they are
    for number in range(500):
        _, weights = process.take(Step(rows, losses, [0, 1, 2], number))
    np.testing.assert_allclose(weights.numpy(), [0.8, 0.2, 0], atol=1e-8)


def test_the_softmax_keeps_mocos_weights_near_each_other() -> None:
    rows = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 3.0, 1.0]])
    process = alone(MoCo, size=3)
    for number in range(500):
        _, weights = process.take(Step(rows, np.ones(3), [0, 1, 2], number))
    np.testing.assert_allclose(weights.numpy(), 1 / 3, atol=0.01)


def test_tasks_whose_weights_are_all_0_share_equally() -> None:
    process = alone(MoCo)
    process.balancer.shares.copy_(torch.tensor([1.0, 0.0, 0.0]))
    stats = steps([[1, 2]])[0].stats
    assert process.balancer.weights(stats).tolist() == [0.5, 0.5]


# ExcessMTL


def excessmtl(
    presence: Sequence[list[int]], lr: float, eps: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    sums, first, shares = np.zeros((3, 31)), np.zeros(3), np.ones(3)
    for step in steps(presence):
        excess = np.zeros(3)
        for task, row in zip(step.index, step.rows, strict=True):
            sums[task] += row**2
            some = row != 0
            excess[task] = (row[some] ** 2 / np.sqrt(sums[task, some] + eps)).sum()
            first[task] = first[task] or excess[task]
        whole = shares[step.index].sum()
        for task in step.index:
            shares[task] *= np.exp(lr * excess[task] / first[task])
        shares[step.index] *= whole / shares[step.index].sum()
        weights = shares[step.index] * len(step.index) / whole
        yield weights @ step.rows, weights


@every_presence
@pytest.mark.parametrize("lr", [0.0, 1e-2, 1.0])
@pytest.mark.parametrize("eps", [0.0, 1e-7, 1e-2])
def test_excessmtl_follows_its_formula(
    presence: Sequence[list[int]], lr: float, eps: float
) -> None:
    process = alone(lambda t: ExcessMTL(t, lr=lr, eps=eps))
    for step, expected in zip(steps(presence), excessmtl(presence, lr, eps), strict=True):
        for found, value in zip(process.take(step), expected, strict=True):
            np.testing.assert_allclose(found.numpy(), value, rtol=1e-9, atol=1e-11)


def test_the_first_step_leaves_excessmtls_weights_equal() -> None:
    _, weights = alone(lambda t: ExcessMTL(t, lr=1.0)).take(steps(EVERYONE)[0])
    np.testing.assert_allclose(weights.numpy(), 1, rtol=1e-12)


def test_no_losss_unit_matters_to_excessmtls_weights() -> None:
    one, other = (alone(lambda t: ExcessMTL(t, lr=1.0)) for _ in range(2))
    factors = np.array([1e3, 1e-3, 7.0])
    for step in steps(EVERYONE):
        scaled = Step(step.rows * factors[:, None], step.losses * factors, step.index, step.number)
        torch.testing.assert_close(other.take(scaled)[1], one.take(step)[1], rtol=1e-9, atol=0)


def test_a_first_step_without_a_gradient_does_not_count_as_excessmtls_first() -> None:
    process = alone(lambda t: ExcessMTL(t, lr=1.0))
    for number, step in enumerate(steps(EVERYONE)):
        rows = step.rows * np.array([[1.0], [number > 0], [1.0]])
        _, weights = process.take(Step(rows, step.losses, step.index, number))
    assert (weights > 0.01).all()


def test_excessmtl_comes_back_from_a_weight_that_is_0_in_float64() -> None:
    process = alone(lambda t: ExcessMTL(t, lr=1.0))
    process.balancer.log_shares.copy_(torch.tensor([0.0, -800.0, 0.0]))
    step = steps(EVERYONE)[0]
    assert process.take(step)[1][1] == 0
    process.balancer.lr = 1e6
    again = Step(step.rows * np.array([[0.0], [1.0], [0.0]]), step.losses, step.index, 1)
    assert process.take(again)[1][1] == 3
