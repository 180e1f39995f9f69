"""Looks at the tasks' steps: against loops written by hand, and without a trace."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import SIZE, ToyBackbone, ToyData, ToyHead, toy_model

from mtlkit import Features, FeatureSpec, Model
from mtlkit.affinity.lookahead import PARTS, WHOLE, Look, Lookahead, cosine, in_forward_order
from mtlkit.loader import Batches, Prepared
from mtlkit.model import TaskBatch

LR = 0.1


def batches(
    model: Model, number: int = 1, *, labelled: Sequence[bool] = (True,), double: bool = True
) -> list[TaskBatch]:
    data = ToyData(count=8 * number, labelled=labelled)
    prepared = Prepared(data.split("train"), data.spec.targets, SIZE)
    found = []
    for keys in Batches(data.count, 8, train=True):
        batch = model.prepare(prepared.collate([prepared[key] for key in keys]))
        if double:
            batch.inputs[:] = [images.double() for images in batch.inputs]
            batch.targets[:] = [target.double() for target in batch.targets]
        found.append(batch)
    return found


def model_of(ids: Sequence[str] = ("a", "b", "c"), *, norm: bool = True) -> Model:
    return toy_model(ToyData().spec, ids, norm=norm).double().train()


def mean_losses(model: Model, window: Sequence[TaskBatch]) -> list[Tensor]:
    """Each task's loss over all labelled elements of a window."""
    sums: list[Tensor] = [torch.zeros((), dtype=torch.float64) for _ in model.tasks]
    counts = [0.0] * len(sums)
    for batch in window:
        predictions = model(*batch.inputs)
        for i, task in enumerate(model.tasks.values()):
            loss, number = task.loss(predictions[task.id], batch.targets[i], batch.present[i])
            sums[i], counts[i] = sums[i] + loss, counts[i] + number.item()
    return [total / number for total, number in zip(sums, counts, strict=True)]


def shared(model: Model) -> list[nn.Parameter]:
    assert isinstance(model.backbone, ToyBackbone)
    return list(model.backbone.conv.parameters())


def by_hand(
    model: Model, window: Sequence[TaskBatch], others: Sequence[TaskBatch] | None = None
) -> tuple[Tensor, Tensor]:
    """Affinity and Gramian the long way: a copy of the model for each step."""
    others = window if others is None else others
    size = len(model.tasks)
    affinity, rows = torch.zeros(size, size, dtype=torch.float64), []
    before = mean_losses(copy.deepcopy(model), others)
    for i in range(size):
        other = copy.deepcopy(model)
        gradients = torch.autograd.grad(mean_losses(other, window)[i], shared(other))
        rows.append(torch.cat([g.flatten() for g in gradients]))
        with torch.no_grad():
            for parameter, gradient in zip(shared(other), gradients, strict=True):
                parameter -= LR * gradient
        after = mean_losses(other, others)
        for j in range(size):
            affinity[i, j] = 1 - after[j].item() / before[j].item()
    stacked = torch.stack(rows)
    return affinity, stacked @ stacked.T


def agrees(look: Look, affinity: Tensor, gram: Tensor) -> None:
    torch.testing.assert_close(look.affinity, affinity, rtol=1e-9, atol=1e-12)
    norms = gram.diagonal().sqrt()
    torch.testing.assert_close(look.norms, norms, rtol=1e-10, atol=0)
    torch.testing.assert_close(look.cosines[WHOLE], gram / norms[:, None] / norms)


def test_a_look_is_what_a_loop_written_by_hand_finds() -> None:
    model = model_of()
    window = batches(model)
    agrees(Lookahead(model, lr=LR)(window, step=0), *by_hand(model, window))


def test_losses_can_be_compared_on_other_images() -> None:
    model = model_of()
    window, others = ([batch] for batch in batches(model, 2))
    look = Lookahead(model, lr=LR)(window, others, step=7)
    agrees(look, *by_hand(model, window, others))
    assert look.step == 7
    here = Lookahead(model, lr=LR)(window, step=7)
    assert not torch.allclose(look.affinity, here.affinity, rtol=1e-3)


def test_the_batches_of_a_step_count_together() -> None:
    model = model_of(norm=False)
    window = batches(model, 3, labelled=(True, False, False))
    agrees(Lookahead(model, lr=LR)(window, step=0), *by_hand(model, window))


def test_the_runs_optimizer_can_take_the_step() -> None:
    model = model_of()
    window = batches(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.3)
    torch.stack(mean_losses(model, window)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    affinity = torch.zeros(3, 3, dtype=torch.float64)
    before = mean_losses(copy.deepcopy(model), window)
    for i in range(3):
        other, other_optimizer = copy.deepcopy((model, optimizer))
        gradients = torch.autograd.grad(mean_losses(other, window)[i], shared(other))
        for parameter, gradient in zip(shared(other), gradients, strict=True):
            parameter.grad = gradient
        other_optimizer.step()
        after = mean_losses(other, window)
        for j in range(3):
            affinity[i, j] = 1 - after[j].item() / before[j].item()
    look = Lookahead(model, lr=0, optimizer=optimizer)(window, step=1)
    torch.testing.assert_close(look.affinity, affinity, rtol=1e-9, atol=1e-12)


class Dropping(ToyBackbone):
    """Random, and with running statistics."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given, norm=True)
        self.dropout = nn.Dropout(0.5)

    def encode(self, images: Tensor) -> Tensor:
        return self.dropout(super().encode(images))


def dropping_model() -> Model:
    model = model_of()
    backbone = Dropping(tuple(model.tasks)).double()
    return Model(
        list(model.tasks.values()), backbone, dict(model.heads.items()), image_size=SIZE  # type: ignore[arg-type]
    ).double().train()  # fmt: skip


@pytest.mark.parametrize("own_step", [False, True])
def test_nothing_is_left_of_a_look(own_step: bool) -> None:
    model = dropping_model()
    window = batches(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    torch.stack(mean_losses(model, window)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    look = Lookahead(model, lr=LR, optimizer=optimizer if own_step else None)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    found = look(window, batches(model), step=0)
    after = model.state_dict(), optimizer.state_dict(), torch.get_rng_state()
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert found.affinity.abs().min() > 0


def test_random_numbers_are_the_same_before_and_after_the_step() -> None:
    model = dropping_model()
    window = batches(model, 2)
    assert (Lookahead(model, lr=0)(window, step=0).affinity == 0).all()


def test_a_task_without_labels_is_not_known() -> None:
    model = model_of()
    look = Lookahead(model, lr=LR)(batches(model, labelled=(False,)), step=0)
    known = torch.tensor([[True, False, True], [False] * 3, [True, False, True]])
    assert torch.equal(look.affinity.isfinite(), known)
    assert torch.equal(look.cosines[WHOLE].isfinite(), known)
    assert look.losses.isnan().tolist() == [False, True, False]


class Deep(ToyBackbone):
    """Registered from its last layer to its first."""

    def __init__(self, tasks: Sequence[str], *given: Any) -> None:
        super().__init__(tasks, *given)
        first = self.conv
        del self.conv
        self.third, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, bias=False)
        self.conv = first
        self.spec = FeatureSpec((4,), (4,))

    def encode(self, images: Tensor) -> Tensor:
        return self.third(torch.tanh(self.second(torch.tanh(self.conv(images)))))

    def route(self, shared: Tensor, tasks: Sequence[str], /) -> dict[str, Features]:
        return {task: Features((self.scales[task](shared),)) for task in tasks}


def test_parts_are_thirds_of_the_layers_in_the_order_of_the_forward_pass() -> None:
    model = model_of(("a", "c"))
    backbone = Deep(("a", "c"))
    heads = {id: ToyHead(backbone.spec, 2) for id in ("a", "c")}
    model = Model(list(model.tasks.values()), backbone, heads, image_size=SIZE).double().train()
    _, layers = in_forward_order(model)
    modules = (backbone.conv, backbone.second, backbone.third)
    assert [[*map(id, layer)] for layer in layers] == [[*map(id, m.parameters())] for m in modules]
    window = batches(model)
    look = Lookahead(model, lr=LR)(window, step=0)
    assert tuple(look.cosines) == (WHOLE, *PARTS)
    losses = mean_losses(model, window)
    for part, module in zip(PARTS, modules, strict=True):
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*module.parameters()],
                                                                retain_graph=True)])
            for loss in losses
        ]  # fmt: skip
        expected = torch.cosine_similarity(*rows, dim=0)
        torch.testing.assert_close(look.cosines[part][0, 1], expected)


def test_the_cosine_with_a_zero_gradient_is_not_known() -> None:
    found = cosine(torch.tensor([[4.0, -2.0, 0.0], [-2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert found[:2, :2].tolist() == [[1, -1], [-1, 1]]
    assert found[2].isnan().all()
