"""The same methods as TorchJD has them, where it solves the same problem."""

import pytest
import torch
from mtlkit_balancers.cagrad import CAGrad
from mtlkit_balancers.gradvac import GradVac
from mtlkit_balancers.imtl_g import IMTLG
from mtlkit_balancers.mgda import MGDA
from mtlkit_balancers.pcgrad import PCGrad
from torch import Tensor

from mtlkit import StepStats

aggregation = pytest.importorskip("torchjd.aggregation")

COUNTS = pytest.mark.parametrize("count", [1, 2, 3, 6, 10])
SEEDS = pytest.mark.parametrize("seed", range(6))


def tasks(count: int) -> tuple[str, ...]:
    return tuple(f"task{number}" for number in range(count))


def random_rows(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * count + seed)
    rows = torch.randn(count, 30, generator=generator, dtype=torch.float64)
    if seed % 2:
        rows -= 0.7 * rows.mean(0)
    return rows * torch.logspace(0, seed % 3, count, dtype=torch.float64)[:, None]


def stats(rows: Tensor, step: int = 0) -> StepStats:
    losses = torch.ones(len(rows), dtype=torch.float64)
    return StepStats(losses=losses, gramian=rows @ rows.T, step=step)


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both shuffle the other tasks: let the order be the last first."""
    monkeypatch.setattr(torch, "randperm", lambda n, generator=None: torch.arange(n).flip(0))


@COUNTS
@SEEDS
def test_mgda(count: int, seed: int) -> None:
    given = stats(random_rows(count, seed))
    assert given.gramian is not None
    ours = MGDA(tasks(count)).weights(given)
    theirs = aggregation.MGDAWeighting(epsilon=1e-12, max_iters=30_000)(given.gramian)
    best, found = (w @ given.gramian @ w for w in (ours, theirs))
    assert best <= found * (1 + 1e-9)  # theirs is Frank-Wolfe: slow to the last digits
    assert found.item() == pytest.approx(best.item(), rel=1e-3)


@COUNTS
@SEEDS
@pytest.mark.usefixtures("backwards")
def test_pcgrad(count: int, seed: int) -> None:
    given = stats(random_rows(count, seed))
    theirs = aggregation.PCGradWeighting()(given.gramian)
    torch.testing.assert_close(PCGrad(tasks(count)).weights(given), theirs, rtol=1e-10, atol=1e-12)


@COUNTS
@pytest.mark.usefixtures("backwards")
def test_gradvac_over_several_steps(count: int) -> None:
    ours, theirs = GradVac(tasks(count)), aggregation.GradVacWeighting(beta=0.5, eps=0)
    for step in range(6):
        given = stats(random_rows(count, step), step)
        weights = ours.weights(given)
        ours.commit(given, weights)
        torch.testing.assert_close(weights, theirs(given.gramian), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
@COUNTS
@SEEDS
def test_cagrad(count: int, seed: int, c: float) -> None:
    pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    rows = random_rows(count, seed)
    ours = CAGrad(tasks(count), c=c, rescale="none").weights(stats(rows)) @ rows
    theirs = aggregation.CAGradWeighting(c=c, norm_eps=1e-12)(rows @ rows.T) @ rows
    scale = rows.norm(dim=1).min() * rows.mean(0).norm()  # of the worst-off task's progress
    assert ours.isfinite().all()
    assert (rows @ ours).min() >= (rows @ theirs).min() - 1e-8 * scale
    # theirs is an interior point method: weights to about the root of its tolerance, 1e-8
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(rows.mean(0).norm()))


def test_cagrad_differs_at_a_stationary_point_where_torchjd_takes_no_step_at_all() -> None:
    pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert not aggregation.CAGradWeighting(c=0.5)(rows @ rows.T).any()
    ours = CAGrad(tasks(3), c=0.5, rescale="none").weights(stats(rows)) @ rows
    torch.testing.assert_close(ours, rows.mean(0))  # harms nobody as it is


@COUNTS
@SEEDS
def test_imtl_g(count: int, seed: int) -> None:
    rows = random_rows(count, seed)
    theirs = aggregation.IMTLGWeighting()(rows @ rows.T)
    torch.testing.assert_close(IMTLG(tasks(count)).weights(stats(rows)), theirs)


def test_imtl_g_differs_where_torchjd_climbs_on_every_task() -> None:
    rows = torch.eye(3, dtype=torch.float64)
    rows[2] = 0.01 * torch.tensor([0.9, 0.9, 0.3])
    ours = IMTLG(tasks(3)).weights(stats(rows))
    theirs = aggregation.IMTLGWeighting()(rows @ rows.T)
    assert (rows @ (theirs @ rows) < 0).all()
    assert (rows @ (ours @ rows) > 0).all()
    cosine = torch.cosine_similarity(ours @ rows, theirs @ rows, dim=0)
    assert cosine.item() == pytest.approx(-1)


def test_imtl_g_differs_for_opposite_tasks_of_unequal_length_where_torchjd_is_not_impartial() -> (
    None
):
    rows = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    theirs = aggregation.IMTLGWeighting()(rows @ rows.T) @ rows
    ours = IMTLG(tasks(2)).weights(stats(rows)) @ rows
    assert theirs.item() == pytest.approx(-5)  # five times the way one task wants, and against it
    assert ours.item() == 0
