"""What a run is known by, and which runs a suite asks for."""

from pathlib import Path
from typing import Any

import pytest
from stand_in import tiny_suite

from benchmarks import plan
from benchmarks.plan import Plan
from benchmarks.suite import Suite
from mtlkit.errors import ConfigError

SMALL = {"backbone": {"name": "segnet", "width": 4}, "tasks": "seg,cls", "image-size": 32}


def small(**changes: Any) -> Suite:
    return tiny_suite(**{"options": SMALL, "seeds": 1, "rows": {"a": {}}, **changes})


def only(made: Plan) -> str:
    return made.rows[0].runs[0]


def test_the_same_recipe_is_the_same_run() -> None:
    assert only(plan.make(small())) == only(plan.make(small()))


@pytest.mark.parametrize(
    "words",
    ["--lr 0.0011", "--epochs 11", "--batch-size 33", "--data.train 415", "--image-size 64",
     "--backbone.width 5", "--tasks.seg.loss dice", "--precision bf16"],
)  # fmt: skip
def test_one_byte_of_a_recipe_makes_it_another_run(words: str) -> None:
    assert only(plan.make(small(), words.split())) != only(plan.make(small()))


@pytest.mark.parametrize("words", ["--workers 3", "--log-every 7", "--cache ram"])
def test_what_changes_no_number_leaves_it_the_same_run(words: str) -> None:
    changed = plan.make(small(), words.split())
    assert only(changed) == only(plan.make(small()))
    key = words.split()[0].removeprefix("--").replace("-", "_")
    assert str(changed.runs[only(changed)].recipe[key]) == words.split()[1]


def test_another_version_of_mtlkit_makes_it_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = only(plan.make(small()))
    monkeypatch.setattr(plan, "__version__", "9.9")
    assert only(plan.make(small())) != before


def test_a_seed_is_part_of_it_and_of_its_folder() -> None:
    made = plan.make(small(), seeds=2)
    first, second = (made.runs[id] for id in made.rows[0].runs)
    assert (first.folder, second.folder) == (f"a-0-{first.id[:8]}", f"a-1-{second.id[:8]}")
    assert first.recipe["seed"] == 0
    assert second.recipe["seed"] == 1


def test_a_file_is_known_by_what_it_holds_wherever_it_is(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    suite = small(options={**SMALL, "backbone": {"name": "segnet", "pretrained": True}})
    a, b, c = (
        only(plan.make(suite, ["--backbone.pretrained", str(tmp_path / name)])) for name in "abc"
    )
    assert a == b != c


def test_a_folder_is_known_by_names_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "x" / "inner").mkdir(parents=True)
    (tmp_path / "x" / "inner" / "file").write_bytes(b"12")
    before = plan.fingerprint(tmp_path / "x")
    plan.fingerprint.cache_clear()
    (tmp_path / "x").rename(tmp_path / "y")
    assert plan.fingerprint(tmp_path / "y") == before
    plan.fingerprint.cache_clear()
    (tmp_path / "y" / "inner" / "file").write_bytes(b"123")
    assert plan.fingerprint(tmp_path / "y") != before


def test_single_tasks_are_shared_by_rows_with_the_same_recipe() -> None:
    cagrad_row = {"balancer": "cagrad", "gradients": "features"}
    rows = {"sum": {}, "cagrad": cagrad_row, "seg": {"tasks": "seg"}, "fast": {"lr": 0.1}}
    made = plan.make(small(rows=rows))
    total, cagrad, seg, fast = made.rows
    assert total.single == cagrad.single
    assert list(seg.runs) == list(total.single["seg"])
    assert fast.single["seg"] != total.single["seg"]
    recipe = made.runs[total.single["cls"][0]].recipe
    assert list(recipe["tasks"]) == ["cls"]
    assert recipe["balancer"] == {"name": "equal"}


def test_a_suite_may_give_single_tasks_a_recipe_of_their_own() -> None:
    made = plan.make(small(rows={"slow": {"lr": 0.01}, "fast": {"lr": 0.1}}, baseline={"lr": 0.05}))
    assert made.rows[0].single == made.rows[1].single
    assert made.runs[made.rows[0].single["seg"][0]].recipe["lr"] == 0.05


def test_a_single_task_is_chosen_by_its_own_metric() -> None:
    made = plan.make(small(options={**SMALL, "monitor": "seg/miou"}))
    monitors = {t: made.runs[ids[0]].recipe["monitor"] for t, ids in made.rows[0].single.items()}
    assert monitors == {"seg": "seg/miou", "cls": None}


def test_a_single_task_loses_its_own_labels_alone() -> None:
    rows = {"few": {"data": {"keep-labels": {"seg": 0.1, "cls": 0.5}}}}
    made = plan.make(small(rows=rows))
    kept = {
        task: made.runs[ids[0]].recipe["data"]["keep_labels"]
        for task, ids in made.rows[0].single.items()
    }
    assert kept == {"seg": {"seg": 0.1}, "cls": {"cls": 0.5}}


def test_rows_keep_what_they_vary_on_other_data(tmp_path: Path) -> None:
    rows = {"few": {"data": {"keep-labels": {"seg": 0.1}}}}
    smoke = {"options": {"data": {"train": 32}, "backbone": {"width": 8}}}
    made = plan.make(small(rows=rows, smoke=smoke), ["--data.size", "48"], smoke=True)
    recipe = made.runs[only(made)].recipe
    assert recipe["backbone"]["width"] == 8
    data = {"size": 48, "train": 32, "keep_labels": {"seg": 0.1}}
    assert data.items() <= recipe["data"].items()
    words = ["--data", "folder", "--data.root", str(tmp_path)]
    with pytest.raises(ConfigError, match=r"keep_labels in tiny\.yaml, row 'few'"):
        plan.make(small(rows=rows), words)


def test_pretrained_weights_go_to_rows_that_ask_for_them(tmp_path: Path) -> None:
    (tmp_path / "vgg").touch()
    rows = {"new": {}, "old": {"backbone": {"name": "segnet", "pretrained": True}}}
    made = plan.make(small(rows=rows), ["--backbone.pretrained", str(tmp_path / "vgg")])
    given = [made.runs[row.runs[0]].recipe["backbone"]["pretrained"] for row in made.rows]
    assert given == [False, str(tmp_path / "vgg")]
    assert [row.notes for row in made.rows] == [[], []]
    without = plan.make(small(rows=rows))
    assert without.runs[without.rows[1].runs[0]].recipe["backbone"]["pretrained"] is False
    assert without.rows[1].notes == [
        "asks for pretrained weights, got none: trained from scratch",
        "the same runs as 'new'",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lr 1", "--lr is what the rows of tiny.yaml vary"),
        ("--output x", "--output is not for a suite"),
        ("--seed 1", "--seed is not for a suite"),
        ("--epoch 1", "unrecognized arguments: --epoch 1; did you mean --epochs?"),
    ],
)
def test_an_option_that_cannot_be_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan.make(small(rows={"fast": {"lr": 0.1}}), words.split())


def test_a_mistake_in_a_row_names_the_row() -> None:
    with pytest.raises(ConfigError, match=r"epoch in tiny\.yaml, row 'a'"):
        plan.make(small(rows={"a": {"epoch": 3}}))


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = plan.make(small(smoke={"seeds": 2}))
    made.write(tmp_path / "plan.json")
    assert plan.read(tmp_path / "plan.json") == made
