"""Whatever lies in a folder, a reader reads it or says in one line what is wrong with it."""

import json
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
import torch
from dataset_files import (
    HEIGHT,
    WIDTH,
    frame_arrays,
    h5_arrays,
    make_folder,
    make_nyuv2,
    mask_of,
    pixels,
    save,
    voc,
    write_h5,
)
from hypothesis import given
from hypothesis import strategies as st
from mtlkit_datasets._boxes import read_coco, read_voc
from mtlkit_datasets._images import check_image, read_image, read_mask
from mtlkit_datasets._labels import Names, read_names, read_table
from mtlkit_datasets.folder import Folder
from mtlkit_datasets.h5 import HDF5
from mtlkit_datasets.nyuv2 import NYUv2
from PIL import Image
from property_cases import cases

from mtlkit import DataError
from mtlkit.data import map_fault

SPLITS = ("train", "val", "test")


@st.composite
def damaged(draw, whole):
    """Some bytes, of which a part may be missing, overwritten, repeated or another's."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["overwrite", "cut", "insert", "remove"]))
        patch = draw(st.binary(min_size=1, max_size=8))
        if how == "overwrite":
            data[at : at + len(patch)] = patch
        elif how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = patch
        else:
            del data[at : at + len(patch) * 8]
    return bytes(data)


def must_pass(work):
    """What was found good at the start cannot end a run."""
    try:
        return work()
    except DataError as error:
        raise AssertionError("good at the start, bad later") from error


def encoded(mode, form, **options):
    file = BytesIO()
    Image.fromarray(pixels()).convert(mode).save(file, form, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
PICTURES = [
    *(encoded(mode, "PNG") for mode in ("RGB", "RGBA", "P", "L", "LA", "1", "I;16")),
    *(encoded(mode, "JPEG", exif=EXIF) for mode in ("RGB", "L", "CMYK")),
    *(encoded(mode, "TIFF") for mode in ("RGB", "CMYK", "I", "F")),
    encoded("RGB", "TIFF", compression="tiff_lzw"),
    encoded("P", "GIF"),
    encoded("RGB", "BMP"),
    encoded("RGB", "WEBP"),
    b"",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
]


@cases(900)
@given(st.sampled_from(PICTURES).flatmap(damaged), st.sampled_from(["png", "jpg", "tif", "gif"]))
def test_any_picture_is_read_or_named(data, suffix):
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damage that it can live with
        path = Path(folder) / f"a.{suffix}"
        path.write_bytes(data)
        with suppress(DataError):
            mask = read_mask(path)
            assert (mask.dtype, mask.ndim) == (np.uint8, 2)
            assert mask.size
        with suppress(DataError):
            size = check_image(path)
            image = must_pass(lambda: read_image(path).pixels)
            assert (image.dtype, image.shape) == (np.uint8, (*size, 3))


CELL = st.one_of(
    st.sampled_from(
        ["p0", "p1.png", "p2", "cat", "dog", "0", "-1", "train", "val", "", '"', "9" * 30]
    ),
    st.text(max_size=6),
)
TABLE = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(str.encode),
    st.tuples(
        st.sampled_from(
            ["id,kind", "kind,id,split", "\ufeffid,kind", "id", "id;kind", "id,id", "id,"]
        ),
        st.lists(st.lists(CELL, max_size=4).map(",".join), max_size=8),
        st.sampled_from(["\n", "\r\n", "\r"]),
    ).map(lambda t: t[2].join([t[0], *t[1]]).encode(errors="replace")),
)


@cases(600)
@given(TABLE)
def test_any_labels_csv_is_read_or_named(data):
    names = Names({f"p{index}": Path(f"p{index}.png") for index in range(4)})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        path.write_bytes(data)
        with suppress(DataError):
            table = read_table(path, names, splits=True)
            assert set(table.rows) <= {"p0", "p1", "p2", "p3"} - table.bad
            assert all(row.keys() >= {"id", *table.classes} for row in table.rows.values())
        with suppress(DataError):
            assert read_names(path)


NUMBER = st.one_of(
    st.integers(-3, 40),
    st.floats(),
    st.sampled_from([10**400, None, "7", "x", [], {}, True]),
)
NOTE = st.one_of(
    st.fixed_dictionaries(
        {"image_id": st.sampled_from([0, 1, 2, "0", None, [1]])},
        optional={"bbox": st.one_of(st.lists(NUMBER, max_size=5), NUMBER), "iscrowd": NUMBER},
    ),
    NUMBER,
)
COCO = st.one_of(
    st.recursive(NUMBER, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
    st.fixed_dictionaries(
        {
            "images": st.lists(
                st.fixed_dictionaries({"id": st.integers(0, 3), "file_name": CELL}), max_size=4
            ),
            "annotations": st.lists(NOTE, max_size=4),
        }
    ),
)


@cases(300)
@given(st.one_of(COCO.map(lambda tree: json.dumps(tree).encode()), st.binary(max_size=40)))
def test_any_coco_file_is_read_or_named(data):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "boxes.json"
        path.write_bytes(data)
        with suppress(DataError):
            boxes, faults = read_coco(path)
            assert not boxes.keys() & faults.keys()
            for box in filter(None, boxes.values()):
                assert np.isfinite(box).all()
                assert box[0] < box[2]
                assert box[1] < box[3]


EDGE = st.one_of(st.integers(-3, 40), st.floats(), st.text(max_size=4))
BOXES = st.lists(st.tuples(EDGE, EDGE, EDGE, EDGE), max_size=3).map(lambda boxes: voc(*boxes))


@cases(300)
@given(
    st.one_of(
        BOXES.map(lambda text: text.encode(errors="replace")),
        damaged(voc((1, 1, 9, 9)).encode()),
        st.binary(max_size=40),
    )
)
def test_any_voc_file_is_read_or_named(data):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.xml"
        path.write_bytes(data)
        with suppress(DataError):
            box = read_voc(path)
            assert box is None or (np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3])


def read_everything(dataset):
    """Every sample; each must be as the spec says."""
    for split in SPLITS:
        samples = dataset.split(split)
        assert len(samples) == dataset.spec.sizes[split]
        read = [samples[index] for index in range(len(samples))]
        for name, target in dataset.spec.targets.items():
            having = [sample for sample in read if name in sample]
            assert len(having) == target.labelled[split]
            for sample in having:
                assert torch.isfinite(sample[name].float()).all()
                if target.kind == "class":
                    assert 0 <= sample[name] < len(target.classes)
                elif target.kind == "mask":
                    ids = set(sample[name].unique().tolist()) - {target.ignore_index}
                    assert ids <= set(range(len(target.classes)))
                    assert sample[name].shape == sample["image"].shape[1:]
                elif target.kind == "map":
                    values = sample[name].as_subclass(torch.Tensor)
                    assert map_fault(values, target.quantity) is None
                    assert values.shape == (target.channels, *sample["image"].shape[1:])
                else:
                    left, top, right, bottom = sample[name].flatten().tolist()
                    assert 0 <= left < right <= sample["image"].shape[2]
                    assert 0 <= top < bottom <= sample["image"].shape[1]


def refused_or_read(build):
    """By default good or refused in one line; what is skipped leaves good samples behind."""
    for on_bad in ("raise", "skip"):
        try:
            dataset = build(on_bad)
        except DataError as error:
            said = str(error)
            assert "\n" not in said
            continue
        must_pass(lambda dataset=dataset: read_everything(dataset))


def h5_bytes():
    """Good HDF5 files, with and without compression, by name."""
    found = {}
    with TemporaryDirectory() as folder:
        for name, array in h5_arrays(2).items():
            for options in ({}, {"compression": "gzip", "chunks": (1, *array.shape[1:])}):
                path = Path(folder) / f"{name}.h5"
                with h5py.File(path, "w") as file:
                    file.create_dataset("data", data=array, **options)
                found.setdefault(name, []).append(path.read_bytes())
    return found


H5 = h5_bytes()
VALUE = st.sampled_from([0, 1, 0.5, 7, 300, -1, np.nan, np.inf])
ARRAY = st.builds(
    lambda dtype, shape, value: np.full(shape, value).astype(dtype),
    st.sampled_from(["u1", "f4", "f2", "i8", "?", "c8", "S2"]),
    st.lists(st.integers(0, 4), max_size=4),
    VALUE,
)


def with_value(name, at, value):
    array = h5_arrays(2)[name].astype("f4")
    array.flat[at % array.size] = value
    return array


def h5_content(name):
    """Bytes, an array, or what else a file's first key may hold."""
    return st.one_of(
        st.sampled_from(H5[name]).flatmap(damaged),
        ARRAY,
        st.builds(with_value, st.just(name), st.integers(0, 2000), VALUE),
        st.sampled_from([h5py.Empty("f4"), h5py.SoftLink("/nowhere"), b"", None]),
    )


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@cases(180)
@given(
    st.sampled_from(sorted(H5)).flatmap(lambda name: st.tuples(st.just(name), h5_content(name))),
    st.sampled_from(SPLITS),
)
def test_any_hdf5_file_is_read_or_named(named, split):
    name, content = named
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for each in SPLITS:
            write_h5(root / each, h5_arrays(2))
        path = root / split / f"{name}.h5"
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write_h5(path.parent, {name: content})
        refused_or_read(lambda on_bad: HDF5(root=root, on_bad=on_bad))


def npy_bytes(array):
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def claiming(header):
    text = header.encode(errors="replace")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64


NPY_HEADER = st.builds(
    "{{'descr': {}, 'fortran_order': {}, 'shape': {}}}".format,
    st.sampled_from(["'<f4'", "'|O'", "'<U999999999'", "[('a', '<f4')]", "'|u1'", "'x'", "()"]),
    st.sampled_from(["True", "False", "0"]),
    st.one_of(
        st.lists(st.sampled_from([0, 1, 4, -1, 2**31, 2**63, 10**30]), max_size=4).map(tuple),
        st.sampled_from(["(1,", "(True, 4)", "(" * 300, "-" * 9000 + "1", "open('/etc/passwd')"]),
    ),
).map(claiming)


NPY = {name: npy_bytes(array) for name, array in frame_arrays().items()}


def npy_content(name):
    return st.one_of(damaged(NPY[name]), NPY_HEADER, ARRAY.map(npy_bytes))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@cases(180)
@given(
    st.sampled_from(sorted(NPY)).flatmap(lambda name: st.tuples(st.just(name), npy_content(name))),
    st.sampled_from(["train", "val"]),
)
def test_any_npy_file_is_read_or_named(named, split):
    name, content = named
    with TemporaryDirectory() as folder:
        root = make_nyuv2(Path(folder), train=2, test=1)
        (root / split / name / "0.npy").write_bytes(content)
        refused_or_read(lambda on_bad: NYUv2(root=root, verify=True, on_bad=on_bad))


FILES = ["images/{}.png", "images/{}.jpg", "masks/{}.png", "labels.csv", "boxes/{}.xml",
         "boxes.json", "seg_classes.txt", "kind_classes.txt"]  # fmt: skip
MASK = st.builds(
    lambda ids, height: mask_of(*ids, height=height),
    st.sampled_from([(1, 0), (255, 0), (5, 1), (2, 0)]),
    st.sampled_from([HEIGHT, 9, WIDTH]),
)
CHANGE = st.tuples(
    st.sampled_from(FILES),
    st.sampled_from(["p0", "p1", "p3", "q"]),
    st.one_of(
        st.sampled_from(PICTURES).flatmap(damaged),
        TABLE,
        MASK,
        st.sampled_from(["remove", "folder"]),
    ),
)


def change(path, content):
    if path.is_dir():
        return
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.unlink(missing_ok=True)
        if content == "folder":
            path.mkdir()
    elif path.suffix in (".png", ".jpg"):
        save(path, content)


@cases(150)
@given(st.sampled_from(["coco", "voc"]), st.lists(CHANGE, min_size=1, max_size=3))
def test_any_folder_is_read_or_named(boxes, changes):
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damage that it can live with
        root = make_folder(Path(folder), number=4, boxes=boxes)
        for name, id, content in changes:
            path = root / name.format(id)
            if path.parent.is_dir():
                change(path, content)
        refused_or_read(lambda on_bad: Folder(root=root, on_bad=on_bad))
