"""How fast images become batches on one core: our loader and a plain torchvision v2 pipeline.

Both read the same files (JPEG, PNG masks, one box each), crop, flip and resize image, mask and box
together, and stack a batch, in this process with one thread. Small pictures have 256 px, large
ones ``--large``. Ours is measured as it is by default, without reduced decoding, and with a cache,
all in turn; printed are medians. ``targets`` is the share of a training step that goes into making
the targets of self-supervised tasks.

    python benchmarks/speed/pipeline.py --output pipeline.json
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from mtlkit import api, config, measure
from mtlkit.build import create
from mtlkit.cache import cached
from mtlkit.data import Dataset
from mtlkit.geometry import smallest_image
from mtlkit.loader import Key, Prepared
from mtlkit.settings import Choice
from mtlkit.train import windows

BASELINE = "torchvision"
TARGETS = ("seg", "bbox")
CPU = torch.device("cpu")


def write_files(root: Path, number: int, side: int) -> None:
    """Pictures of 4 by 3 with noise, their masks and boxes, as ``--data folder`` reads them."""
    rng = np.random.default_rng(0)
    height, width = side, side * 4 // 3
    rows = []
    for index in range(number):
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        )
        grain = rng.normal(0, 6, picture.shape)
        picture = (picture + grain).clip(0, 255).astype(np.uint8)
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[height // 4 : height // 2, width // 4 : width * 3 // 4] = 1
        for kind, array, name in (("images", picture, "jpg"), ("masks", mask, "png")):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / kind / f"{index}.{name}")
        (root / "boxes").mkdir(exist_ok=True)
        edges = {"xmin": width // 4 + 1, "ymin": height // 4 + 1,
                 "xmax": width * 3 // 4, "ymax": height // 2}  # fmt: skip
        box = "".join(f"<{edge}>{at}</{edge}>" for edge, at in edges.items())
        (root / "boxes" / f"{index}.xml").write_text(f"<a><bndbox>{box}</bndbox></a>")
        rows.append(f"{index},train")
    (root / "labels.csv").write_text("\n".join(["id,split", *rows]) + "\n")


def torchvisions(root: Path, number: int, size: int, batch: int) -> Callable[[], Any]:
    """What torchvision's datasets and its joint transforms make of the files."""
    transform = v2.Compose([
        v2.RandomResizedCrop(size, scale=(0.6, 1.0), ratio=(0.8, 1.25)),
        v2.RandomHorizontalFlip(), v2.ClampBoundingBoxes(),
    ])  # fmt: skip

    def sample(index: int) -> dict[str, Tensor]:
        with Image.open(root / f"images/{index}.jpg") as file:
            image = pil_to_tensor(file.convert("RGB"))
        with Image.open(root / f"masks/{index}.png") as file:
            mask = pil_to_tensor(file)
        height, width = image.shape[1:]
        edges = [[width // 4, height // 4, width * 3 // 4, height // 2]]
        found: dict[str, Tensor] = transform({
            "image": tv_tensors.Image(image), "seg": tv_tensors.Mask(mask[0]),
            "bbox": tv_tensors.BoundingBoxes(
                torch.tensor(edges, dtype=torch.float32), format="XYXY", canvas_size=(height, width)
            ),
        })  # fmt: skip
        return {name: value.as_subclass(Tensor) for name, value in found.items()}

    def work() -> None:
        for start in range(0, number, batch):
            default_collate([sample(i) for i in range(start, min(start + batch, number))])

    return work


def ours(
    dataset: Dataset, size: int, batch: int, *, reduce: bool = True, cache: bool = False
) -> Callable[[], Any]:
    """What a worker of ours does; a cache is full before the first call."""
    samples: Any = dataset.split("train")
    if reduce:
        samples = samples.at_least(smallest_image("light", (size, size)))
    if cache:
        samples = cached(samples, TARGETS, "ram", what="train", workers=0)
    targets = {name: dataset.spec.targets[name] for name in TARGETS}
    prepared = Prepared(samples, targets, (size, size), augment="light")

    def work() -> None:
        for start in range(0, len(samples), batch):
            stop = min(start + batch, len(samples))
            prepared.collate([prepared[Key(0, i, True)] for i in range(start, stop)])

    return work


def compare(args: argparse.Namespace, side: int, images: int) -> dict[str, Any]:
    """All pipelines on so many pictures of one size; images per second and core."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_files(root, images, side)
        options = {"root": root, "val_share": 0.0, "test_share": 0.0}
        dataset: Dataset = create("dataset", Choice("folder", options))
        of_ours = partial(ours, dataset, args.size, args.batch_size)
        makers: dict[str, measure.Maker] = {
            BASELINE: partial(torchvisions, root, images, args.size, args.batch_size),
            "mtlkit": of_ours,
            "mtlkit --decode full": partial(of_ours, reduce=False),
            "mtlkit --cache ram": partial(of_ours, cache=True),
        }
        costs = measure.in_turns(makers, BASELINE, rounds=args.rounds, device=CPU)
    found = measure.numbers(costs, BASELINE)
    for row in found.values():
        row["images_per_second"] = 1000 * images / row["milliseconds"]
    rows = [[f"{side} px", "images/s", "times torchvision's"]]
    rows += [[name, f"{row['images_per_second']:.0f}", f"{1 / row['ratio']:.2f}"]
             for name, row in found.items()]  # fmt: skip
    print(measure.columns(rows), end="\n\n")
    return found


def target_shares(args: argparse.Namespace) -> dict[str, Any]:
    """What making each target costs, next to a step that trains the same tasks."""
    words = [
        "--tasks",
        "seg,denoise,edge,colourise",
        "--workers",
        "0",
        "--lr",
        "1e-12",
        *args.options,
    ]
    run = api.assemble(config.parse(words))
    run.model.train()
    device = run.accelerator.device
    batch = next(iter(run.loader("train", train=True)))
    (window,) = [next(windows([batch], run.model, run.settings))]  # type: ignore[arg-type]
    images, seeds = batch["image"].to(device).float() / 255, batch["seeds"]
    if run.settings.channels_last:
        images = images.to(memory_format=torch.channels_last)
    tasks = run.model.tasks
    step = partial(run.engine, window, step=0, epoch=0)
    works: dict[str, Callable[[], Any]] = {
        "step": step,
        "noise": lambda: tasks["denoise"].view(images, seeds),
        "canny": lambda: tasks["edge"].make_target(images),
        "lab": lambda: (
            tasks["colourise"].view(images, seeds),
            tasks["colourise"].make_target(images),
        ),
    }
    makers = {name: partial(lambda work: work, work) for name, work in works.items()}
    costs = measure.in_turns(makers, "step", rounds=args.rounds, device=device)
    found = measure.numbers(costs, "step")
    rows = [["", "time", "of a step"]]
    rows += [[name, f"{row['milliseconds']:.1f} ms", f"{row['ratio']:.1%}"]
             for name, row in found.items()]  # fmt: skip
    print(measure.columns(rows))
    return found


def main(argv: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument(
        "--images", type=int, default=32, help="files; a quarter of them large ones"
    )
    parser.add_argument("--large", type=int, default=2000, help="height of large pictures; 0: none")
    parser.add_argument("--size", type=int, default=256, help="what the network sees, in pixels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("options", nargs="*", help="after --: of mtlkit train, for the step")
    args = parser.parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {"256 px": compare(args, 256, args.images)}
    if args.large:
        found[f"{args.large} px"] = compare(args, args.large, max(2, args.images // 4))
    torch.set_num_threads(threads)
    found["targets"] = target_shares(args)
    if args.output:
        command = " ".join(["python benchmarks/speed/pipeline.py", *argv])
        measure.write(args.output, command, torch.device("cpu"), found)


if __name__ == "__main__":
    main(sys.argv[1:])
