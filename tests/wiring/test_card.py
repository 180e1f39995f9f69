"""The model card: true to the run's files, read by the Hub's reader, safe from hostile names."""

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from small_run import OPTIONS, small_run

import mtlkit
from mtlkit import DatasetSpec, TargetSpec
from mtlkit.build import build_model
from mtlkit.card import card
from mtlkit.errors import CheckpointError
from mtlkit.markdown import escape, fenced
from mtlkit.settings import Choice, TaskChoice

HOSTILE = (
    "<script>alert(1)</script>",
    "a | b |",
    "[click](https://evil.example)",
    "www.evil.example",
    "`code` **bold** _x_ ~~y~~",
    "--- # heading",
    "\u202ebackwards",
    "{{ jinja }} $math$ :smile: @name &amp; \\",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run to spoil."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def written(run: Path | None, source: Path) -> str:
    return card(mtlkit.load(source), "someone/pets", run)


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the table under a title, as a reader sees them."""
    part = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[html.unescape(cell) for cell in line[2:-2].split(" | ")] for line in lines[2:]]


def hostile_model() -> mtlkit.Model:
    """Classes that try to be markup."""
    targets = {"cls": TargetSpec("class", classes=HOSTILE)}
    spec = DatasetSpec(targets=targets, sizes={"train": 8})
    backbone = Choice("segnet", {"width": 4})
    tasks = {"cls": TaskChoice("cls")}
    model = build_model(tasks, backbone, spec, image_size=(32, 32), views="shared")
    model.config = {
        "backbone": {"name": "segnet"}, "data": spec.to_json(), "plugins": {"mtlkit": "0.1.0"},
    }  # fmt: skip
    return model


def test_every_number_of_the_table_is_that_of_the_results(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    found = {}
    for task, metric, *values in rows(written(run, run), "Results"):
        key = metric.strip("*") if task == "all" else f"{task}/{metric.strip('*')}"
        found[key] = values
    assert found.keys() == results["test"].keys()
    for key, (test, val) in found.items():
        assert float(test) == float(f"{results['test'][key]:.4g}")
        assert float(val) == float(f"{results['val'][key]:.4g}")


def test_the_metric_that_chooses_is_bold(run: Path) -> None:
    bold = [cells[:2] for cells in rows(written(run, run), "Results") if "**" in cells[1]]
    assert bold == [["seg", "**miou**"], ["cls", "**accuracy**"], ["bbox", "**iou**"]]


def test_the_hubs_reader_gets_the_results_on_test(run: Path) -> None:
    data = ModelCard(written(run, run)).data
    test = json.loads((run / "results.json").read_text())["test"]
    assert data.library_name == "mtlkit"
    assert data.model_name == "someone/pets"
    assert {r.metric_name: r.metric_value for r in data.eval_results} == {
        key: test[key]
        for key in (
            "seg/miou",
            "seg/weighted_iou",
            "seg/f1",
            "seg/pixel_accuracy",
            "cls/accuracy",
        )
    }
    types = {(r.task_type, r.dataset_name, r.dataset_split) for r in data.eval_results}
    assert types == {
        ("image-segmentation", "shapes", "test"),
        ("image-classification", "shapes", "test"),
    }


def test_several_tasks_have_tags_and_no_pipeline(run: Path) -> None:
    data = ModelCard(written(run, run)).data
    assert {"image-segmentation", "image-classification"} < set(data.tags)
    assert data.pipeline_tag is None


def test_one_task_that_the_hub_knows_is_its_pipeline() -> None:
    assert ModelCard(card(hostile_model(), "x")).data.pipeline_tag == "image-classification"


def test_the_training_is_that_of_the_run(run: Path) -> None:
    text = written(run, run)
    facts = dict(rows(text, "Training"))
    results = json.loads((run / "results.json").read_text())
    machine = json.loads((run / "env.json").read_text())
    assert facts["optimiser steps"] == str(results["steps"]) == "6"
    assert facts["best after step"] == str(results["best_step"])
    assert facts["seconds"] == str(round(results["seconds"]))
    assert facts["seed"] == "0"
    assert facts["images per step"] == "4"
    assert facts["device"] == machine["device"]
    for name, version in machine["versions"].items():
        assert facts[name] == version


def test_the_configuration_in_the_card_is_the_runs_but_for_its_places(run: Path) -> None:
    block = re.search(r"```yaml\n(.*?)\n```", written(run, run), flags=re.DOTALL)
    assert block
    config = yaml.safe_load((run / "config.yaml").read_text())
    shown = yaml.safe_load(block[1])
    assert config.keys() - shown.keys() == {"output", "resume"}
    assert shown == {key: config[key] for key in shown}


def test_no_folder_of_the_machine_is_told(copy: Path) -> None:
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"] |= {"root": "/home/someone/photos", "other": ["C:\\Users\\someone\\x.h5"]}
    config["backbone"]["weights"] = "~/secret/vgg16.safetensors"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    text = written(copy, copy)
    for told in ("someone\\x", "/home", "secret", str(copy.parent)):
        assert told not in text
    for kept in ("PATH/TO/photos", "PATH/TO/x.h5", "PATH/TO/vgg16.safetensors"):
        assert kept in text


def test_labels_are_counted(run: Path) -> None:
    found = rows(written(run, run), "Data")
    assert found[0] == ["seg", "mask", "16 (100%)", "4 (100%)", "4 (100%)"]
    assert "Dataset shapes: 16 train, 4 val, 4 test." in written(run, run)


def test_the_snippet_runs_as_it_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mtlkit.load(run).save_pretrained("pets", run=run)
    code = re.search(r"```python\n(.*?)```", Path("pets/README.md").read_text(), flags=re.DOTALL)
    assert code
    names: dict[str, Any] = {}
    exec(compile(code[1], "README.md", "exec"), names)
    assert names["answer"].keys() == {"seg", "cls", "bbox"}
    assert "tensor" in capsys.readouterr().out


def test_without_a_run_the_card_is_shorter(run: Path) -> None:
    text = written(None, run)
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert titles == ["Use it", "Data", "Limits"]
    assert ModelCard(text).data.eval_results is None


def test_a_run_that_has_not_ended_has_no_results(copy: Path) -> None:
    (copy / "results.json").unlink()
    text = written(copy, copy)
    assert "## Results" not in text
    assert "The run had not ended when this was written." in text


def test_what_could_not_be_measured_is_said(copy: Path) -> None:
    results = json.loads((copy / "results.json").read_text())
    results["test"]["cls/accuracy"] = None
    (copy / "results.json").write_text(json.dumps(results))
    text = written(copy, copy)
    assert ["cls", "**accuracy**", "not measured"] in [r[:3] for r in rows(text, "Results")]
    assert "Not all could be measured on test of: cls." in text
    assert "cls/accuracy" not in {r.metric_name for r in ModelCard(text).data.eval_results}


def test_without_val_the_last_model_is_said_to_be_it(copy: Path) -> None:
    results = json.loads((copy / "results.json").read_text())
    (copy / "results.json").write_text(json.dumps({**results, "val": {}}))
    assert "This is the last model: there was no val split to choose by." in written(copy, copy)


def test_what_was_measured_on_its_training_images_is_no_result(copy: Path) -> None:
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump({**config, "overfit": 4}))
    text = written(copy, copy)
    assert "It was trained and measured on the same 4 images." in text
    assert ModelCard(text).data.eval_results is None


@pytest.mark.parametrize("name", ["results.json", "config.yaml", "env.json"])
def test_a_damaged_file_is_named(name: str, copy: Path) -> None:
    (copy / name).write_text("[")
    with pytest.raises(CheckpointError, match=rf"^cannot read .*{name}: "):
        written(copy, copy)


def test_hostile_names_stay_text() -> None:
    text = card(hostile_model(), "x\n---\n# <b>evil</b>")
    for markup in ("<script", "](", "www.evil", "`code`", "**bold", "_x_", "~~", "\u202e", "{{"):
        assert markup not in text
    assert not re.search(r"^# heading|^---.*evil", text, flags=re.MULTILINE)
    line = next(line for line in text.splitlines() if line.startswith("| cls | The class"))
    assert line.count("|") == 4
    shown = html.unescape(line)
    for name in ("<script>alert(1)</script>", "[click](https://evil.example)", "`code` **bold**"):
        assert name in shown
    assert ModelCard(text).data.model_name == "x --- # <b>evil</b>"


def test_usual_names_are_not_changed() -> None:
    for name in ("cat", "dog_breed", "Great Dane (adult)", "x86_64", "1.2.3", "chien, été", "猫"):
        assert escape(name) == name


def test_many_classes_are_cut_short() -> None:
    model = hostile_model()
    classes = tuple(f"class {i}" for i in range(200))
    model.config["data"]["targets"]["cls"]["classes"] = classes
    text = card(model, "x")
    assert "class 19 and 180 more, in config.json" in text
    assert "class 20" not in text


def test_backticks_do_not_end_a_block_of_code() -> None:
    assert fenced("a\n```\nb", "yaml") == "````yaml\na\n```\nb\n````"


def test_a_fence_in_an_option_stays_inside(copy: Path) -> None:
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["log_with"] = ["```\n# evil"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    part = written(copy, copy).split("<summary>config.yaml</summary>\n\n")[1]
    assert part.startswith("````yaml\n")


def test_another_number_of_processes_is_counted(copy: Path) -> None:
    machine = json.loads((copy / "env.json").read_text())
    (copy / "env.json").write_text(json.dumps({**machine, "processes": 3}))
    facts = dict(rows(written(copy, copy), "Training"))
    assert facts["images per step"] == str(3 * OPTIONS["batch_size"])


def test_a_card_is_written_without_touching_the_model(run: Path) -> None:
    model = mtlkit.load(run)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    card(model, "x", run)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
