"""The command line of the benchmarks."""

from pathlib import Path

import pytest
from stand_in import tiny_plan

from benchmarks import __main__, plan, runner


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rnu table1", "unknown command 'rnu'; did you mean 'run'?"),
        ("run --output x", "run needs a suite first"),
        ("report", "report needs a folder first"),
        ("report x y", "unrecognized arguments: y"),
        ("run table1", "run needs --output DIR"),
        ("run table1 --output", "run needs --output DIR"),
        ("run table1 --output x --smoke 3", "--smoke takes no value, but got '3'"),
        ("run table1 --output x --jobs 0", "--jobs expects a whole number above 0, but got '0'"),
        ("run tabel1 --output x", "unknown suite 'tabel1'; did you mean 'table1'?"),
        ("report nowhere", "nowhere holds no suite's runs"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main(words.split()) == 2
    assert capsys.readouterr().err.startswith(f"benchmarks: error: {message}")


def test_the_suites_are_listed_with_what_they_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "table1      What do sharing, attention" in printed
    assert len(printed.splitlines()) == 5


def test_a_run_ends_with_a_report_and_says_what_it_did_not_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, object] = {}

    def make(suite: object, words: object, **options: object) -> plan.Plan:
        asked.update(options, words=words)
        made = tiny_plan(1)
        row = plan.Row("both", made.rows[0].runs, made.rows[0].single, ["trained from scratch"])
        return plan.Plan(**{**vars(made), "rows": [row]})

    def run(made: plan.Plan, output: Path, jobs: int) -> int:
        asked["jobs"] = jobs
        output.mkdir()
        made.write(output / "plan.json")
        return runner.RUNS_FAILED

    monkeypatch.setattr(plan, "make", make)
    monkeypatch.setattr(runner, "run", run)
    words = ["run", "table1", "--output", str(tmp_path / "out"), "--smoke", "--jobs", "3"]
    assert __main__.main([*words, "--seeds", "2", "--image-size", "48"]) == 4
    assert "note: both: trained from scratch" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.md").is_file()
    assert (asked["smoke"], asked["seeds"], asked["jobs"]) == (True, 2, 3)
    assert asked["words"] == ["--image_size=48"]
    assert asked["command"] == "python -m benchmarks " + " ".join(
        [*words, "--seeds", "2", "--image-size", "48"]
    )
