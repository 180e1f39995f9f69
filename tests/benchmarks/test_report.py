"""What a report says of runs, worked out by hand, and that it hides none."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stand_in import command, planned, tiny_plan, tiny_suite, write_run

from benchmarks import report, runner
from benchmarks.plan import Plan, Planned, Row
from benchmarks.results import collect
from mtlkit.errors import ConfigError

BASE = {"seg/miou": 0.5, "cls/accuracy": 0.8}


def fill(plan: Plan, output: Path, gains: dict[str, float] | None = None) -> None:
    """All runs; those of a row score more than the single tasks by its gain, and by the seed."""
    output.mkdir(exist_ok=True)
    plan.write(output / "plan.json")
    for run in plan.runs.values():
        gain = (gains or {}).get(run.row, 0.0) * (1 + run.seed / 10)
        scores = {key: value * (1 + gain) for key, value in BASE.items()}
        write_run(output / "runs" / run.folder, run.recipe, scores)


def written(output: Path) -> str:
    report.write(output)
    return (output / "report.md").read_text(encoding="utf-8")


def row(text: str, name: str, heading: str) -> list[str]:
    """The cells of a row in the first table after a heading."""
    part = text.split(heading)[1]
    line = next(line for line in part.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_row_is_held_against_single_tasks_of_the_same_seed(tmp_path: Path) -> None:
    plan = tiny_plan(6)
    fill(plan, tmp_path, {"both": 0.1, "other": -0.2})
    both, other = collect(tmp_path, plan).lines
    assert both.by_task == pytest.approx({seed: 10 + seed for seed in range(6)})
    assert other.flat == pytest.approx({seed: 20 + 2 * seed for seed in range(6)})
    assert both.gain("seg/miou") == pytest.approx({s: 0.05 + s / 200 for s in range(6)})
    text = written(tmp_path)
    # the mean of 10 ... 15, and 2.5706 x 1.8708 / sqrt(6); p = 2 / 2^6, and Holm's times 2 and 1
    assert row(text, "both", "## Results")[-4:] == ["-12.5 ± 2.0", "+12.5 ± 2.0", "0.031", "0.062"]
    assert "1 of 2 rows that train tasks together are ahead" in text
    assert "none by more than luck" in text
    assert "no single row can be called significant here; 7 seeds could" in text


def test_a_row_is_called_better_only_when_luck_cannot_do_it(tmp_path: Path) -> None:
    fill(tiny_plan(7), tmp_path, {"both": 0.1, "other": -0.2})
    text = written(tmp_path)
    assert "'both' by more than luck" in text
    assert "Behind by more than luck: 'other'." in text


def test_a_failed_run_is_in_the_report_and_its_seed_is_left_out(tmp_path: Path) -> None:
    plan = tiny_plan(2)
    code = runner.run(plan, tmp_path, command=command(tmp_path / "log", fails=["other"]))
    assert code == runner.RUNS_FAILED
    text = written(tmp_path)
    assert "## Runs without a result: 2 of 8" in text
    assert "| other | 0 | failed | no such thing |" in text
    assert row(text, "other", "## Results")[1] == "0 of 2"
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        found = {(line["row"], line["seed"]): line["status"] for line in csv.DictReader(file)}
    assert found["other", "1"] == "failed"
    assert len(found) == 8


def test_without_a_single_task_there_is_no_comparison_and_it_says_why(tmp_path: Path) -> None:
    plan = tiny_plan(2)
    fill(plan, tmp_path, {"both": 0.1})
    single = plan.runs[plan.rows[0].single["cls"][1]]
    (tmp_path / "runs" / single.folder / "failed.json").write_text('{"error": "boom"}')
    assert "- both: seed 1: the single task cls failed" in written(tmp_path)
    assert collect(tmp_path, plan).lines[0].by_task.keys() == {0}


def test_a_run_not_begun_and_one_interrupted_are_missing(tmp_path: Path) -> None:
    plan = tiny_plan(1)
    plan.write(tmp_path / "plan.json")
    (tmp_path / "runs" / plan.runs[plan.rows[0].runs[0]].folder).mkdir(parents=True)
    text = written(tmp_path)
    assert "| both | 0 | missing | interrupted |" in text
    assert "| other | 0 | missing | not run yet |" in text


def test_runs_of_other_versions_are_not_compared(tmp_path: Path) -> None:
    plan = tiny_plan(1)
    fill(plan, tmp_path, {"both": 0.1})
    folder = tmp_path / "runs" / plan.runs[plan.rows[0].single["seg"][0]].folder
    env = json.loads((folder / "env.json").read_text())
    (folder / "env.json").write_text(
        json.dumps({**env, "versions": {"torch": "3"}, "device": "cuda"})
    )
    assert "- both: seed 0: the single task seg ran with another device, mtlkit, torch" in written(
        tmp_path
    )
    assert collect(tmp_path, plan).lines[0].by_task == {}


def test_a_folder_with_another_recipe_counts_as_failed(tmp_path: Path) -> None:
    plan = tiny_plan(1)
    fill(plan, tmp_path)
    run = plan.runs[plan.rows[0].runs[0]]
    write_run(tmp_path / "runs" / run.folder, {**run.recipe, "lr": 0.002})
    assert "| both | 0 | failed | its folder holds another recipe: lr |" in written(tmp_path)


def test_numbers_that_yaml_wrote_otherwise_are_the_same_recipe(tmp_path: Path) -> None:
    plan = tiny_plan(1)
    fill(plan, tmp_path)
    run = plan.runs[plan.rows[0].runs[0]]
    write_run(tmp_path / "runs" / run.folder, {**run.recipe, "lr": "1e-3"})
    assert collect(tmp_path, plan).lines[0].ok


def test_runs_of_an_earlier_recipe_are_named_and_count_nowhere(tmp_path: Path) -> None:
    fill(tiny_plan(1), tmp_path)
    stranger = planned("both", 0, lr=0.1)
    write_run(tmp_path / "runs" / stranger.folder, stranger.recipe)
    text = written(tmp_path)
    assert "Runs of an earlier recipe" in text
    assert f"`{stranger.folder}`" in text


def test_nothing_is_relative_to_a_single_task_that_scored_0(tmp_path: Path) -> None:
    plan = tiny_plan(1)
    fill(plan, tmp_path)
    single = plan.runs[plan.rows[0].single["cls"][0]]
    write_run(tmp_path / "runs" / single.folder, single.recipe, {"cls/accuracy": 0.0})
    text = written(tmp_path)
    assert "no Δm, since a single task scored 0 in cls/accuracy: 'both', 'other'" in text
    assert row(text, "both", "## Results")[-4:] == ["-"] * 4


def test_a_row_is_chosen_on_val_and_not_on_test(tmp_path: Path) -> None:
    plan = tiny_plan(2, choose={"tuned": ["both", "other"]})
    fill(plan, tmp_path, {"both": 0.1, "other": 0.2})
    for id in plan.rows[0].runs:  # better on val, worse on test
        file = tmp_path / "runs" / plan.runs[id].folder / "results.json"
        results: dict[str, Any] = json.loads(file.read_text())
        results["val"] = {key: 2 * value for key, value in BASE.items()}
        file.write_text(json.dumps(results))
    text = written(tmp_path)
    assert "'both', the best of 2 on val: 'tuned'" in text
    assert row(text, "tuned", "## Results")[4:6] == row(text, "both", "## Results")[4:6]
    assert row(text, "both", "## Results")[-1] == "-", "a candidate is not tested"
    assert row(text, "tuned", "## Results")[-1] == "0.500"


def test_rows_are_held_against_a_reference(tmp_path: Path) -> None:
    fill(tiny_plan(2, reference="other"), tmp_path, {"both": 0.1, "other": 0.3})
    text = written(tmp_path)
    # in seg/miou 0.05 x (1, 1.1) less 0.15 x (1, 1.1), and 12.706 x 0.00707 / sqrt(2)
    assert row(text, "both", "## Against 'other'")[1] == "-0.105 ± 0.064"


def test_a_smoke_test_makes_no_claims(tmp_path: Path) -> None:
    plan = tiny_plan(1)
    fill(Plan(**{**vars(plan), "smoke": True}), tmp_path, {"both": 0.1})
    text = written(tmp_path)
    assert "A smoke test" in text
    assert "ahead of single-task" not in text


def test_published_rows_stand_beside_ours(tmp_path: Path) -> None:
    single = planned("SegNet, 1 task", 0)
    suite = tiny_suite(rows={"SegNet, 1 task": {}}, published="table1")
    plan = Plan(
        suite, False, "", "0.1.0", 1, [Row("SegNet, 1 task", [single.id])], {single.id: single}
    )
    fill(plan, tmp_path)
    text = written(tmp_path)
    assert row(text, "SegNet, 1 task", "## Published beside ours")[1:3] == ["0.775", "0.500"]
    assert "A. Pushilal et al." in text


def test_costs_are_shown_where_nothing_is_trained(tmp_path: Path) -> None:
    run = Planned("0" * 32, "1 task", 0, {}, train=False)
    suite = replace(tiny_suite(rows={"1 task": {}}), train=False, metrics={}, target=None)
    plan = Plan(suite, False, "", "0.1.0", 1, [Row("1 task", [run.id])], {run.id: run})
    fill(plan, tmp_path)
    text = written(tmp_path)
    assert row(text, "1 task", "## Cost") == [
        "1 task",
        "200.0",
        "1",
        "1024",
        "7",
        "1.000",
        "-",
        "-",
    ]
    assert "## Results" not in text
    assert (tmp_path / "cost.png").is_file()


def test_pictures_are_drawn_where_there_is_something_to_compare(tmp_path: Path) -> None:
    fill(tiny_plan(6), tmp_path, {"both": 0.1, "other": -0.2})
    text = written(tmp_path)
    for name in ("delta.png", "cost.png"):
        assert f"![{name}]({name})" in text
        assert (tmp_path / name).stat().st_size > 10_000


def test_a_folder_without_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no suite's runs: it has no plan\.json"):
        report.write(tmp_path)
