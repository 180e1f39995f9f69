"""Report: a page on one run, or on several compared, from their files alone.

A page is ``report.html``, one file that needs no other and asks nothing of any network, with the
same in ``report.md`` and the numbers in ``results.csv``.
"""

from collections.abc import Callable
from pathlib import Path

from mtlkit.errors import ConfigError

FILES = ("report.html", "report.md", "results.csv")


def write(*folders: Path | str, output: Path | str | None = None) -> Path:
    """Write the report of one run, or of several in comparison; returns where the page is.

    Args:
        folders: of runs, at least one.
        output: folder of the report, made if it is not there; by default the first run's.

    Raises:
        CheckpointError: one is not the folder of a run, or a file in it is damaged.
        ConfigError: the report cannot be written there.
    """
    from mtlkit.report import page, read, several, single  # late: matplotlib

    runs = read.read_runs([Path(folder) for folder in folders])
    content = single.page(runs[0]) if len(runs) == 1 else several.page(runs)
    texts = (page.html(content), page.markdown(content), page.results(runs))
    output = Path(folders[0] if output is None else output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, texts, strict=True):
            (output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the report to {output}: {error.strerror}") from None
    return output / FILES[0]


def write_after(folder: Path | str, say: Callable[[str], None]) -> None:
    """Write the report of a run that ends, however it ends; a failure is said in one line."""
    try:
        say(f"report    {write(folder)}")
    except Exception as error:  # a run is worth more than its report
        say(f"no report was written: {type(error).__name__}: {' '.join(str(error).split())}")
