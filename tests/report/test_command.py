"""``mtlkit report``, and the report that every run leaves."""

import subprocess
import sys
from pathlib import Path

import pytest
from run_files import make_run

from mtlkit import report
from mtlkit.cli import main
from mtlkit.errors import ConfigError


def test_one_run_is_reported_in_its_folder_and_several_where_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", seed=1)
    for words, place in (
        ("a", "a"), ("a a", "a"), ("a b", "report"), ("a b -o c/d", "c/d"), ("b --output e", "e")
    ):  # fmt: skip
        assert main(["report", *words.split()]) == 0
        assert capsys.readouterr().out == f"{place}/report.html\n"
        assert all((tmp_path / place / name).stat().st_size for name in report.FILES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: RUN"),
        (["no"], "no is not the folder of a run: it has no config.yaml"),
        (["a", "-o", "a/config.yaml/x"], "cannot write the report to a/config.yaml/x: Not a dir"),
    ],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a")
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mtlkit report: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "a", pictures=["p"])
    code = (
        "import sys\nfrom mtlkit.cli import main\n"
        f"assert main(['report', {str(tmp_path / 'a')!r}]) == 0\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_a_report_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    said: list[str] = []
    report.write_after(make_run(tmp_path / "a"), said.append)
    assert said == [f"report    {tmp_path / 'a' / 'report.html'}"]
    (tmp_path / "a" / "results.json").write_text("{")
    report.write_after(tmp_path / "a", said.append)
    assert len(said) == 2
    assert said[1].startswith("no report was written: CheckpointError: cannot read ")


def test_a_report_is_written_where_it_can_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the report to "):
        report.write(make_run(tmp_path / "a"), output=tmp_path / "a" / "config.yaml")
