"""What holds for the losses and metrics of every task."""

from typing import Any

import pytest
import torch
from made import CASES, LOSSES, NAMES, SIZE, SPEC, batch_for, images, make
from mtlkit_tasks import mtlkit_tasks
from torch import Tensor

from mtlkit import Task

every_loss = pytest.mark.parametrize(("kind", "options"), CASES, ids=NAMES)
every_task = pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)


def test_every_registered_task_is_in_the_table_of_these_tests() -> None:
    homes = {f"{kind.__module__}:{kind.__name__}" for kind in LOSSES}
    assert homes == set(mtlkit_tasks().values())


@every_loss
def test_sums_and_counts_of_parts_add_up_to_those_of_the_batch(
    kind: type[Task], options: dict[str, Any]
) -> None:
    task = make(kind, **options)
    batch = batch_for(task)
    whole = torch.stack([x.double() for x in task.loss(*batch)])
    parts = [
        torch.stack([x.double() for x in task.loss(*(part[i : i + 2] for part in batch))])
        for i in range(0, 6, 2)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole, rtol=1e-12, atol=1e-12)
    assert whole[1] > 0


@every_loss
def test_samples_without_a_label_count_for_nothing_whatever_they_hold(
    kind: type[Task], options: dict[str, Any]
) -> None:
    task = make(kind, **options)
    prediction, target, present = batch_for(task)
    expected = task.loss(prediction[present], target[present], present[present])
    prediction[~present] = float("nan")
    target[~present] = 7
    prediction.requires_grad_()
    found = task.loss(prediction, target, present)
    torch.testing.assert_close(found, expected)
    found[0].backward()
    assert prediction.grad is not None
    assert prediction.grad[~present].eq(0).all()
    assert prediction.grad.isfinite().all()
    assert prediction.grad[0].ne(0).any()


@every_loss
def test_without_any_label_the_sum_is_zero_with_a_zero_gradient(
    kind: type[Task], options: dict[str, Any]
) -> None:
    task = make(kind, **options)
    prediction, target, present = batch_for(task)
    prediction[:] = float("inf")
    prediction.requires_grad_()
    total, count = task.loss(prediction, target, torch.zeros_like(present))
    total.backward()
    assert (total.item(), count.item()) == (0, 0)
    assert prediction.grad is not None
    assert prediction.grad.eq(0).all()


@every_loss
def test_the_count_is_known_from_the_targets_alone(
    kind: type[Task], options: dict[str, Any]
) -> None:
    task = make(kind, **options)
    prediction, target, present = batch_for(task)
    count = task.count(target, present)
    assert count.dtype == torch.float32
    assert count.shape == ()
    assert not count.requires_grad
    assert count == task.loss(prediction.requires_grad_(), target, present)[1]


@every_loss
def test_the_gradient_of_the_loss_is_right(kind: type[Task], options: dict[str, Any]) -> None:
    task = make(kind, **options)
    prediction, target, present = batch_for(task)
    some = (slice(2), ..., slice(4)) if task.output == "map" else slice(2)
    assert torch.autograd.gradcheck(
        lambda p: task.loss(p, target[some], present[:2])[0], prediction[some].requires_grad_()
    )


@every_loss
def test_a_half_precision_prediction_gives_a_float32_loss(
    kind: type[Task], options: dict[str, Any]
) -> None:
    task = make(kind, **options)
    prediction, target, present = batch_for(task, torch.float32)
    half = prediction.bfloat16()
    total = task.loss(half, target, present)[0]
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, task.loss(half.float(), target, present)[0])


@every_loss
def test_loss_and_metric_never_wait_for_the_device(
    kind: type[Task], options: dict[str, Any]
) -> None:
    task = make(kind, **options)
    batch = tuple(x.to("meta") for x in batch_for(task, torch.float32))
    task.loss(*batch)
    task.update(task.metric().to("meta"), *batch)


@every_task
def test_metrics_of_parts_are_those_of_the_batch_and_need_only_labelled_samples(
    kind: type[Task],
) -> None:
    task = make(kind)
    prediction, target, present = batch_for(task)
    whole, parts = task.metric(), task.metric()
    task.update(whole, prediction[present], target[present], present[present])
    prediction[~present] = float("nan")
    for i in range(0, 6, 2):
        task.update(parts, *(x[i : i + 2] for x in (prediction, target, present)))
    values = whole.compute()
    assert tuple(values) == task.metric_names
    assert task.primary in values
    assert all(value.isfinite() for value in values.values())
    torch.testing.assert_close(parts.compute(), values)


@every_task
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_a_metric_that_saw_no_label_is_nan(kind: type[Task]) -> None:
    task = make(kind)
    prediction, target, present = batch_for(task)
    never, none = task.metric(), task.metric()
    task.update(none, prediction, target, torch.zeros_like(present))
    for metric in (never, none):
        assert all(value.isnan() for value in metric.compute().values())


@every_task
def test_states_of_two_processes_add_up(kind: type[Task]) -> None:
    task = make(kind)
    batch = batch_for(task)
    whole, first, second = task.metric(), task.metric(), task.metric()
    task.update(whole, *batch)
    task.update(first, *(x[:3] for x in batch))
    task.update(second, *(x[3:] for x in batch))
    assert set(first._reductions.values()) == {first._reductions[next(iter(first._reductions))]}
    for name in first._defaults:
        total: Tensor = getattr(first, name) + getattr(second, name)
        torch.testing.assert_close(total, getattr(whole, name))


@every_task
def test_views_and_targets_of_a_sample_do_not_depend_on_the_rest_of_the_batch(
    kind: type[Task],
) -> None:
    task = make(kind)
    batch, seeds = images(), torch.arange(6)
    order = torch.tensor([4, 1])
    assert torch.equal(task.view(batch, seeds)[order], task.view(batch[order], seeds[order]))
    assert torch.equal(task.view(batch, seeds), task.view(batch, seeds))
    if task.kind is None:
        assert torch.equal(task.make_target(batch)[order], task.make_target(batch[order]))


@every_task
def test_a_view_has_the_declared_channels_and_stays_within_zero_and_one(kind: type[Task]) -> None:
    task = make(kind)
    for seeds in (torch.arange(6), None):
        view = task.view(images(), seeds)
        assert view.shape == (6, task.view_channels or 3, *SIZE)
        assert view.min() >= 0
        assert view.max() <= 1


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if "loss" in LOSSES[kind][0]])
def test_an_unknown_loss_is_refused_with_those_there_are(kind: type[Task]) -> None:
    known = LOSSES[kind][0]["loss"]
    with pytest.raises(ValueError, match=f"loss must be one of .*{known}.*, but got 'hinge'"):
        make(kind, loss="hinge")


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if kind.kind])
def test_a_label_the_dataset_lacks_is_refused(kind: type[Task]) -> None:
    with pytest.raises(ValueError, match="called 'nothing', which is absent in this dataset"):
        kind("x", SPEC, SIZE, target="nothing")
