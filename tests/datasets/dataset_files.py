"""Small data sets on disk, right in every point, for tests that then break one."""

import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 16
BOX = (4, 3, 12, 11)
BREEDS = {"Abyssinian": (1, 1), "american_bulldog": (2, 2), "Bengal": (6, 1)}


def pixels(seed=0, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def scene(height, width, box):
    """A smooth picture, bright inside of a box, as photographs are: no single pixel stands out."""
    y, x = np.mgrid[:height, :width]
    left, top, right, bottom = box
    edges = ((x - left, right - x), (y - top, bottom - y))
    inside = np.prod([1 / (1 + np.exp(-d / 3.0)) for pair in edges for d in pair], axis=0)
    slopes = (60 * x / width, 60 * y / height, 30 * np.sin(x / 40) + 30)
    return np.stack([190 * inside + slope for slope in slopes], axis=-1).round().astype(np.uint8)


def mask_of(inside, outside, box=BOX, height=HEIGHT, width=WIDTH):
    mask = np.full((height, width), outside, dtype=np.uint8)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = inside
    return mask


def truncate(path, keep=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def voc(*boxes):
    nodes = "".join(
        f"<object><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox></object>"
        for a, b, c, d in boxes
    )
    return f"<annotation>{nodes}</annotation>"


def make_pets(root: Path, per_breed=5):
    """Trimaps hold a pet at BOX with a rim of one pixel; heads are 1-based 5..8 x 4..9."""
    base = root / "oxford-iiit-pet"
    (base / "annotations" / "xmls").mkdir(parents=True)
    lines = {"trainval": [], "test": []}
    for breed, (number, species) in BREEDS.items():
        for index in range(2 * per_breed):
            id = f"{breed}_{index}"
            split = "trainval" if index < per_breed else "test"
            lines[split].append(f"{id} {number} {species} 1")
            save(base / "images" / f"{id}.jpg", pixels(index), quality=90)
            trimap = mask_of(3, 2, (3, 2, 13, 12))
            trimap[3:11, 4:12] = 1
            save(base / "annotations" / "trimaps" / f"{id}.png", trimap)
            if split == "trainval" and index:
                file = base / "annotations" / "xmls" / f"{id}.xml"
                file.write_text(voc((1, 1, 3, 3), (5, 4, 8, 9)))
    for name, listed in lines.items():
        (base / "annotations" / f"{name}.txt").write_text("\n".join(listed) + "\n")
    return root


def h5_arrays(number=5, images="uint8"):
    values = np.stack([pixels(index) for index in range(number)])
    return {
        "images": values if images == "uint8" else (values - 0.25).clip(0).astype(images),
        "masks": np.stack([mask_of(1, 0)[..., None]] * number),
        "bboxes": np.stack([np.array(BOX, dtype=np.float32)] * number),
        "binary": (np.arange(number) % 2)[:, None].astype(np.uint8),
    }


def write_h5(folder: Path, arrays, key="data"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file[key] = array


def make_h5(root: Path, images="uint8", without=()):
    for split in ("train", "val", "test"):
        arrays = h5_arrays(images=images)
        write_h5(root / split, {k: v for k, v in arrays.items() if k not in without})
    return root


def make_folder(root: Path, number=6, labels=True, masks=True, boxes="coco"):
    names = [f"p{index}" for index in range(number)]
    for index, name in enumerate(names):
        save(root / "images" / f"{name}.png", pixels(index))
        if masks:
            save(root / "masks" / f"{name}.png", mask_of(1, 0))
    if labels:
        rows = [f"{name},{'cat' if i % 2 else 'dog'},{i % 3}" for i, name in enumerate(names)]
        (root / "labels.csv").write_text("\n".join(["id,species,breed", *rows]) + "\n")
    if boxes == "coco":
        write_coco(root, {f"{name}.png": [[4, 3, 8, 8]] for name in names})
    if boxes == "voc":
        (root / "boxes").mkdir()
        for name in names:
            (root / "boxes" / f"{name}.xml").write_text(voc((5, 4, 12, 11)))
    return root


def write_coco(root: Path, boxes):
    tree = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(boxes)],
        "annotations": [
            {"id": 10 * i + j, "image_id": i, "bbox": box, "category_id": 1}
            for i, found in enumerate(boxes.values())
            for j, box in enumerate(found)
        ],
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "boxes.json").write_text(json.dumps(tree))


def table(samples):
    return {samples[index]["id"]: samples[index] for index in range(len(samples))}


def frame_arrays(seed=0, height=HEIGHT, width=WIDTH, classes=13):
    """A frame of the arrays of NYUv2: all of the picture is known but the first rows."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (height, width)).astype(np.float32)
    depth = rng.uniform(0.5, 9, (height, width, 1)).astype(np.float32)
    normal = rng.normal(size=(height, width, 3)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    label[0], depth[:2], normal[:3] = -1, 0, 0
    image = (pixels(seed, height, width) / 255).astype(np.float32)
    return {"image": image, "label": label, "depth": depth, "normal": normal}


def save_npy(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def make_nyuv2(root: Path, train=12, test=3):
    for split, number in (("train", train), ("val", test)):
        for index in range(number):
            seed = index if split == "train" else 1000 + index
            for name, array in frame_arrays(seed).items():
                save_npy(root / split / name / f"{index}.npy", array)
    return root


def make_nyuv2_pictures(root: Path, number=4, millimetres=False):
    for split in ("train", "test"):
        for index in range(number):
            id = f"{7 * index + 1:04d}"
            arrays = frame_arrays(index)
            save(root / split / "rgb" / f"{id}.jpg", pixels(index), quality=95)
            label = arrays["label"].astype(np.int64)
            save(root / split / "seg13" / f"{id}.png", (label % 256).astype(np.uint8))
            scale, dtype = (1000, np.uint16) if millimetres else (25.5, np.uint8)
            levels = np.rint(arrays["depth"][..., 0] * scale).astype(dtype)
            save(root / split / "depth" / f"{id}.png", levels)
    return root


def make_cityscapes(root: Path, train=6, test=2):
    for split, number in (("train", train), ("val", test)):
        for index in range(number):
            arrays = frame_arrays(index, classes=7)
            save_npy(root / split / "image" / f"{index}.npy", arrays["image"])
            save_npy(root / split / "label_7" / f"{index}.npy", arrays["label"])
            finer = frame_arrays(index, classes=19)["label"]
            save_npy(root / split / "label_19" / f"{index}.npy", finer)
            save_npy(root / split / "depth" / f"{index}.npy", arrays["depth"] / 20)
    return root


def make_camvid(root: Path, number=3):
    for split in ("train", "val", "test"):
        for index in range(number):
            name = f"0001TP_{index:06d}.png"
            save(root / split / name, pixels(index))
            save(root / f"{split}annot" / name, mask_of(index, 11))
    return root
