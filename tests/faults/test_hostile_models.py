"""Every way to make a saved model do harm is refused in one line, before anything happened."""

import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_values import edit, listing, small_model
from safetensors.torch import load_file, save_file

from mtlkit import api
from mtlkit.cli import main
from mtlkit.errors import CheckpointError

Attack = Callable[[Path], object]
DEEP = 200_000


def description(folder: Path) -> Path:
    return folder / "model" / "config.json"


def weights(folder: Path) -> Path:
    return folder / "model" / "model.safetensors"


def saying(*path: Any, value: Any) -> Attack:
    """``config.json`` says this."""
    return lambda folder: edit(folder, *path, value=value)


def text(change: Callable[[str], str]) -> Attack:
    """The text of ``config.json`` is changed."""
    return lambda folder: description(folder).write_text(change(description(folder).read_text()))


def without(*path: Any) -> Attack:
    def attack(folder: Path) -> None:
        tree = node = json.loads(description(folder).read_text())
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        description(folder).write_text(json.dumps(tree))

    return attack


def replaced(place: Callable[[Path], Path], make: Callable[[Path], object]) -> Attack:
    """Something else is where the file was."""

    def attack(folder: Path) -> None:
        place(folder).unlink()
        make(place(folder))

    return attack


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Attack:
    """The weights are others."""

    def attack(folder: Path) -> None:
        state = load_file(weights(folder))
        change(state)
        save_file(state, weights(folder))

    return attack


def header(change: Callable[[dict[str, Any]], object], data: bytes = b"\0" * 64) -> Attack:
    """The weights have this header, and that after it."""

    def attack(folder: Path) -> None:
        tree: dict[str, Any] = {}
        change(tree)
        words = json.dumps(tree).encode()
        weights(folder).write_bytes(struct.pack("<Q", len(words)) + words + data)

    return attack


def tensor(start: int, end: int, **other: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end], **other}


class Pickled:
    def __reduce__(self) -> Any:
        return exec, ("import hostile_trap",)


FIRST = "backbone.encoder.blocks.0.0.0.weight"
SEG = ("tasks", "seg")
CLASSES = ("data", "targets", "seg", "classes")
TIMM = {"name": "timm", "options": {"model": "test_vit"}}


def timm(**options: Any) -> Attack:
    return saying("backbone", value={**TIMM, "options": {**TIMM["options"], **options}})


ATTACKS: dict[str, tuple[Attack, str]] = {
    # what is in the place of the files
    "link out": (
        replaced(description, lambda file: file.symlink_to("/etc/passwd")),
        "config.json is a link that leaves the folder; put the file in its place",
    ),
    "weights link out": (
        replaced(weights, lambda file: file.symlink_to("/etc/passwd")),
        "model.safetensors is a link that leaves the folder",
    ),
    "link in a circle": (
        replaced(description, lambda file: file.symlink_to(file)),
        "config.json",
    ),
    "pipe": (replaced(description, os.mkfifo), "config.json is no regular file"),
    "weights pipe": (replaced(weights, os.mkfifo), "model.safetensors is no regular file"),
    "device": (
        replaced(weights, lambda file: file.symlink_to("/dev/zero")),
        "model.safetensors is a link that leaves the folder",
    ),
    "folder": (replaced(description, Path.mkdir), "config.json is no regular file"),
    "no weights": (replaced(weights, lambda file: None), "No such file"),
    # the text of the description
    "huge": (text(lambda _: " " * 2**23), "config.json is larger than 4194304 bytes"),
    "deep": (text(lambda _: "[" * DEEP + "]" * DEEP), "config.json is nested too deeply"),
    "huge number": (saying("image_size", 0, value=10**4000), "has 4001 characters"),
    "infinite": (
        text(lambda t: t.replace('"image_size": [', '"image_size": [1e999,')),
        "1e999 is no finite number",
    ),
    "not a number": (
        text(lambda t: t.replace('"image_size": [', '"image_size": [NaN,')),
        "NaN is no finite number",
    ),
    "twice": (
        text(lambda t: t.replace('"views"', '"views": "own", "views"')),
        "config.json: 'views' is given twice",
    ),
    "no text": (
        lambda folder: description(folder).write_bytes(pickle.dumps(Pickled())),
        "config.json: 'utf-8' codec",
    ),
    "list": (text(lambda _: "[1]"), "config.json must be a mapping, but is [1]"),
    # what it says
    "missing": (without("views"), "views is missing"),
    "unknown": (saying("run", value="hostile_trap"), "run is unknown"),
    "type": (saying("backbone", value=["segnet"]), "backbone must be a mapping, but is ['segnet']"),
    "views": (saying("views", value="all"), "views must be one of shared, own, but is 'all'"),
    "module": (
        saying("backbone", "name", value="hostile_trap:Trap"),
        "unknown backbone 'hostile_trap:Trap'",
    ),
    "module of a task": (saying(*SEG, "name", value="hostile_trap.Trap"), "unknown task"),
    "module of a head": (
        saying("tasks", "edge", "head", "name", value="os.system"),
        "unknown head 'os.system'",
    ),
    "module of an option": (
        saying(*SEG, "options", "loss", value={"class_path": "hostile_trap.Trap"}),
        "tasks.seg.options.loss expects one of ce,",
    ),
    "module in options": (
        timm(options={"norm_layer": {"class_path": "hostile_trap.Trap"}}),
        "cannot build 'test_vit'",
    ),
    "unknown option": (
        saying("backbone", "options", "weights", value="/etc/passwd"),
        "backbone.options.weights is unknown; there can be width, norm, pretrained",
    ),
    "file in options": (
        timm(options={"checkpoint_path": "/etc/passwd"}),
        "option 'checkpoint_path' of timm's models is set by mtlkit",
    ),
    "address in options": (
        timm(options={"pretrained_cfg": {"url": "http://localhost/x.pth"}}),
        "option 'pretrained_cfg' of timm's models is set by mtlkit",
    ),
    "hub": (timm(model="hf-hub:stranger/model"), "timm has no model 'hf-hub:stranger/model'"),
    "model in a folder": (timm(model="local-dir:/tmp"), "timm has no model 'local-dir:/tmp'"),
    "path in an id": (
        text(lambda t: t.replace('"edge": {', '"../../edge": {')),
        "tasks has the id '../../edge', which no task can have",
    ),
    "word of torch in an id": (
        text(lambda t: t.replace('"edge": {', '"forward": {')),
        "a task cannot be called 'forward'",
    ),
    "escape in a class": (
        saying(*CLASSES, 1, value="cat\x1b]0;owned\x07"),
        "data.targets.seg.classes[1] is no name of a class: 'cat\\x1b]0;owned\\x07'",
    ),
    "zero in a class": (saying(*CLASSES, 0, value="\0"), "data.targets.seg.classes[0]"),
    "half a character": (
        text(lambda t: t.replace('"classes": [', '"classes": ["\\ud800",', 1)),
        "classes[0] is no name of a class: '\\ud800'",
    ),
    "long class": (saying(*CLASSES, 0, value="x" * 9999), "classes[0] is no name of a class"),
    "line in a label": (
        saying("data", "targets", "a\nb", value={}),
        "data.targets has the name 'a\\nb'",
    ),
    "count": (saying("data", "sizes", "train", value="9"), "data.sizes.train must be a whole"),
    # sizes that nobody has memory or time for
    "large images": (
        saying("image_size", value=[10**9, 10**9]),
        "image_size must be of at most 67108864 pixels",
    ),
    "wide": (
        saying("backbone", "options", "width", value=10**9),
        "it describes a far larger network than its weights are for",
    ),
    "wide beyond numbers": (saying("backbone", "options", "width", value=10**24), ""),
    "wide head": (
        saying("tasks", "edge", "head", "options", "channels", value=[10**9] * 5),
        "it describes a far larger network",
    ),
    "many classes": (
        saying("data", "targets", "cls", "classes", value=[str(i) for i in range(200_000)]),
        "of shape",
    ),
    "other width": (
        saying("backbone", "options", "width", value=4),
        "model.safetensors has 'backbone.decoder.stages.0.0.0.weight' of shape [16, 16, 3, 3], "
        "but the network's is [32, 32, 3, 3]",
    ),
    "deep network": (
        timm(options={"depth": 60_000}),
        "it describes a far larger network than its weights are for",
    ),
    "deep beyond numbers": (timm(options={"depth": 10**9}), "holds a number above 65536"),
    "many tasks": (
        saying("tasks", value={f"t{i}": {} for i in range(5000)}),
        "tasks must be 1 to 100, but are 5000",
    ),
    # the weights
    "pickled weights": (
        lambda folder: weights(folder).write_bytes(pickle.dumps(Pickled())),
        "model.safetensors",
    ),
    "header beyond the file": (
        lambda folder: weights(folder).write_bytes(struct.pack("<Q", 2**24) + b"{}"),
        "model.safetensors: Error while deserializing header",
    ),
    "huge header": (
        lambda folder: weights(folder).write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        "model.safetensors has a header of 4611686018427387904 bytes; 16777216 are the most",
    ),
    "empty": (lambda folder: weights(folder).write_bytes(b""), "model.safetensors: Error"),
    "overlap": (
        header(lambda t: t.update(a=tensor(0, 32), b=tensor(16, 64))),
        "invalid offset for tensor `b`",
    ),
    "hole": (header(lambda t: t.update(a=tensor(0, 8), b=tensor(16, 64))), "invalid offset"),
    "bytes left over": (header(lambda t: t.update(a=tensor(0, 32))), "file not fully covered"),
    "huge shape": (
        header(lambda t: t.update(a=tensor(0, 64, shape=[2**40, 2**40]))),
        "overflow computing buffer size",
    ),
    "objects": (header(lambda t: t.update(a=tensor(0, 64, dtype="O"))), "unknown variant `O`"),
    "extra": (
        tensors(lambda state: state.update(extra=torch.ones(1))),
        "model.safetensors has 'extra', which the network has not",
    ),
    "lacking": (
        tensors(lambda state: state.pop(FIRST)),
        f"model.safetensors lacks '{FIRST}', which the network has",
    ),
    "whole numbers": (
        tensors(lambda state: state.update({FIRST: state[FIRST].int()})),
        f"model.safetensors has '{FIRST}' of type I32, but the network's is float32",
    ),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("valid") / "run")


@pytest.fixture
def folder(valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the valid model, beside which the trap would leave a file."""
    monkeypatch.setenv("MTLKIT_TRAP", str(tmp_path / "caught"))
    shutil.copytree(valid, tmp_path / "run")
    return tmp_path / "run"


@contextmanager
def little_memory(spare: int) -> Iterator[None]:
    """Inside, the process can have so many bytes more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_in_one_line(name: str, folder: Path) -> None:
    attack, message = ATTACKS[name]
    attack(folder)
    before, start = listing(folder.parent), time.process_time()
    with little_memory(2 * 2**30), pytest.raises(CheckpointError) as caught:
        api.load(folder)
    said = str(caught.value)
    assert message in said
    assert "\n" not in said
    assert len(said) < 2000
    assert time.process_time() - start < 30
    assert listing(folder.parent) == before
    assert "hostile_trap" not in sys.modules


def test_the_valid_model_loads(folder: Path) -> None:
    with little_memory(2 * 2**30):
        model = api.load(folder)
    assert list(model.tasks) == ["seg", "cls", "edge"]


def test_weights_of_half_precision_load(folder: Path) -> None:
    state = {
        k: v.half() if v.is_floating_point() else v for k, v in load_file(weights(folder)).items()
    }
    save_file(state, weights(folder))
    assert torch.equal(api.load(folder).state_dict()[FIRST], state[FIRST].float())


WATCH = """
import sys
import mtlkit, numpy, torch, timm, mtlkit.api, mtlkit_backbones.segnet, mtlkit_heads.unet
import mtlkit_heads.dense, mtlkit_heads.linear
import mtlkit_tasks.seg, mtlkit_tasks.cls, mtlkit_tasks.edge
mtlkit.names("task")
source = tuple(filter(None, sys.path))
def watch(event, args):
    if event == "open" and not str(args[0]).startswith(source):
        print("open", args[0])
    if event.split(".")[0] in ("socket", "subprocess", "urllib", "shutil", "tempfile"):
        print(event, args)
    if event in ("os.system", "os.exec", "os.fork", "os.remove", "os.rename", "os.mkdir"):
        print(event, args)
sys.addaudithook(watch)
mtlkit.load(sys.argv[1])
"""


def test_nothing_but_the_two_files_is_opened_and_no_address_is_asked(folder: Path) -> None:
    """Weights from which a network was once trained are named, and not read again."""
    pipe = folder.parent / "pipe.safetensors"
    os.mkfifo(pipe)  # whoever opened it would wait
    edit(folder, "backbone", "options", "pretrained", value=str(pipe))
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    opened = {line for line in done.stdout.splitlines() if line}
    assert opened == {f"open {description(folder)}", f"open {weights(folder)}"}


def test_the_command_line_says_it_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "backbone", "name", value="\x1b[31mred")
    picture = folder / "a.png"
    picture.touch()
    assert main(["predict", str(folder), str(picture), "--output", str(folder / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "unknown backbone '\\x1b[31mred'" in said
    assert not (folder / "out").exists()
