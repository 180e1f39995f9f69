"""From a dataset's samples to batches on the device.

Everything random is drawn from (seed, epoch, sample id) alone, so that the number of workers or
processes changes nothing.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from mtlkit.data import Sample, Samples, TargetSpec

Batch = dict[str, Any]
Augment = Literal["none", "light", "strong"]
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


def geometry(augment: Augment, size: tuple[int, int]) -> v2.Transform:
    """The joint transform of image, masks and boxes to ``size`` (height, width)."""
    steps: list[v2.Transform] = [v2.Resize(size, antialias=True)]
    if augment != "none":
        smallest = 0.6 if augment == "light" else 0.3
        steps = [
            v2.RandomResizedCrop(size, scale=(smallest, 1.0), ratio=(0.8, 1.25), antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    if augment == "strong":
        steps.append(v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05))
    return v2.Compose([*steps, v2.ClampBoundingBoxes()])


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
        self.transform = geometry(augment, size)
        self.seed = seed

    def __getitem__(self, key: Key) -> Sample:
        sample = self.samples[key.position]
        kept = {k: v for k, v in sample.items() if k in ("image", "id") or k in self.targets}
        seed = hash_words(self.seed, key.epoch, sample["id"])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            out = cast(Sample, self.transform(kept))
        for name, spec in self.targets.items():
            if spec.kind == "box" and name in out:
                out[name] = self._normalised(out[name])
            if spec.kind == "mask" and name in out and bool((out[name] == spec.ignore_index).all()):
                out[name] = None  # a crop may leave no labelled pixel
        labels = {name: out[name] for name in self.targets if out.get(name) is not None}
        return {
            "image": out["image"],
            "id": out["id"],
            "seed": seed,
            "valid": key.valid,
            "labels": labels,
        }

    def _normalised(self, box: tv_tensors.BoundingBoxes) -> Tensor | None:
        """``[4]`` in [0, 1], or None for a box that was cropped away."""
        x1, y1, x2, y2 = box.reshape(-1).tolist()
        if x2 - x1 < SMALLEST_BOX or y2 - y1 < SMALLEST_BOX:
            return None
        height, width = self.size
        return torch.tensor([x1 / width, y1 / height, x2 / width, y2 / height])

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """A batch.

        Returns:
            ``image`` uint8 [B, 3, H, W]; ``id`` list; ``seeds`` int64 [B]; ``valid`` bool [B];
            ``targets`` by name, [B, ...]; ``present`` by name, bool [B]; boxes in [0, 1].
        """
        valid = torch.tensor([s["valid"] for s in samples])
        targets, present = {}, {}
        for name, spec in self.targets.items():
            values = [s["labels"].get(name) for s in samples]
            blank = _blank(spec, self.size)
            targets[name] = torch.stack(
                [blank if v is None else v.as_subclass(Tensor).to(blank.dtype) for v in values]
            )
            present[name] = torch.tensor([v is not None for v in values]) & valid
        return {
            "image": torch.stack([s["image"].as_subclass(Tensor) for s in samples]),
            "id": [s["id"] for s in samples],
            "seeds": torch.tensor([s["seed"] for s in samples]),
            "valid": valid,
            "targets": targets,
            "present": present,
        }


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
