"""From a dataset's samples to batches on the device.

Everything random is drawn from (seed, epoch, sample id) alone, so that the number of workers or
processes changes nothing.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from mtlkit.data import Sample, Samples, TargetSpec
from mtlkit.errors import DataError, ProcessError
from mtlkit.geometry import Augment, View, draw

Batch = dict[str, Any]
SMALLEST_BOX = 2.0
"""Pixels; a box that a crop leaves narrower than this is no label any more."""


class Key(NamedTuple):
    """Which sample to load: the epoch rides along, so persistent workers cannot miss it."""

    epoch: int
    position: int
    valid: bool


class Batches(Sampler[list[Key]]):
    """The samples of each batch of one process.

    Each global batch is ``batch_size * world`` samples; this process takes every ``world``-th of
    them. A last, incomplete batch is filled up to equal shares with samples marked not valid,
    which count nowhere; in training it is left out unless there is no other.

    Args:
        length: number of samples.
        batch_size: per process.
        train: shuffle, and leave an incomplete last batch out.
        seed: of the order.
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        train: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length = length
        self.size = batch_size * world
        self.train = train
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.start = 0

    @property
    def total(self) -> int:
        """Batches in a whole epoch."""
        if self.train and self.length >= self.size:
            return self.length // self.size
        return -(-self.length // self.size)

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        order = list(range(self.length))
        if self.train:
            generator = torch.Generator().manual_seed(hash_words(self.seed, self.epoch))
            order = torch.randperm(self.length, generator=generator).tolist()
        for number in range(self.start, self.total):
            block = order[number * self.size : (number + 1) * self.size]
            missing = -len(block) % self.world
            keys = [Key(self.epoch, index, True) for index in block]
            keys += [Key(self.epoch, block[0], False)] * missing
            yield keys[self.rank :: self.world]


def hash_words(*words: object) -> int:
    """A whole number in [0, 2^56) that depends on these words alone."""
    text = "/".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


class Prepared(TorchDataset[Sample]):
    """Samples after geometry, each with a seed of its own.

    Args:
        samples: of one split.
        targets: the labels to load; a sample's other labels are dropped.
        size: height and width, in pixels.
        augment: how the image is varied.
        seed: of the run.
    """

    def __init__(
        self,
        samples: Samples,
        targets: Mapping[str, TargetSpec],
        size: tuple[int, int],
        *,
        augment: Augment = "none",
        seed: int = 0,
    ) -> None:
        self.samples = samples
        self.targets = targets
        self.size = size
        self.augment: Augment = augment
        self.seed = seed

    def __getitem__(self, key: Key) -> Sample:
        try:
            return self._sample(key)
        except (OSError, DataError) as error:
            return {"problem": f"sample {key.position} of the data cannot be read: {error}"}

    def _sample(self, key: Key) -> Sample:
        sample = self.samples[key.position]
        seed = hash_words(self.seed, key.epoch, sample["id"])
        image = sample["image"]
        size = (image.shape[-2], image.shape[-1])
        view = draw(self.augment, size, torch.Generator().manual_seed(seed))
        labels = {
            name: label
            for name, spec in self.targets.items()
            if name in sample and (label := self._label(spec, sample[name], view)) is not None
        }
        return {
            "image": view.image(image, self.size),
            "id": sample["id"],
            "seed": seed,
            "valid": key.valid,
            "labels": labels,
        }

    def _label(self, spec: TargetSpec, value: Tensor, view: View) -> Tensor | None:
        """What is left of a label in a view; None when nothing is."""
        if spec.kind == "box":
            return self._box(view.box(value))
        if spec.kind == "map":
            value = view.map(value, self.size, spec.quantity)
        if spec.kind == "mask":
            value = view.mask(value, self.size)
        if spec.kind == "mask" and bool((value == spec.ignore_index).all()):
            return None
        return value.as_subclass(Tensor)

    def _box(self, edges: list[float]) -> Tensor | None:
        """``[4]`` in [0, 1], or None for a box that was cropped away."""
        (height, width), (x1, y1, x2, y2) = self.size, edges
        if (x2 - x1) * width < SMALLEST_BOX or (y2 - y1) * height < SMALLEST_BOX:
            return None
        return torch.tensor(edges)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """A batch.

        Returns:
            ``image`` uint8 [B, 3, H, W]; ``id`` list; ``seeds`` int64 [B]; ``valid`` bool [B];
            ``targets`` by name, [B, ...]; ``present`` by name, bool [B]; boxes in [0, 1]. Or
            ``problem`` alone: why there is none.
        """
        for sample in samples:
            if "problem" in sample:
                return sample
        valid = torch.tensor([s["valid"] for s in samples])
        targets, present = {}, {}
        for name, spec in self.targets.items():
            values = [s["labels"].get(name) for s in samples]
            blank = _blank(spec, self.size)
            targets[name] = torch.stack([blank if v is None else v.to(blank.dtype) for v in values])
            present[name] = torch.tensor([v is not None for v in values]) & valid
        return {
            "image": torch.stack([s["image"] for s in samples]),
            "id": [s["id"] for s in samples],
            "seeds": torch.tensor([s["seed"] for s in samples]),
            "valid": valid,
            "targets": targets,
            "present": present,
        }


def read(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """The batches of a loader.

    Raises:
        ProcessError: a sample cannot be read any more; the message names it.
    """
    batches = iter(loader)
    while True:
        try:
            batch = next(batches, None)
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # half of what it sent
            raise RuntimeError(f"DataLoader worker is gone: {error}") from error
        if batch is None:
            return
        if "problem" in batch:
            raise ProcessError(f"{batch['problem']}; was the data moved or changed?")
        yield batch


def _blank(spec: TargetSpec, size: tuple[int, int]) -> Tensor:
    """What stands for a missing label."""
    if spec.kind == "mask":
        dtype = torch.uint8 if len(spec.classes) < 256 else torch.int64
        return torch.full(size, spec.ignore_index, dtype=dtype)
    if spec.kind == "class":
        return torch.tensor(0)
    shape = {"box": (4,), "map": (spec.channels, *size), "vector": (spec.channels,)}[spec.kind]
    return torch.zeros(shape)


def make_loader(
    prepared: Prepared, batches: Batches, *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """A loader of this process's batches; its random state is its own."""
    return DataLoader(
        prepared,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=prepared.collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
    )
