"""Answer: what each task says of a picture, in the terms of the page.

Tasks are known by their contract alone: what they decode is shown by its shape, not by its name.
"""

import base64
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mtlkit.predictor import Predictor
from mtlkit.task import Decoded, Task

Json = dict[str, Any]

_SIDE = 1024  # of a picture on the page, at most, in pixels
_ROWS = 6  # of a list of shares
_ITEMS = 16  # of a list of numbers
_STRIPE = 8  # pixels


@torch.inference_mode()
def answer(model: Predictor, picture: Tensor) -> Json:
    """Every task's answer for one picture, uint8 ``[3, H, W]``, and the seconds it took."""
    start = perf_counter()
    raw = model.raw(model.resize(picture)[None])
    network = perf_counter() - start
    cards = [_card(task, raw[id][0], picture) for id, task in model.tasks.items()]
    return {
        "width": picture.shape[2],
        "height": picture.shape[1],
        "picture": _url(picture),
        "tasks": cards,
        "seconds": perf_counter() - start,
        "network": network,
    }


def _card(task: Task, prediction: Tensor, picture: Tensor) -> Json:
    try:
        decoded = task.decode(prediction, picture)
        drawn = task.draw(picture, decoded)
        return {"task": task.id, "drawn": _url(drawn), **_terms(task, decoded, drawn)}
    except Exception as error:  # one task's mistake does not hide the others' answers
        print(f"mtlkit demo: task '{task.id}' failed", file=sys.stderr)
        traceback.print_exception(error)
        return {"task": task.id, "error": f"{type(error).__name__}: {error}"}


def _terms(task: Task, decoded: Decoded, drawn: Tensor) -> Json:
    """What was decoded, as pictures, lists of shares, and facts in words."""
    pictures, shares, facts = [], [], []
    for name, value in decoded.items():
        if isinstance(value, Tensor) and value.ndim == 2:
            shares.append({"name": name, **_shown(_parts(task, decoded, value))})
        elif isinstance(value, Tensor):
            if not torch.equal(value, drawn):
                pictures.append({"name": name, "picture": _url(value)})
        elif _are_shares(value):
            shares.append({"name": name, **_shown([_share(k, v) for k, v in value.items()])})
        else:
            facts.append({"name": name, "text": text(value)})
    return {"pictures": pictures, "shares": shares, "facts": facts}


def _are_shares(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(share, int | float) and 0 <= share <= 1 for share in value.values()
    )


def _share(name: str, share: float, colour: str | None = None) -> Json:
    return {"name": name, "share": share, "colour": colour}


def _shown(shares: list[Json]) -> Json:
    """The largest first, and how many are left out."""
    shares = sorted(shares, key=lambda share: -share["share"])
    return {"rows": shares[:_ROWS], "more": len(shares[_ROWS:])}


def _parts(task: Task, decoded: Decoded, mask: Tensor) -> list[Json]:
    """How much of a mask each class in it covers, and the colour it is drawn in."""
    pixels = mask.flatten().bincount().tolist()
    found = [i for i, number in enumerate(pixels) if number]
    colours = _colours(task, decoded, found)
    names = dict(enumerate(task.classes))
    return [
        _share(names.get(i, f"class {i}"), pixels[i] / mask.numel(), colour)
        for i, colour in zip(found, colours, strict=True)
    ]


def _colours(task: Task, decoded: Decoded, classes: list[int]) -> list[str | None]:
    """The colours in which a task draws classes of a mask; None for one that is not drawn.

    They are found out: what is drawn over black and over white tells both colour and opacity.
    """
    stripes = torch.tensor(classes, dtype=torch.uint8).repeat_interleave(_STRIPE)
    stripes = stripes[:, None].expand(-1, 8 * _STRIPE).contiguous()
    black = torch.zeros(3, *stripes.shape, dtype=torch.uint8)
    terms = {
        name: value if not isinstance(value, Tensor) else stripes if value.ndim == 2 else black
        for name, value in decoded.items()
    }
    with suppress(Exception):  # then the list goes without colours
        low, high = (
            task.draw(canvas, terms)[:, _STRIPE // 2 :: _STRIPE, 4 * _STRIPE].float()
            for canvas in (black, ~black)
        )  # [3, classes]
        opacity = 1 - (high - low).mean(0) / 255
        colours = (low / opacity.clamp_min(1e-3)).clamp(0, 255).round().int().T.tolist()
        return [
            "#{:02x}{:02x}{:02x}".format(*colour) if alpha > 0.02 else None
            for colour, alpha in zip(colours, opacity.tolist(), strict=True)
        ]
    return [None] * len(classes)


def text(value: Any) -> str:
    """A decoded term in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        left_out = f", ... ({len(value)} in all)" if len(value) > _ITEMS else ""
        return ", ".join(map(text, value[:_ITEMS])) + left_out
    return str(value)


def _url(picture: Tensor) -> str:
    """A uint8 ``[3, H, W]`` or ``[H, W]`` picture within the page's limits, as PNG in a URL."""
    array = picture.permute(1, 2, 0) if picture.ndim == 3 else picture
    image = Image.fromarray(array.cpu().numpy())
    image.thumbnail((_SIDE, _SIDE))
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
