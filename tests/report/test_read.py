"""Reading runs: whole, cut off, damaged, or none at all."""

from pathlib import Path

import pytest
from run_files import make_run, scores

from mtlkit.errors import CheckpointError
from mtlkit.report.read import read_runs


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name) for name in ("a/x", "b/x", "c")]
    assert [run.name for run in read_runs(paths)] == ["a/x", "b/x", f"{tmp_path.name}/c"]
    assert [run.name for run in read_runs(paths[:1])] == ["x"]


def test_a_run_that_is_given_twice_is_read_once(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x")
    assert len(read_runs([path, path / ".." / "x"])) == 1


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    file = make_run(tmp_path / "x", finished=False) / "metrics.jsonl"
    file.write_text(file.read_text() + '{"step": 9, "ep')
    (run,) = read_runs([tmp_path / "x"])
    assert (len(run.lines), run.steps, run.status) == (4, 4, "unfinished")


@pytest.mark.parametrize("name", ["results.json", "about.json", "metrics.jsonl", "env.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = make_run(tmp_path / "x")
    (path / name).write_text("{[\n")
    with pytest.raises(CheckpointError, match=f"^cannot read .*x/{name}: "):
        read_runs([path])


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not the folder of a run: it has no config"):
        read_runs([tmp_path])


def test_the_best_evaluation_of_an_unfinished_run_is_found_as_the_run_would(
    tmp_path: Path,
) -> None:
    val = [scores(miou=0.2, l2=9.0), scores(miou=0.9, l2=50.0), scores(miou=0.1, l2=5.0)]
    make_run(tmp_path / "mean", finished=False, val=val)
    make_run(tmp_path / "l2", finished=False, val=val, monitor="bbox/l2")
    mean, l2 = read_runs([tmp_path / "mean", tmp_path / "l2"])
    assert (mean.best["epoch"], l2.best["epoch"]) == (1, 2)


def test_a_run_from_before_there_was_an_about_file_is_read(tmp_path: Path) -> None:
    (make_run(tmp_path / "x") / "about.json").unlink()
    (run,) = read_runs([tmp_path / "x"])
    assert run.primary == {"seg": "seg/miou", "bbox": "bbox/l2"}
    assert set(run.signs.values()) == {0}
