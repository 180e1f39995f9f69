"""Which runs belong together, what tells groups apart, and what is held against what."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from run_files import make_run, scores

from mtlkit.report.delta import against_first, against_single_tasks
from mtlkit.report.group import group
from mtlkit.report.read import Read, read_runs


def runs(folder: Path, *given: dict[str, Any]) -> list[Read]:
    return read_runs([make_run(folder / f"run{i}", **x) for i, x in enumerate(given)])


def labels(found: Sequence[Any]) -> list[str]:
    return [g.label for g in found]


SINGLES = [{"ids": (id,), "seed": seed} for seed in (0, 1) for id in ("seg", "bbox")]


def test_runs_that_differ_only_in_seed_and_place_are_one_group(tmp_path: Path) -> None:
    found = group(runs(tmp_path, {"seed": 0}, {"seed": 1, "workers": 4, "log_every": 2}))
    assert labels(found) == ["all runs"]
    assert list(found[0].by_seed) == [0, 1]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {"balancer": {"name": "cagrad", "c": 0.4}}, ["equal", "cagrad"]),
        ({}, {"lr": 0.01}, ["lr default", "lr 0.01"]),
        ({"balancer": {"name": "cagrad", "c": 0.4}}, {"balancer": {"name": "cagrad", "c": 0.2}},
         ["c 0.4", "c 0.2"]),
        ({}, {"data": {"name": "shapes", "size": 32}}, ["size 64", "size 32"]),
        ({}, {"about": {"samples": {"train": 5}}},
         ["64 train samples, 60 val samples, 70 test samples",
          "5 train samples, no val samples, no test samples"]),
        ({"ids": ("seg",)}, {}, ["seg + bbox", "seg alone"]),
        ({"ids": ("seg",)}, {"balancer": {"name": "cagrad"}}, ["seg + bbox", "seg alone"]),
    ],
)  # fmt: skip
def test_groups_are_called_by_what_tells_them_apart(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], expected: list[str]
) -> None:
    assert labels(group(runs(tmp_path, one, other))) == expected


def test_delta_is_of_each_seed_against_single_tasks_of_that_seed(tmp_path: Path) -> None:
    base = scores(miou=0.5, f1=0.5, l2=40.0, iou=0.5)
    worse = scores(miou=0.25, f1=0.25, l2=80.0, iou=0.25)
    singles = [{**x, "test": base if x["seed"] == 0 else worse} for x in SINGLES]
    better = scores(miou=0.55, f1=0.5, l2=36.0, iou=0.5)  # gains 10 and 0, 10 and 0
    half = scores(miou=0.25, f1=0.25, l2=80.0, iou=0.5)  # gains 0 and 0, 0 and 100
    given = [{"seed": 0, "test": better}, {"seed": 1, "test": half}, *singles]
    found = against_single_tasks(group(runs(tmp_path, *given)))
    (delta,) = found.deltas
    assert delta.paired
    assert delta.by_task == [(0, pytest.approx(5)), (1, pytest.approx(25))]
    assert delta.flat == [(0, pytest.approx(-5)), (1, pytest.approx(-25))]
    assert delta.p_by_task == delta.p_flat == found.least_p == 0.5
    assert found.notes == []


def test_seeds_that_no_single_task_has_are_held_against_means_and_not_tested(
    tmp_path: Path,
) -> None:
    singles = [{**x, "test": scores(miou=0.4 + 0.2 * x["seed"])} for x in SINGLES]
    found = against_single_tasks(group(runs(tmp_path, {"seed": 7, "test": scores()}, *singles)))
    (delta,) = found.deltas
    assert not delta.paired
    assert delta.by_task == [(7, pytest.approx(0))]
    assert delta.p_by_task is None
    assert "have no seed in common: Δm is against their means" in found.notes[0]


def test_a_seed_without_single_tasks_is_left_out_and_named(tmp_path: Path) -> None:
    given = [{"seed": s} for s in (0, 1, 2)]
    found = against_single_tasks(group(runs(tmp_path, *given, *SINGLES)))
    assert [seed for seed, _ in found.deltas[0].flat] == [0, 1]
    assert found.notes == ["Δm of seg + bbox is without seed 2: no single tasks of it."]


@pytest.mark.parametrize(
    "other", [{"lr": 0.5}, {"data": {"name": "shapes", "size": 32}}, {"finished": False},
              {"about": {"samples": {"train": 9}}}, {"image_size": 32}]
)  # fmt: skip
def test_a_single_task_of_another_recipe_is_no_base_and_what_is_missing_is_said(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    given = [{}, {"ids": ("seg",)}, {"ids": ("bbox",), **other}]
    found = against_single_tasks(group(runs(tmp_path, *given)))
    assert found.deltas == []
    assert "there is no finished run of bbox alone with the same recipe" in found.notes[0]


def test_how_a_single_task_is_balanced_makes_no_other_recipe(tmp_path: Path) -> None:
    given = [{"balancer": {"name": "cagrad", "c": 0.4}, "heads": "raw"}, *SINGLES]
    assert len(against_single_tasks(group(runs(tmp_path, *given))).deltas) == 1


def test_a_metric_without_a_number_is_left_out_of_delta_and_named(tmp_path: Path) -> None:
    given = [{"test": {**scores(), "seg/f1": None}}, *SINGLES]
    found = against_single_tasks(group(runs(tmp_path, *given)))
    assert found.deltas[0].flat == [(0, 0.0)]
    assert "is without seg/f1" in found.notes[0]


def test_differences_to_the_first_group_are_by_seed_and_only_on_the_same_data(
    tmp_path: Path,
) -> None:
    given = [{"seed": s, "test": scores(miou=0.1 * s)} for s in (1, 2)]
    given += [{"seed": s, "lr": 0.5, "test": scores(miou=0.1 * s + 0.05)} for s in (1, 2, 3)]
    given += [{"seed": 1, "lr": 0.7, "image_size": 32, "about": {"image_size": [32, 32]}}]
    found = against_first(group(runs(tmp_path, *given)))
    assert [(d.key, d.pairs) for d in found] == [("seg/miou", 2), ("bbox/iou", 2)]
    assert {d.label for d in found} == {"image-size default, lr 0.5"}
    assert found[0].interval.mean == pytest.approx(0.05)
    assert [d.p for d in found] == [1.0, 1.0]  # 0.5 and 1, corrected


def test_of_two_runs_with_one_seed_the_last_counts(tmp_path: Path) -> None:
    (g,) = group(runs(tmp_path, {"test": scores(miou=0.1)}, {"test": scores(miou=0.2)}))
    assert g.values("seg/miou") == [(0, 0.2)]
