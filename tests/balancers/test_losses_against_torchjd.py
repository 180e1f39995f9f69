"""The balancers that see losses alone against TorchJD's scalarizers, where there is the same."""

from itertools import pairwise

import pytest
import torch
from mtlkit_balancers.dwa import DWA
from mtlkit_balancers.equal import Equal
from mtlkit_balancers.famo import FAMO
from mtlkit_balancers.fixed import Fixed
from mtlkit_balancers.geometric import Geometric
from mtlkit_balancers.imtl_l import IMTLL
from mtlkit_balancers.rlw import RLW
from mtlkit_balancers.stch import STCH
from mtlkit_balancers.uncertainty import Uncertainty
from torch import Tensor

from mtlkit import LossBalancer, StepStats

scalarization = pytest.importorskip("torchjd.scalarization")

TASKS = ("seg", "cls", "bbox")
NUMBERS = torch.Generator().manual_seed(0)
LOSSES = [torch.rand(3, generator=NUMBERS, dtype=torch.float64) * 5 + 0.1 for _ in range(12)]


def theirs(scalarizer: torch.nn.Module, losses: Tensor) -> Tensor:
    """What multiplies each task's gradient."""
    leaf = losses.clone().requires_grad_()
    return torch.autograd.grad(scalarizer(leaf), leaf)[0]


def assert_same(found: Tensor, wanted: Tensor, rtol: float = 1e-10) -> None:
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=0)


@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_functions_of_the_losses_agree(mu: float) -> None:
    weights, ideal = {"seg": 0.5, "cls": 0.2, "bbox": 0.3}, {"seg": 0.1, "cls": 0.0, "bbox": 0.05}
    given = [torch.tensor(list(x.values()), dtype=torch.float64) for x in (weights, ideal)]
    pairs: list[tuple[LossBalancer, torch.nn.Module]] = [
        (Equal(TASKS), scalarization.Sum()),
        (Fixed(TASKS, weights=weights), scalarization.Constant(given[0])),
        (Geometric(TASKS), scalarization.GeometricMean()),
        # only the form without a logarithm: TorchJD has neither nadir nor warm-up
        (STCH(TASKS, log=False, mu=mu), scalarization.STCH(mu)),
        (
            STCH(TASKS, log=False, mu=mu, weights=weights, reference=ideal),
            scalarization.STCH(mu, *given),
        ),
    ]
    for balancer, scalarizer in pairs:
        for losses in LOSSES:
            assert_same(balancer.weights(StepStats(losses)), theirs(scalarizer, losses))


@pytest.mark.parametrize(("ours", "name"), [(Uncertainty, "UW"), (IMTLL, "IMTLL")])
def test_learned_variances_and_scales_agree(ours: type[LossBalancer], name: str) -> None:
    balancer = ours(TASKS).double()
    scalarizer = getattr(scalarization, name)(3).double()
    optimizers = [torch.optim.Adam(m.parameters(), 0.1) for m in (balancer, scalarizer)]
    for losses in LOSSES:
        stats = StepStats(losses)
        assert_same(balancer.weights(stats), theirs(scalarizer, losses))
        for optimizer in optimizers:
            optimizer.zero_grad()
        objectives = (balancer.param_objective(stats), scalarizer(losses))
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            assert objective is not None
            objective.backward()
            optimizer.step()
        assert_same(objectives[0], objectives[1])


def test_dwa_agrees() -> None:
    balancer, scalarizer = DWA(TASKS, temperature=1.5), scalarization.DWA(1.5)
    for step, losses in enumerate(LOSSES):  # four epochs of three steps, each with as many labels
        stats = StepStats(losses, step=step, epoch=step // 3)
        weights = balancer.weights(stats)
        assert_same(weights, theirs(scalarizer, losses))
        balancer.commit(stats, weights)
        if step % 3 == 2:
            scalarizer.step()


def test_famo_agrees() -> None:
    bound = {"seg": 0.02, "cls": 0.0, "bbox": 0.05}
    bounds = torch.tensor(list(bound.values()), dtype=torch.float64)
    balancer = FAMO(TASKS, bound=bound)
    scalarizer = scalarization.FAMO(3, min_losses=bounds).double()
    for before, after in pairwise(LOSSES):
        stats = StepStats(before)
        # TorchJD adds 1e-8 to a loss above its bound, and we take it for a floor
        assert_same(balancer.weights(stats), theirs(scalarizer, before), rtol=1e-6)
        balancer.revisit(stats, after)
        scalarizer.update(after)


def test_rlw_has_the_same_distribution() -> None:
    """TorchJD draws from the global generator, we from one of the run's seed and the step."""
    torch.manual_seed(0)
    steps = range(2000)
    ours = torch.stack([RLW(TASKS).weights(StepStats(LOSSES[0], step=step)) for step in steps])
    others = torch.stack([theirs(scalarization.Random(), LOSSES[0]) for _ in steps])
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    quantiles = [x.flatten().quantile(levels) for x in (ours, others)]
    torch.testing.assert_close(quantiles[0], quantiles[1], atol=0.03, rtol=0)
