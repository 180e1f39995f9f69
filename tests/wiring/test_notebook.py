"""A loop of one's own, data that are objects, and the commands in Python."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from small_run import OPTIONS, small_run
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torchvision import tv_tensors

import mtlkit
from mtlkit import OwnData, TargetSpec
from mtlkit.checkpoint import load_tree
from mtlkit.cli import main
from mtlkit.errors import CheckpointError, ConfigError, DataError

COLOUR = TargetSpec("class", classes=("red", "blue"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures at the end of a run."""
    monkeypatch.setattr("mtlkit.train.draw", lambda run: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "small")


class Colours(torch.utils.data.Dataset[tuple[Image.Image, int]]):
    """A torch Dataset as people have them."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (40, 50), COLOUR.classes[index % 2]), index % 2


def named(item: tuple[Image.Image, int]) -> dict[str, Any]:
    return {"image": item[0], "cls": item[1]}


def colours() -> OwnData:
    split = Colours()
    return OwnData({"cls": COLOUR}, train=split, val=split, sample=named, image_size=32)


ON_COLOURS = {
    "tasks": "cls", "backbone": OPTIONS["backbone"], "batch_size": 4, "max_steps": 2, "workers": 0,
}  # fmt: skip


def steps(trainer: mtlkit.Trainer, number: int) -> Iterator[Any]:
    """That many steps, and an evaluation after each epoch, as fit has them."""
    done, accumulate = 0, trainer.run.settings.accumulate
    while done < number:
        batches = iter(trainer.loader)
        while done < number and (window := list(islice(batches, accumulate))):
            yield trainer.training_step(*window)
            done += 1
        trainer.evaluate("val")


SAME = {
    "the sum of losses": {"balancer": "equal"},
    "gradients one by one": {"balancer": "cagrad"},
    "columns of gradients": {"balancer": "graddrop"},
    "parameters of its own": {"balancer": "gradnorm"},
    "losses seen again": {"balancer": "famo"},
    "epochs": {"balancer": "dwa"},
    "random weights": {"balancer": "rlw"},
    "several batches a step": {"balancer": "uncertainty", "accumulate": 3, "max_steps": 3},
    "noise": {"tasks": "seg,denoise,edge", "views": "own"},
    "dropout": {"tasks": {"cls": {"head": {"name": "linear", "dropout": 0.5}}}},
    "all else": {"clip": 1.0, "conflict_every": 2, "precision": "bf16", "cache": "ram"},
}


@pytest.mark.parametrize("options", SAME.values(), ids=SAME)
def test_steps_by_hand_are_those_of_fit_to_the_last_bit(
    options: dict[str, Any], tmp_path: Path, quick: None
) -> None:
    options = {**OPTIONS, **options}
    mtlkit.fit(**options, output=str(tmp_path / "run"))
    expected = load_tree(tmp_path / "run" / "checkpoints" / "last")
    trainer = mtlkit.Trainer(**options)
    assert len(list(steps(trainer, options["max_steps"]))) == options["max_steps"]
    state = trainer.model.state_dict()
    assert state.keys() == expected["model"].keys()
    assert all(torch.equal(state[name], value) for name, value in expected["model"].items())
    balancer = trainer.run.engine.balancing.state_dict()
    assert all(torch.equal(balancer[name], v) for name, v in expected["balancing"].items())


def test_evaluation_in_a_loop_is_that_of_fit(run: Path) -> None:
    trainer = mtlkit.Trainer(**OPTIONS)
    results = yaml.safe_load((run / "results.json").read_text())
    for _ in steps(trainer, results["best_step"]):
        pass
    assert trainer.evaluate() == results["val"]
    assert trainer.evaluate("test") == results["test"]


def test_a_step_tells_losses_and_weights_by_task() -> None:
    trainer = mtlkit.Trainer(**OPTIONS, balancer="cagrad")
    result = trainer.training_step(next(iter(trainer.loader)))
    assert list(result.losses) == list(result.weights) == ["seg", "cls", "bbox"]
    assert all(loss.isfinite() for loss in result.losses.values())
    assert result.gramian is not None


def test_each_pass_over_the_loader_is_an_epoch_in_another_order() -> None:
    trainer = mtlkit.Trainer(**OPTIONS)
    first, second = ([id for b in trainer.loader for id in b["id"]] for _ in range(2))
    assert len(trainer.loader) == 4
    assert sorted(first) == sorted(second)
    assert first != second
    assert trainer.run.epoch == 1


def test_a_pass_that_was_broken_off_is_followed_by_a_new_one() -> None:
    trainer, other = mtlkit.Trainer(**OPTIONS), mtlkit.Trainer(**OPTIONS)
    next(iter(trainer.loader))
    list(other.loader)
    assert [b["id"] for b in trainer.loader] == [b["id"] for b in other.loader]


def test_a_loop_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = mtlkit.Trainer(**OPTIONS)
    for _ in steps(trainer, 2):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_loop_saved_is_a_shared_model(tmp_path: Path) -> None:
    trainer = mtlkit.Trainer(**OPTIONS)
    trainer.training_step(next(iter(trainer.loader)))
    trainer.save(tmp_path / "model")
    loaded = mtlkit.Model.from_pretrained(tmp_path / "model").state_dict()
    state = trainer.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert (tmp_path / "model" / "README.md").is_file()


@pytest.mark.parametrize("number", [0, 3])
def test_a_step_takes_no_more_batches_than_accumulate(number: int) -> None:
    trainer = mtlkit.Trainer(**OPTIONS, accumulate=2)
    batches = list(islice(trainer.loader, number))
    with pytest.raises(ConfigError, match=rf"^training_step got {number} batches; it takes 1 to 2"):
        trainer.training_step(*batches)


def test_a_loop_does_not_resume() -> None:
    with pytest.raises(ConfigError, match=r"^a loop of one's own has no folder to resume"):
        mtlkit.Trainer(**OPTIONS, resume="runs/x")


def test_a_batch_of_ones_own_loader_is_learned_from_as_the_same_one_of_the_trainers() -> None:
    ours, theirs = mtlkit.Trainer(**OPTIONS), mtlkit.Trainer(**OPTIONS)
    batch = next(iter(ours.loader))
    own = theirs.batch(batch["image"], batch["targets"])
    one, other = ours.training_step(batch), theirs.training_step(own)
    assert {k: v.item() for k, v in one.losses.items()} == {
        k: v.item() for k, v in other.losses.items()
    }


def test_labels_that_are_not_given_are_missing() -> None:
    trainer = mtlkit.Trainer(**OPTIONS)
    batch = next(iter(trainer.loader))
    classes = [*batch["targets"]["cls"][:2], None, None]
    result = trainer.training_step(trainer.batch(batch["image"], {"cls": classes}))
    assert result.losses["cls"].isfinite()
    assert result.losses["seg"].isnan()
    only = trainer.batch(batch["image"], {"cls": classes})
    assert only["present"]["cls"].tolist() == [True, True, False, False]


def test_an_unknown_label_is_named() -> None:
    trainer = mtlkit.Trainer(**OPTIONS)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=r"^no task learns a label 'clas'; labels: seg, cls, bbo"):
        trainer.batch(images, {"clas": [0, 1]})


# Data that are objects.


@pytest.fixture(scope="module")
def on_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "colours"
    mtlkit.fit(**ON_COLOURS, data=colours(), output=str(folder))
    return folder


def test_a_run_on_an_object_says_so_and_where_else_it_is_from(on_colours: Path) -> None:
    config = yaml.safe_load((on_colours / "config.yaml").read_text())
    assert config["data"] == {"name": "object/OwnData"}
    assert config["plugins"] == {"mtlkit": mtlkit.__version__}


@pytest.mark.parametrize(
    "words",
    [["evaluate", "RUN"], ["train", "--resume", "RUN"], ["train", "--config", "RUN/config.yaml"]],
)
def test_no_file_can_build_an_object_again(
    words: list[str], on_colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("RUN", str(on_colours)) for word in words]) == 2
    assert re.match(
        rf"mtlkit {words[0]}: error: the data of this run were an object of the class OwnData, "
        "which no file can build again; hand it over in Python: mtlkit.evaluate_run",
        capsys.readouterr().err,
    )


def test_an_object_is_handed_over_again_to_evaluate(on_colours: Path) -> None:
    results = yaml.safe_load((on_colours / "results.json").read_text())
    assert mtlkit.evaluate_run(on_colours, "val", data=colours()) == results["val"]


def test_an_object_is_handed_over_again_to_go_on(tmp_path: Path, quick: None) -> None:
    folder = str(tmp_path / "run")
    mtlkit.fit(**ON_COLOURS, data=colours(), output=folder)
    results = mtlkit.fit(resume=folder, data=colours(), max_steps=4)
    assert (results["steps"], results["status"]) == (4, "ok")


def test_a_model_of_an_object_needs_it_no_more(on_colours: Path) -> None:
    answer = mtlkit.load(on_colours).predict(Image.new("RGB", (20, 20), "red"))
    assert answer["cls"]["class"] in COLOUR.classes


def test_options_of_named_data_are_not_for_an_object() -> None:
    with pytest.raises(ConfigError, match=r"^unrecognized options: data\.root"):
        mtlkit.fit(**ON_COLOURS, data=colours(), **{"data.root": "x"})


def test_options_in_a_file_for_other_data_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {name: shapes, train: 3}\n")
    trainer = mtlkit.Trainer(**ON_COLOURS, config=str(tmp_path / "a.yaml"), data=colours())
    assert len(trainer.loader.prepared.samples) == 8


@pytest.mark.parametrize("data", [Colours(), [1, 2]])
def test_data_that_are_no_dataset_of_mtlkit_are_refused_with_the_way(data: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^data is a {type(data).__name__}; .* mtlkit\.OwnData"):
        mtlkit.fit(**ON_COLOURS, data=data)


# OwnData.

ALL = {
    "seg": TargetSpec("mask", classes=("a", "b")),
    "cls": COLOUR,
    "bbox": TargetSpec("box"),
    "depth": TargetSpec("map", channels=1),
    "pose": TargetSpec("vector", channels=2),
}


def sample(**item: Any) -> dict[str, Any]:
    return OwnData(ALL, train=[{"image": Image.new("RGB", (6, 4)), **item}]).split("train")[0]


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (6, 4), (0, 51, 255)),
        np.full((4, 6, 3), (0, 51, 255), dtype=np.uint8),
        torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None].expand(3, 4, 6),
        torch.tensor([0, 0.2, 1])[:, None, None].expand(3, 4, 6),
    ],
    ids=["PIL", "array", "bytes", "floats"],
)
def test_images_of_all_sorts_are_the_same(image: Any) -> None:
    made = sample(image=image)["image"]
    assert made.dtype == torch.uint8
    assert made.shape == (3, 4, 6)
    assert made[:, 0, 0].tolist() == [0, 51, 255]


def test_labels_are_what_a_sample_has() -> None:
    mask = np.array([[0, 1, 255, 0, 0, 0]] * 4, dtype=np.uint8)
    made = sample(
        seg=Image.fromarray(mask),
        cls=np.int64(1),
        bbox=[1, 0, 5, 3],
        depth=np.ones((1, 4, 6)),
        pose=[1, 2],
    )
    assert made["id"] == "0"
    assert made["seg"].tolist() == mask.tolist()
    assert made["cls"].item() == 1
    assert made["bbox"].tolist() == [[1, 0, 5, 3]]
    assert made["bbox"].canvas_size == (4, 6)
    assert made["depth"].dtype == torch.float32
    assert made["pose"].tolist() == [1, 2]


def test_boxes_in_another_format_are_converted() -> None:
    box = tv_tensors.BoundingBoxes([[1, 0, 4, 3]], format="XYWH", canvas_size=(4, 6))
    assert sample(bbox=box)["bbox"].tolist() == [[1, 0, 5, 3]]


def test_a_label_that_is_absent_or_none_is_missing() -> None:
    assert sample(cls=None).keys() == {"image", "id"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"image": torch.full((3, 4, 6), -1.0)}, "its image is bad: floats outside [0, 1]"),
        ({"image": torch.zeros(4, 6)}, "its image is bad: torch.uint8 [4, 6], not uint8 [3, H, W]"),
        ({"cls": "red"}, "its cls is bad: invalid literal"),
        ({"seg": torch.zeros(4, 6)}, "its seg is bad: floats, not whole numbers"),
        ({"seg": torch.zeros(2, 2).long()}, "its seg is bad: of [2, 2] pixels, but the image has"),
        ({"bbox": [[0, 0, 1, 1], [0, 0, 2, 2]]}, "its bbox is bad: shape '[1, 4]' is invalid"),
    ],
)
def test_a_bad_item_is_named(item: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"^train item 0: {re.escape(message)}"):
        sample(**item)


def test_an_item_that_is_no_mapping_is_named() -> None:
    with pytest.raises(DataError, match=r"^train item 0 is no mapping with an 'image', but a tupl"):
        OwnData({"cls": COLOUR}, train=Colours()).split("train")[0]


class Stream(IterableDataset[Tensor]):
    """Nobody knows how many."""

    def __iter__(self) -> Iterator[Tensor]:
        yield torch.zeros(1)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (DataLoader(Colours()), "val is a DataLoader; give its dataset"),
        (Stream(), "val is a Stream without length or positions; give a torch Dataset"),
    ],
)
def test_a_split_without_positions_is_refused(split: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        OwnData({"cls": COLOUR}, train=Colours(), val=split)


# The other commands.


def test_evaluation_is_that_of_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = mtlkit.evaluate_run(str(run), "val", full_size=True)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split", "val", "--full-size"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert printed == {key: f"{value:.4f}" for key, value in values.items()}


@pytest.mark.parametrize("several", [False, True])
def test_prediction_writes_what_the_command_writes(
    several: bool, run: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "cat.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    images: Any = [str(picture)] if several else picture
    assert mtlkit.predict_files(str(run), images, str(tmp_path / "python")) == 0
    assert main(["predict", str(run), str(picture), "--output", str(tmp_path / "command")]) == 0
    files = {file.name: file.read_bytes() for file in (tmp_path / "python").iterdir()}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "command").iterdir()}
    assert "cat.json" in files


def test_evaluating_nothing_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not the folder of a run"):
        mtlkit.evaluate_run(tmp_path)


def test_balancers_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    costs = mtlkit.bench_balancers(["cagrad"], rounds=1, **OPTIONS)
    assert list(costs) == ["equal", "cagrad"]
    assert (costs["equal"]["backward_passes"], costs["cagrad"]["backward_passes"]) == (1, 3)
    assert "cagrad" in capsys.readouterr().out


def test_networks_are_measured() -> None:
    costs = mtlkit.bench_networks(rounds=1, **OPTIONS)
    assert list(costs) == ["together", "seg alone", "cls alone", "bbox alone", "sum of these"]
    assert all(cost["images_per_second"] > 0 for cost in costs.values())


IN_A_NOTEBOOK = """
import sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel.zmqshell")
sys.modules["ipywidgets"] = None
import mtlkit
mtlkit.fit, mtlkit.Trainer, mtlkit.Model
"""


def test_a_notebook_without_ipywidgets_gets_no_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NOTEBOOK], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("", "")
