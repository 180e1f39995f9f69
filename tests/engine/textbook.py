"""One process, whole batches, a graph per task: the step as one would write it on paper."""

from collections.abc import Sequence

import torch
from torch import Tensor
from toys import SIZE, ToyData, toy_model

from mtlkit import LossBalancer, Model, StepStats
from mtlkit.loader import Batches, Prepared

LR = 0.1


class WholeColumns:
    """All columns on one process: what a balancer sees of them."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.length = 0
        self.states: dict[str, Tensor] = {}

    def rand(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self.length, generator=generator)

    def sum(self, values: Tensor) -> Tensor:
        return values

    def state(self, name: str) -> Tensor:
        return self.states.setdefault(
            name, torch.zeros(self.tasks, self.length, dtype=torch.float64)
        )


def textbook(
    balancer: LossBalancer,
    *,
    batch_size: int = 12,
    steps: int = 5,
    labelled: Sequence[bool] = (True,),
    heads: str | None = None,
    ids: Sequence[str] = ("a", "b", "c"),
    norm_parts: int = 0,
    at_features: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters after ``steps`` steps of Adam, and the weights of every step.

    Args:
        balancer: asked with whole, exact numbers; in float64 on the CPU.
        batch_size: of the global batch.
        steps: on the batches of the run's own order.
        labelled: of which samples task b has labels, repeated.
        heads: what a task's own parameters get; None is the balancer's own way.
        ids: tasks.
        norm_parts: batch norm in the backbone, with statistics of so many parts of each batch.
        at_features: the balancer sees the gradients at the backbone's features.
    """
    data = ToyData(labelled=labelled)
    model = toy_model(data.spec, ids, norm=bool(norm_parts)).double()
    shared = list(model.backbone.conv.parameters())
    optimizer = torch.optim.Adam([*model.parameters(), *balancer.parameters()], lr=LR)
    prepared = Prepared(data.split("train"), data.spec.targets, SIZE)
    columns = WholeColumns(len(ids))
    columns.length = sum(p.numel() for p in shared)
    batches = (keys for epoch in range(99) for keys in _epoch(batch_size, epoch))
    decided = []
    for step in range(steps):
        batch = prepared.collate([prepared[key] for key in next(batches)])
        images = (batch["image"].float() / 255).double()
        features, predictions = forward(model, images, max(1, norm_parts))
        losses = {}
        for id, prediction in predictions.items():
            has = batch["present"][id]
            if has.any():
                error = prediction[has] - batch["targets"][id][has].double()
                losses[id] = error.square().mean()
        active = [id for id in ids if id in losses]
        jacobian, own = [], {}
        for id in active:
            mine = model.own_parameters(id)
            grads = torch.autograd.grad(losses[id], [*shared, *mine], retain_graph=True)
            jacobian.append(torch.cat([g.flatten() for g in grads[: len(shared)]]))
            own[id] = list(zip(mine, grads[len(shared) :], strict=True))
        rows = torch.stack(jacobian)
        seen = rows
        if at_features:
            at = [torch.autograd.grad(losses[id], features, retain_graph=True) for id in active]
            seen = torch.stack([torch.cat([g.flatten() for g in grads]) for grads in at])
        stats = StepStats(
            losses=torch.stack([losses[id].detach() for id in active]),
            gramian=seen @ seen.T,
            index=torch.tensor([ids.index(id) for id in active]),
            counts=torch.tensor([
                float(batch["present"][id].sum()) * data.spec.targets[id].channels for id in active
            ], dtype=torch.float64),
            step=step,
            epoch=step // 2,
        )  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        if balancer.needs == "columns":
            direction = balancer.combine(rows.clone(), stats, columns)
            weights = balancer.weights(stats).detach()
        else:
            weights = balancer.weights(stats).detach()
            direction = weights @ rows
        for p, part in zip(shared, direction.split([p.numel() for p in shared]), strict=True):
            p.grad = part.view_as(p)
        raw = (heads or balancer.heads) == "raw"
        for id, weight in zip(active, weights, strict=True):
            for p, gradient in own[id]:
                p.grad = gradient if raw else weight * gradient
        objective = balancer.param_objective(stats)
        if objective is not None:
            objective.backward()
        optimizer.step()
        balancer.commit(stats, weights)
        if balancer.revisits:
            with torch.no_grad():
                _, after = forward(model, images, max(1, norm_parts))
            again = [
                (after[id] - batch["targets"][id].double())[batch["present"][id]].square().mean()
                for id in active
            ]
            balancer.revisit(stats, torch.stack(again))
        decided.append(weights)
    return [p.detach() for p in model.parameters()], decided


def forward(model: Model, images: Tensor, parts: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Features and predictions, when each of ``parts`` processes takes every so manieth image."""
    features, predictions = [], []
    for part in range(parts):
        features.append(model.encode(images[part::parts]))
        predictions.append(model.decode(features[-1], tuple(model.tasks), SIZE))
    mixed = {
        id: torch.stack([p[id] for p in predictions], dim=1).flatten(0, 1) for id in model.tasks
    }
    return features, mixed


def _epoch(batch_size: int, epoch: int) -> list[list[object]]:
    batches = Batches(24, batch_size, train=True, seed=3)
    batches.epoch = epoch
    return list(batches)
