"""A suite: the YAML file that says which runs answer a question, and what counts in them.

Everything under ``options`` and ``rows`` are options of ``mtlkit train``, checked by mtlkit itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlkit import source
from mtlkit.errors import ConfigError, did_you_mean

HOME = Path(__file__).parent / "suites"
METRIC_WORDS = ("higher", "lower", "shown")

KEYS: dict[str, type] = {
    "title": str, "question": str, "options": Mapping, "rows": Mapping, "metrics": Mapping,
    "target": str, "seeds": int, "baseline": Mapping, "reference": str, "choose": Mapping,
    "published": str, "train": bool, "smoke": Mapping,
}  # fmt: skip
SMOKE_KEYS: dict[str, type] = {"options": Mapping, "seeds": int}
REQUIRED = ("title", "question", "rows")
_KINDS = {str: "text", int: "a whole number", bool: "true or false", Mapping: "a mapping"}

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """What ``--smoke`` lays over a suite.

    Args:
        options: of all rows, stronger than the rows' own.
        seeds: number of them.
    """

    options: Options = field(default_factory=dict)
    seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a YAML file says.

    Args:
        title: of the report.
        question: that the rows answer.
        options: of all rows.
        rows: the options of each, by name.
        metrics: ``TASK/METRIC: higher`` or ``lower`` for what is better; these make Δm. ``shown``
            is printed and does not count in Δm.
        target: the metric of the task that the others should help.
        seeds: number of runs of each row.
        baseline: options that networks for one task each have instead of the row's; ``none`` when
            there are none.
        reference: the row that the others are compared with, beside the single tasks.
        choose: rows of which one stands for all, chosen on val, by the name of the choice.
        published: a table of ``published.yaml`` whose rows are called as here.
        train: false measures what a step costs and trains nothing.
        smoke: what ``--smoke`` changes.
    """

    title: str
    question: str
    options: Options = field(default_factory=dict)
    rows: Mapping[str, Options]
    metrics: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    seeds: int = 6
    baseline: Options | None = field(default_factory=dict)
    reference: str | None = None
    choose: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: str | None = None
    train: bool = True
    smoke: Smoke = field(default_factory=Smoke)
    name: str = ""
    file: str = ""

    @property
    def counted(self) -> dict[str, bool]:
        """Whether higher is better, by each metric that makes Δm."""
        return {
            key: word == "higher"
            for key, word in self.metrics.items()
            if word in ("higher", "lower")
        }


def names() -> list[str]:
    """The suites that come with the project."""
    return sorted(file.stem for file in HOME.glob("*.yaml"))


def read(word: str) -> Suite:
    """A suite by its name, or by the path of its file.

    Raises:
        ConfigError: there is none, or something in it is wrong.
    """
    file = Path(word)
    if file.suffix not in (".yaml", ".yml"):
        if word not in names():
            raise ConfigError(
                f"unknown suite '{word}'{did_you_mean(word, names())}\n"
                f"  available: {', '.join(names())}, or the path of a YAML file"
            )
        file = HOME / f"{word}.yaml"
    return from_mapping(source.read(file), str(file), name=file.stem)


def from_mapping(tree: Mapping[Any, Any], file: str, *, name: str = "") -> Suite:
    """A suite from what its file says.

    Raises:
        ConfigError: something in it is wrong.
    """
    given = _read(tree, KEYS, file)
    if "smoke" in given:
        given["smoke"] = Smoke(**_read(given["smoke"], SMOKE_KEYS, f"smoke in {file}"))
    if given.get("baseline") == "none":
        given["baseline"] = None
    suite = Suite(**given, name=name, file=file)
    _check(suite)
    return suite


def _read(tree: Mapping[Any, Any], keys: Mapping[str, type], where: str) -> dict[str, Any]:
    """The values of a mapping, whose keys are all known, of the right kind and none missing."""
    for key, value in tree.items():
        if key not in keys:
            raise ConfigError(
                f"{where} has an unknown key '{key}'{did_you_mean(str(key), keys)} "
                f"(known: {', '.join(keys)})"
            )
        no_baseline = key == "baseline" and value == "none"
        if not no_baseline and (
            not isinstance(value, keys[key]) or (keys[key] is int and isinstance(value, bool))
        ):
            raise ConfigError(f"{key} in {where} must be {_KINDS[keys[key]]}, but is {value!r}")
    for key in REQUIRED:
        if key in keys and key not in tree:
            raise ConfigError(f"{where} lacks '{key}'")
    return dict(tree)


def _check(suite: Suite) -> None:
    """Refuse what names nothing."""
    where = suite.file
    _need(bool(suite.rows), f"{where} has no rows")
    for row, options in suite.rows.items():
        _need(isinstance(row, str), f"rows in {where}: a name is text, but one is {row!r}")
        _need(
            isinstance(options, Mapping),
            f"row '{row}' in {where} must be a mapping of options of mtlkit train, not {options!r}",
        )
    for seeds, at in ((suite.seeds, where), (suite.smoke.seeds, f"smoke in {where}")):
        _need(seeds >= 1, f"seeds in {at} must be at least 1, but is {seeds}")
    for key, word in suite.metrics.items():
        near = did_you_mean(str(word), METRIC_WORDS)
        _need(
            word in METRIC_WORDS,
            f"metric '{key}' in {where} must be one of {', '.join(METRIC_WORDS)}, "
            f"but is {word!r}{near}",
        )
    if suite.train and suite.baseline is not None:
        _need(bool(suite.counted), f"{where} has baselines, but no metrics that make Δm")
    if suite.target is not None:
        _names(suite.target, suite.metrics, f"target in {where}", "metric")
    if suite.reference is not None:
        _names(suite.reference, suite.rows, f"reference in {where}", "row")
    for choice, rows in suite.choose.items():
        _need(choice not in suite.rows, f"choose in {where}: '{choice}' is the name of a row")
        _need(isinstance(rows, list), f"choose in {where}: '{choice}' must be a list of rows")
        for row in rows:
            _names(row, suite.rows, f"choose in {where}", "row")


def _names(word: str, known: Iterable[str], where: str, what: str) -> None:
    known = list(known)
    _need(word in known, f"{where}: there is no {what} '{word}'{did_you_mean(word, known)}")


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
