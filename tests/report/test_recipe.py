"""What is not the default, and the command that does it again."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtlkit import config
from mtlkit.report.read import read_runs
from mtlkit.report.recipe import command, differences


def of(folder: Path, *words: str, **env: Any) -> Any:
    """The run of a command line, as far as a recipe knows it."""
    tree = config.to_mapping(config.parse(words))
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    heads = {"seg": "dense", "cls": "linear", "bbox": "spatial"}
    about = {"tasks": {id: {"default_head": heads[t["name"]], "metrics": {}, "primary": ""}
                       for id, t in tree["tasks"].items()}}  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about))
    (folder / "env.json").write_text(json.dumps(env))
    return read_runs([folder])[0]


COMMANDS = {
    "defaults": "",
    "options": "--epochs 3 --batch-size 8 --image-size 32x64 --lr 1e-5 --compile --precision bf16",
    "a task twice": "--tasks seg,a=cls,b=cls --tasks.b.label-smoothing 0.1",
    "other heads": "--tasks seg,cls --tasks.seg.head fpn --tasks.seg.loss dice",
    "other components": "--backbone mtan --backbone.width 32 --balancer cagrad --balancer.c 0.2",
    "lists and mappings": "--log-with tensorboard,wandb --backbone.options a=1,b=2",
    "words with spaces": "--monitor 'seg/miou' --optimizer 'it''s'",
    "off": "--channels-last false --backbone.pretrained true",
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_the_command_gives_the_same_configuration(tmp_path: Path, words: str) -> None:
    run = of(tmp_path / "x", *shlex.split(words))
    again = shlex.split(command(run))
    assert again[:2] == ["mtlkit", "train"]
    assert config.to_mapping(config.parse(again[2:])) == run.config


def test_only_what_differs_is_listed(tmp_path: Path) -> None:
    assert differences(of(tmp_path / "x")) == []
    run = of(tmp_path / "y", "--lr", "0.5", "--balancer", "cagrad", "--balancer.c", "0.4")
    assert differences(run) == [("balancer", "cagrad", "equal"), ("lr", 0.5, 0.001)]


def test_several_processes_are_part_of_the_command(tmp_path: Path) -> None:
    run = of(tmp_path / "x", processes=2)
    assert command(run) == "mtlkit train --num-processes 2"


def test_a_component_that_is_not_installed_is_shown_with_all_its_options(tmp_path: Path) -> None:
    run = of(tmp_path / "x")
    run.config["balancer"] = {"name": "strange", "q": 3}
    assert [c.key for c in differences(run)] == ["balancer", "balancer.q"]
