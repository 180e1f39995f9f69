"""A dataset, for example: ``mtlkit train --data my-plugin --tasks cls``."""

import torch
from torchvision import tv_tensors

from mtlkit import Dataset, DatasetSpec, Sample, TargetSpec

COLOURS = ("red", "green", "blue")
SEEDS = {"train": 0, "val": 1, "test": 2}


class MyPlugin(Dataset):
    """Noisy pictures of one colour, which is their class.

    Args:
        train: number of training samples.
        val: number of validation samples.
        test: number of test samples.
    """

    image_size = 32

    def __init__(self, *, train: int = 96, val: int = 24, test: int = 24) -> None:
        sizes = {"train": train, "val": val, "test": test}
        colour = TargetSpec("class", classes=COLOURS, labelled=sizes)
        self.spec = DatasetSpec(targets={"cls": colour}, sizes=sizes)

    def split(self, name: str, /) -> "Pictures":
        """The samples of one split."""
        return Pictures(self.spec.sizes[name], SEEDS[name])


class Pictures:
    """One split; the same sample whenever it is asked for, in whichever process."""

    def __init__(self, number: int, seed: int) -> None:
        self.number = number
        self.seed = seed

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < self.number:
            raise IndexError(f"sample {index} of {self.number}")
        generator = torch.Generator().manual_seed(1_000_000 * self.seed + index)
        pixels = torch.randint(0, 128, (3, 48, 64), generator=generator, dtype=torch.uint8)
        colour = index % len(COLOURS)
        pixels[colour] += 100
        return {"image": tv_tensors.Image(pixels), "id": str(index), "cls": torch.tensor(colour)}
