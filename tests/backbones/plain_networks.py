"""SegNet and MTAN once more, from their formulas alone: functions of a dict of weights.

Batch norm is in training mode. Maps are lists over the blocks, finest first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
DEPTHS = (2, 2, 3, 3, 3)


def leaves(module: torch.nn.Module) -> Weights:
    return {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}


def conv_bn(x: Tensor, w: Weights, conv: str, bn: str) -> Tensor:
    kernel = w[f"{conv}.weight"]
    x = F.conv2d(x, kernel, w.get(f"{conv}.bias"), padding=kernel.shape[-1] // 2)
    if f"{bn}.weight" not in w:
        return x
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scale, shift = (w[f"{bn}.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias"))
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def conv_bn_relu(x: Tensor, w: Weights, layer: str) -> Tensor:
    return conv_bn(x, w, f"{layer}.0", f"{layer}.1").clamp(min=0)


def windows(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).transpose(3, 4).flatten(-2)


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """2x2 maxima, and one-hot which of the four was the (first) largest."""
    four = windows(x)
    largest = four == four.amax(-1, keepdim=True)
    first = largest & (largest.cumsum(-1) == 1)
    return (four * first).sum(-1), first


def unpool(x: Tensor, where: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return (x[..., None] * where).view(b, c, h, w, 2, 2).transpose(3, 4).reshape(b, c, 2 * h, 2 * w)


def encoder(x: Tensor, w: Weights) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    firsts, lasts, wheres = [], [], []
    for j, depth in enumerate(DEPTHS):
        for k in range(depth):
            x = conv_bn_relu(x, w, f"encoder.blocks.{j}.{k}")
            if k == 0:
                firsts.append(x)
        lasts.append(x)
        x, where = pool(x)
        wheres.append(where)
    return firsts, lasts, wheres, x


def decoder(x: Tensor, w: Weights, wheres: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    stages = []
    for j in range(5):
        unpooled = x = unpool(x, wheres[4 - j])
        for k in range(DEPTHS[4 - j]):
            x = conv_bn_relu(x, w, f"decoder.stages.{j}.{k}")
        stages.append((unpooled, x))
    return stages


def segnet(x: Tensor, w: Weights) -> tuple[list[Tensor], Tensor]:
    _, lasts, wheres, pooled = encoder(x, w)
    return [*lasts, pooled], decoder(pooled, w, wheres)[-1][1]


def mask(seen: Tensor, w: Weights, name: str) -> Tensor:
    """1x1 conv, BN, ReLU, 1x1 conv, BN, sigmoid."""
    has_bn = f"{name}.4.weight" in w
    second = 3 if has_bn else 2
    hidden = conv_bn(seen, w, f"{name}.0", f"{name}.1").clamp(min=0)
    return 1 / (1 + (-conv_bn(hidden, w, f"{name}.{second}", f"{name}.{second + 1}")).exp())


def upsample(x: Tensor) -> Tensor:
    """Bilinear, twice as large, corners on corners: each axis by a matrix of weights."""
    for axis in (2, 3):
        n = x.shape[axis]
        at = torch.arange(2 * n, dtype=x.dtype) * (n - 1) / (2 * n - 1)
        weights = (1 - (at[:, None] - torch.arange(n)).abs()).clamp(min=0)  # [2n, n]
        x = (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return x


def mtan(
    x: Tensor, w: Weights, tasks: list[str], dense_tasks: list[str], attention: str
) -> dict[str, tuple[list[Tensor], Tensor | None, list[Tensor]]]:
    """Levels, dense map and masks of each task."""
    u, p, wheres, pooled = encoder(x, w)
    result = {}
    for task in tasks:
        levels: list[Tensor] = []
        masks: list[Tensor] = []
        for j in range(5):
            seen = u[j] if j == 0 else torch.cat([u[j], levels[-1]], 1)
            masks.append(mask(seen, w, f"encoder_masks.{task}.{j}"))
            levels.append(pool(conv_bn_relu(masks[-1] * p[j], w, f"encoder_convs.{j}"))[0])
        dense = None
        if task in dense_tasks and attention == "encoder":
            dense = decoder(levels[-1], w, wheres)[-1][1]
        elif task in dense_tasks:
            dense = levels[-1]
            for j, (unpooled, last) in enumerate(decoder(pooled, w, wheres)):
                own = conv_bn_relu(upsample(dense), w, f"decoder_convs.{j}")
                masks.append(mask(torch.cat([unpooled, own], 1), w, f"decoder_masks.{task}.{j}"))
                dense = masks[-1] * last
        result[task] = (levels, dense, masks)
    return result
