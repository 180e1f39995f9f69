"""OwnData: torch Datasets and other sequences, as a dataset of mtlkit."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transform

from mtlkit.data import Dataset, DatasetSpec, Kind, Sample, Split, TargetSpec
from mtlkit.errors import DataError
from mtlkit.picture import as_picture


class Items(Protocol):
    """A torch Dataset with a length, or any sequence."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class OwnData(Dataset):
    """Samples from torch Datasets or other sequences; mtlkit resizes, augments and batches them.

    An item is a mapping, or made into one by ``sample``. It has ``image`` (a PIL image, uint8
    ``[H, W, 3]`` as an array or ``[3, H, W]`` as a tensor, or floats in [0, 1] as a tensor) and
    under the names of ``targets`` its labels: a ``mask`` of whole numbers ``[H, W]`` (PIL, array or
    tensor), a ``class`` as a number, a ``box`` as x1, y1, x2, y2 in pixels, a ``map``
    ``[C, H, W]``, a ``vector`` ``[C]``. One that is absent or None is no label. ``id`` is text that
    no other item of the split has; by default the item's position.

    Args:
        targets: the labels, by name.
        train: items to train on.
        val: items that choose the best model.
        test: items for the last measurement.
        sample: what makes a mapping of an item.
        image_size: side to which images are resized, in pixels, unless the user says otherwise.

    Raises:
        DataError: a split is a DataLoader, or has no length.
    """

    def __init__(
        self,
        targets: Mapping[str, TargetSpec],
        /,
        *,
        train: Items,
        val: Items = (),
        test: Items = (),
        sample: Callable[[Any], Mapping[str, Any]] | None = None,
        image_size: int = 256,
    ) -> None:
        self.image_size = image_size
        self._splits: dict[Split, Items] = {"train": train, "val": val, "test": test}
        self._sample = sample
        for name, items in self._splits.items():
            if isinstance(items, torch.utils.data.DataLoader):
                raise DataError(
                    f"{name} is a DataLoader; give its dataset, mtlkit makes the batches itself"
                )
            if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
                raise DataError(
                    f"{name} is a {type(items).__name__} without length or positions; give a torch "
                    "Dataset with __len__ and __getitem__, or a list"
                )
        sizes: dict[str, int] = {name: len(items) for name, items in self._splits.items()}
        self.spec = DatasetSpec(targets=dict(targets), sizes=sizes)

    def split(self, name: Split, /) -> "OwnSamples":
        """The samples of one split."""
        return OwnSamples(name, self._splits[name], self.spec.targets, self._sample)


class OwnSamples:
    """One split of :class:`OwnData`."""

    def __init__(
        self,
        name: str,
        items: Items,
        targets: Mapping[str, TargetSpec],
        sample: Callable[[Any], Mapping[str, Any]] | None,
    ) -> None:
        self.name = name
        self.items = items
        self.targets = targets
        self.sample = sample

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> Sample:
        item = self.items[index]
        given = self.sample(item) if self.sample else item
        if not isinstance(given, Mapping) or "image" not in given:
            raise DataError(
                f"{self.name} item {index} is no mapping with an 'image', but a "
                f"{type(given).__name__}; say by sample=... how to make one of it"
            )
        where = "image"
        try:
            image = _image(given["image"])
            made: Sample = {"image": image, "id": str(given.get("id", index))}
            size = (image.shape[-2], image.shape[-1])
            for where, spec in self.targets.items():
                if given.get(where) is not None:
                    made[where] = _label(spec.kind, given[where], size)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.name} item {index}: its {where} is bad: {reason}") from error
        return made


def _image(value: Any) -> tv_tensors.Image:
    """Uint8 ``[3, H, W]``."""
    if isinstance(value, np.ndarray):
        value = Image.fromarray(value)
    picture = torch.as_tensor(as_picture(value))
    if picture.is_floating_point():
        if picture.amin() < 0 or picture.amax() > 1:
            raise ValueError("floats outside [0, 1]; leave normalisation to mtlkit")
        picture = (picture * 255).round().to(torch.uint8)
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or picture.dtype != torch.uint8:
        raise ValueError(f"{picture.dtype} {list(picture.shape)}, not uint8 [3, H, W]")
    return tv_tensors.Image(picture.expand(3, -1, -1))


def _label(kind: Kind, value: Any, size: tuple[int, int]) -> Tensor:
    if kind == "class":
        return torch.tensor(int(value))
    if kind == "box":
        return _box(value, size)
    values = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    if kind == "vector":
        return values.float().flatten()
    if kind == "map":
        return cast(Tensor, tv_tensors.Mask(_sized(values.float(), size)))
    if values.is_floating_point():
        raise ValueError("floats, not whole numbers")
    return cast(Tensor, tv_tensors.Mask(_sized(values.reshape(values.shape[-2:]).long(), size)))


def _sized(values: Tensor, size: tuple[int, int]) -> Tensor:
    if values.shape[-2:] != size:
        raise ValueError(f"of {list(values.shape[-2:])} pixels, but the image has {list(size)}")
    return values


def _box(value: Any, size: tuple[int, int]) -> Tensor:
    if isinstance(value, tv_tensors.BoundingBoxes):
        value = transform.convert_bounding_box_format(value, new_format="XYXY")
    corners = torch.as_tensor(value, dtype=torch.float32).reshape(1, 4)
    return cast(Tensor, tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size))
