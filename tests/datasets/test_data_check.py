"""``mtlkit data check``: counts, coverage, shares, a picture, every bad file with its reason."""

import shutil

import pytest
import torch
from dataset_files import (
    make_folder,
    make_h5,
    make_nyuv2,
    make_pets,
    mask_of,
    save,
    truncate,
)
from PIL import Image
from torchvision import tv_tensors

from mtlkit import DataProblem, Dataset, DatasetSpec, TargetSpec, data_check
from mtlkit.cli import main
from mtlkit.settings import Choice


def run(capsys, *words):
    code = main(["data", "check", *map(str, words)])
    return code, capsys.readouterr()


def lines(out):
    return [" ".join(line.split()) for line in out.splitlines()]


def test_a_good_folder_is_counted_and_the_exit_code_is_0(tmp_path, capsys):
    make_folder(tmp_path, number=20)
    (tmp_path / "masks/p0.png").unlink()
    code, printed = run(capsys, tmp_path, "--data.val-share", "0.25")
    assert code == 0
    found = lines(printed.out)
    assert found[0] == "12 train, 5 val, 3 test; 24x16 pixels"
    assert "label kind train val test" in found
    assert "bbox box 12 (100 %) 5 (100 %) 3 (100 %)" in found
    assert sum(int(w) for line in found if line.startswith("seg mask")
               for w in line.split() if w.isdecimal() and w != "100") >= 19  # fmt: skip
    assert "0 83.3 % 83.3 % 83.3 %" in found
    assert found[-1] == "all is good"


def test_every_bad_file_is_named_with_its_reason_and_the_exit_code_is_1(tmp_path, capsys):
    make_folder(tmp_path, number=30)
    for index in range(8):
        (tmp_path / f"images/p{index}.png").write_bytes(b"")
    truncate(tmp_path / "images/p8.png")
    save(tmp_path / "masks/p9.png", mask_of(77, 0))
    save(tmp_path / "masks/stray.png", mask_of(1, 0))
    code, printed = run(capsys, tmp_path)
    assert code == 1
    found = printed.out.splitlines()
    assert "11 problems; --data.on-bad skip leaves out: 9 samples, 1 x seg" in found
    for index in range(8):
        assert f"  images/p{index}.png: cannot be decoded (the file is empty)" in found
    assert any(line.startswith("  images/p8.png: cannot be decoded") for line in found)
    assert any(line.startswith("  masks/p9.png: class id 77 is out of range") for line in found)
    assert "  masks/stray.png: has no image" in found
    assert found[0].startswith("15 train, ")


def test_every_bad_file_is_named_even_when_no_good_one_is_left(tmp_path, capsys):
    make_folder(tmp_path, number=12)
    for file in (tmp_path / "images").iterdir():
        file.write_bytes(b"")
    for words in ((), ("--data.on-bad", "raise")):
        code, printed = run(capsys, tmp_path, *words)
        assert code == 1
        assert printed.out.splitlines()[0].startswith("12 problems")
        assert printed.out.count("the file is empty") == 12


def test_what_is_wrong_with_a_whole_folder_is_one_line(tmp_path, capsys):
    make_folder(tmp_path)
    shutil.rmtree(tmp_path / "images")
    code, printed = run(capsys, tmp_path)
    assert code == 1
    assert "  " + str(tmp_path) in printed.out
    assert "holds neither images/ nor train/images/" in printed.out


@pytest.mark.parametrize(("name", "make"), [("h5", make_h5), ("oxford-pets", make_pets)])
def test_any_dataset_is_checked_by_its_name(tmp_path, capsys, name, make):
    make(tmp_path)
    code, printed = run(capsys, name, "--data.root", tmp_path)
    assert (code, lines(printed.out)[-1]) == (0, "all is good")
    assert "seg mask" in " ".join(printed.out.split())


def test_generated_data_are_good(capsys):
    sizes = ("--data.train", 9, "--data.val", 2, "--data.test", 2)
    code, printed = run(capsys, "shapes", *sizes)
    assert (code, lines(printed.out)[0]) == (0, "9 train, 2 val, 2 test; 64x64 pixels")


def test_a_picture_of_the_first_samples_is_drawn(tmp_path, capsys):
    root = make_folder(tmp_path / "d")
    (root / "images/p0.png").rename(root / "images/$a_{b$ 画.png")
    shutil.rmtree(root / "masks")
    (root / "labels.csv").unlink()
    (root / "boxes.json").unlink()
    code, _ = run(capsys, root, "--preview", tmp_path / "look.png")
    assert code == 0
    with Image.open(tmp_path / "look.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 200
    make_folder(root)
    assert run(capsys, root, "--preview", tmp_path / "look2.png")[0] == 0
    assert (tmp_path / "look2.png").read_bytes() != (tmp_path / "look.png").read_bytes()


def test_maps_are_drawn_below_the_pictures(tmp_path, capsys):
    root = make_nyuv2(tmp_path / "data", train=3, test=2)
    words = ("nyuv2", "--data.root", root, "--preview")
    assert run(capsys, *words, tmp_path / "all.png")[0] == 0
    for split in ("train", "val"):
        shutil.rmtree(root / split / "normal")
        shutil.rmtree(root / split / "depth")
    assert run(capsys, *words, tmp_path / "seg.png")[0] == 0
    with Image.open(tmp_path / "all.png") as whole, Image.open(tmp_path / "seg.png") as pictures:
        assert whole.height > 2 * pictures.height
        assert whole.width == pictures.width


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "unknown dataset 'nowhere'"),
        (["nowhere"], "note: and there is no folder 'nowhere'"),
        (["shape"], "did you mean 'shapes'?"),
        ([], "say what to check: mtlkit data check PATH|NAME"),
        (["--data.size", "3"], "say what to check"),
        (["h5"], "dataset 'h5' needs --data.root"),
        (["shapes", "--data.sise", "40"], "--data.sise; did you mean '--data.size'?"),
        (["shapes", "--lr", "1"], "unrecognized arguments: --lr"),
        (["shapes", "--data.size", "big"], "--data.size expects a whole number, but got 'big'"),
        (["shapes", "--data.size", "3"], "dataset 'datasets/shapes': size is at least 32"),
        (["shapes", "--preview"], "--preview expects the name of a PNG file"),
        (["shapes", "--data.train", "1", "--preview", "/no/such/a.png"], "cannot write /no/such"),
    ],
)
def test_a_wrong_word_is_one_error_and_exit_code_2(capsys, words, message):
    code, printed = run(capsys, *words)
    assert code == 2
    assert message in printed.err


def test_help_is_help(capsys):
    assert main(["data", "--help"]) == 0
    assert "mtlkit data check PATH|NAME" in capsys.readouterr().out


def test_another_word_than_check_is_refused(capsys):
    assert main(["data", "mend", "shapes"]) == 2
    assert "say what to check" in capsys.readouterr().err


class Odd(Dataset):
    """A third party's reader that checks nothing by itself."""

    def __init__(self, change, on_bad_problems=()):
        self.change = change
        self.spec = DatasetSpec(
            {
                "seg": TargetSpec("mask", classes=("a", "b")),
                "kind": TargetSpec("class", classes=("a", "b")),
                "bbox": TargetSpec("box"),
                "depth": TargetSpec("map", quantity="distance"),
                "normals": TargetSpec("map", channels=3, quantity="direction"),
            },
            {"train": 2, "val": 0, "test": 0},
        )
        self.set_aside("/data", on_bad_problems, "skip")

    def split(self, name):
        return [self.sample(index) for index in range(2)] if name == "train" else []

    def sample(self, index):
        good = {
            "image": tv_tensors.Image(torch.zeros(3, 8, 6, dtype=torch.uint8)),
            "id": f"s{index}",
            "seg": tv_tensors.Mask(torch.full((8, 6), 255, dtype=torch.uint8)),
            "kind": torch.tensor(1),
            "bbox": tv_tensors.BoundingBoxes(
                torch.tensor([[0.0, 0, 6, 8]]), format="XYXY", canvas_size=(8, 6)
            ),
            "depth": tv_tensors.Mask(torch.zeros(1, 8, 6)),
            "normals": tv_tensors.Mask(torch.zeros(3, 8, 6)),
        }
        return good | (self.change if index else {})


def found(monkeypatch, dataset):
    monkeypatch.setattr(data_check.build, "create", lambda *_: dataset)
    return data_check.check(Choice("odd"))


def mask(value, size=(8, 6)):
    return tv_tensors.Mask(torch.full(size, value, dtype=torch.uint8))


def box(*edges):
    return tv_tensors.BoundingBoxes(
        torch.tensor([edges], dtype=torch.float32), format="XYXY", canvas_size=(8, 6)
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"seg": mask(2)}, "'seg' has class 2; there are 2 classes"),
        ({"seg": mask(1, (8, 7))}, "'seg' has [8, 7] pixels, its image [8, 6]"),
        ({"kind": torch.tensor(2)}, "'kind' has class 2; there are 2 classes"),
        ({"kind": torch.tensor(-1)}, "'kind' has class -1"),
        ({"kind": torch.tensor(255)}, "'kind' has class 255"),
        ({"bbox": box(3, 1, 2, 4)}, "'bbox' is [3.0, 1.0, 2.0, 4.0] in an image of [8, 6]"),
        ({"bbox": box(0, 0, 7, 8)}, "'bbox' is [0.0, 0.0, 7.0, 8.0]"),
        ({"bbox": box(0, 0, float("nan"), 8)}, "'bbox' is not finite"),
        ({"depth": tv_tensors.Mask(torch.full((1, 8, 6), float("inf")))}, "'depth' is not finite"),
        ({"depth": tv_tensors.Mask(torch.full((1, 8, 6), -1.0))}, "'depth' is -1 somewhere; dist"),
        (
            {"normals": tv_tensors.Mask(torch.ones(3, 8, 6))},
            "'normals' has a direction of length",
        ),
        ({"more": torch.tensor(1)}, "has 'more', which is not in the dataset's spec"),
        ({"image": None}, "AttributeError: "),
    ],
)
def test_what_no_reader_noticed_is_found(monkeypatch, change, fault):
    [problem] = found(monkeypatch, Odd(change)).problems
    assert problem.text.startswith(f"sample 1 of train, s1: {fault}")


def test_a_reader_takes_part_by_setting_aside(monkeypatch):
    dataset = Odd({}, [DataProblem("/data/x: bad", sample=True)])
    text = data_check.describe(found(monkeypatch, dataset))
    assert "1 problem; --data.on-bad skip leaves out: 1 sample\n  x: bad" in text
    assert "seg, pixels     train  val  test\na               0.0 %  -    -" in text
    assert "(not labelled)  100 %  -    -" in text


def test_two_samples_of_one_name_are_a_problem(monkeypatch):
    [problem] = found(monkeypatch, Odd({"id": "s0"})).problems
    assert problem.text == "train: several samples are called s0"


def test_a_split_of_another_size_than_said_is_a_problem(monkeypatch):
    dataset = Odd({})
    dataset.spec.sizes["val"] = 3
    [problem] = found(monkeypatch, dataset).problems
    assert problem.text == "val: has 0 samples, but the dataset's spec says 3"
