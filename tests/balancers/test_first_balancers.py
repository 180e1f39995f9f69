"""Each balancer against its formula."""

import math

import pytest
import torch

from mtlkit import ConfigError, StepStats, create

TASKS = ("seg", "cls", "bbox")
LOSSES = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)


def test_equal_weights_are_one() -> None:
    balancer = create("balancer", "equal", TASKS)
    assert balancer.weights(StepStats(losses=LOSSES)).tolist() == [1, 1, 1]


def test_fixed_weights_go_by_task_name_not_by_order() -> None:
    balancer = create("balancer", "fixed", TASKS, weights={"bbox": 0.2, "seg": 0.7, "cls": 0.1})
    assert balancer.weights(StepStats(losses=LOSSES)).tolist() == [0.7, 0.1, 0.2]
    some = StepStats(losses=LOSSES[[0, 2]], index=torch.tensor([0, 2]))
    assert balancer.weights(some).tolist() == [0.7, 0.2]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"seg": 1.0}, "exactly the tasks seg, cls, bbox, but were given for seg"),
        ({"seg": 1.0, "cls": -1.0, "bbox": 0.0}, "finite, 0 or more and not all 0"),
        ({"seg": 0.0, "cls": 0.0, "bbox": 0.0}, "finite, 0 or more and not all 0"),
        ({"seg": math.inf, "cls": 0.0, "bbox": 0.0}, "finite, 0 or more and not all 0"),
    ],
)
def test_fixed_refuses_weights_that_do_not_fit(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create("balancer", "fixed", TASKS, weights=weights)


def test_uncertainty_is_the_papers_objective() -> None:
    balancer = create("balancer", "uncertainty", TASKS).double()
    s = torch.tensor([0.1, -0.3, 0.7], dtype=torch.float64)
    balancer.log_variance.data.copy_(s)
    stats = StepStats(losses=LOSSES)
    expected = sum(
        math.exp(-v) * loss / 2 + v / 2 for v, loss in zip(s.tolist(), LOSSES.tolist(), strict=True)
    )
    assert balancer.objective(LOSSES, stats).item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(balancer.weights(stats), 0.5 * torch.exp(-s))


def test_uncertainty_is_at_rest_where_the_variance_is_the_loss() -> None:
    balancer = create("balancer", "uncertainty", TASKS).double()
    balancer.log_variance.data.copy_(LOSSES.log())
    balancer.objective(LOSSES, StepStats(losses=LOSSES)).backward()
    assert balancer.log_variance.grad.abs().max() < 1e-12


def test_dwa_follows_the_ratio_of_the_last_two_epochs() -> None:
    balancer = create("balancer", "dwa", TASKS, temperature=2.0)
    means = torch.tensor([[1.0, 2.0, 4.0], [0.5, 2.0, 1.0]], dtype=torch.float64)
    for epoch, mean in enumerate(means):
        for step, (part, count) in enumerate([(0.5, 3.0), (1.5, 3.0), (1.0, 6.0)]):
            stats = StepStats(
                losses=mean * part, counts=torch.full((3,), count), epoch=epoch, step=step
            )
            weights = balancer.weights(stats)
            assert weights.tolist() == [1, 1, 1]
            balancer.commit(stats, weights)
    ratio = means[1] / means[0]
    expected = 3 * torch.softmax(ratio / 2.0, 0)
    torch.testing.assert_close(balancer.weights(StepStats(losses=LOSSES, epoch=2)), expected)


def test_dwa_survives_epochs_without_a_label_and_gaps() -> None:
    balancer = create("balancer", "dwa", TASKS)
    for epoch in (0, 1, 5):
        stats = StepStats(losses=LOSSES[:2], index=torch.tensor([0, 1]), epoch=epoch)
        balancer.commit(stats, balancer.weights(stats))
    for epoch in (5, 6, 7, 20):
        assert balancer.weights(StepStats(losses=LOSSES, epoch=epoch)).isfinite().all()


def test_dwa_goes_on_from_its_state() -> None:
    one, other = (create("balancer", "dwa", TASKS) for _ in range(2))
    for epoch in (0, 1):
        stats = StepStats(losses=LOSSES * (epoch + 1), epoch=epoch)
        one.commit(stats, one.weights(stats))
    other.load_state_dict(one.state_dict())
    later = StepStats(losses=LOSSES, epoch=2)
    assert torch.equal(one.weights(later), other.weights(later))


def test_dwa_refuses_a_temperature_of_zero() -> None:
    with pytest.raises(ConfigError, match="temperature must be above 0, but is 0"):
        create("balancer", "dwa", TASKS, temperature=0.0)


def test_random_numbers_depend_on_seed_step_and_salt() -> None:
    def draw(salt: str = "", **given: int) -> list[float]:
        return torch.rand(3, generator=StepStats(losses=LOSSES, **given).rng(salt)).tolist()

    assert draw(seed=1, step=2) == draw(seed=1, step=2, epoch=9)
    assert len({tuple(d) for d in (draw(), draw(seed=1), draw(step=1), draw("x"))}) == 4
