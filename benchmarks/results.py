"""Results: what the runs of a plan gave, and each row against its single tasks, seed by seed."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.plan import NO_RESULT, Plan, Planned, Row
from benchmarks.runner import failure
from mtlkit import source
from mtlkit.report.compare import Scores, delta_by_task, delta_flat

LAST_EPOCHS = 10
"""Evaluations on val whose mean is given beside the chosen one, and at most a third of them."""


@dataclass(frozen=True)
class Result:
    """One run.

    Args:
        planned: what was asked for.
        status: ``ok``, ``failed`` or ``missing``.
        error: why it failed, or what is missing.
        test: of the checkpoint that val chose, by metric.
        val: of the same.
        last: means over the last evaluations on val.
        seconds: of training, evaluation included.
        versions: of packages, and the device.
        commit: of the code, if known.
        cost: what the worker measured.
    """

    planned: Planned
    status: str = "missing"
    error: str = "not run yet"
    test: Scores = field(default_factory=dict)
    val: Scores = field(default_factory=dict)
    last: Scores = field(default_factory=dict)
    seconds: float = math.nan
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)


def load(folder: Path, planned: Planned) -> Result:
    """The result of a run from its folder, whatever state that is in."""
    failed = failure(folder)
    if failed is not None:
        return Result(planned, "failed", failed["error"])
    if not (folder / "cost.json").is_file():
        return Result(planned, error="interrupted" if folder.is_dir() else "not run yet")
    cost = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
    if not planned.train:
        return Result(planned, "ok", "", cost=cost)
    try:
        return _trained(folder, planned, cost)
    except (OSError, ValueError, KeyError) as error:
        return Result(planned, "failed", f"its files cannot be read: {error}")


def _trained(folder: Path, planned: Planned, cost: Mapping[str, Any]) -> Result:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    env = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    if differing := _differing(planned.recipe, source.read(folder / "config.yaml")):
        return Result(planned, "failed", f"its folder holds another recipe: {differing}")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    history = [line for line in map(json.loads, lines) if line["split"] == "val"]
    last = history[-max(1, min(LAST_EPOCHS, len(history) // 3)) :]
    return Result(
        planned,
        results["status"],
        "",
        test=_numbers(results["test"]),
        val=_numbers(results["val"]),
        last={key: _mean([line.get(key) for line in last]) for key in results["val"]},
        seconds=results["seconds"],
        versions={**env["versions"], "python": env["python"], "device": env["device"]},
        commit=env["commit"],
        cost=cost,
    )


def _differing(planned: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The options in which a run's own configuration is not the planned one."""
    return ", ".join(
        key
        for key, value in planned.items()
        if key not in NO_RESULT and _plain(found.get(key)) != _plain(value)
    )


def _plain(tree: Any) -> str:
    """For comparing: numbers that YAML wrote as text are alike."""
    if isinstance(tree, Mapping):
        return str({key: _plain(value) for key, value in sorted(tree.items())})
    if isinstance(tree, list | tuple):
        return str([_plain(value) for value in tree])
    try:
        return str(float(tree))
    except (TypeError, ValueError):
        return str(tree)


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """``null`` in JSON stands for a number that is none."""
    return {key: math.nan if value is None else value for key, value in values.items()}


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else math.nan


@dataclass(frozen=True)
class Pair:
    """A run and the runs that train its tasks alone, with the same seed."""

    run: Result
    single: Mapping[str, Result]

    def delta(self, directions: Mapping[str, bool], split: str = "test") -> tuple[float, float]:
        """Δm in the forms (a) and (b); NaN where a single task scored 0."""
        values: Scores = getattr(self.run, split)
        base = {key: getattr(self.single[key.partition("/")[0]], split)[key] for key in directions}
        return (
            delta_flat(values, base, directions),
            delta_by_task(values, base, directions),
        )


@dataclass(frozen=True)
class Line:
    """What the report says of a row.

    Args:
        row: as planned.
        runs: one for each seed, also those that failed.
        pairs: those that can be compared, by seed.
        refused: why others cannot.
        counted: the metrics that make its Δm, and whether higher is better.
        candidate: one of those among which another line was chosen.
    """

    row: Row
    runs: Sequence[Result]
    pairs: Mapping[int, Pair]
    refused: Sequence[str]
    counted: Mapping[str, bool]
    candidate: bool = False

    @property
    def name(self) -> str:
        """Of the row."""
        return self.row.name

    @property
    def ok(self) -> list[Result]:
        """The runs that ended well."""
        return [run for run in self.runs if run.status == "ok"]

    @property
    def is_single(self) -> bool:
        """Whether it is its own baseline."""
        return any(list(ids) == list(self.row.runs) for ids in self.row.single.values())

    @cached_property
    def flat(self) -> dict[int, float]:
        """Δm in form (a) by seed."""
        return _known({seed: pair.delta(self.counted)[0] for seed, pair in self.pairs.items()})

    @cached_property
    def by_task(self) -> dict[int, float]:
        """Δm in form (b) by seed."""
        return _known({seed: pair.delta(self.counted)[1] for seed, pair in self.pairs.items()})

    @cached_property
    def by_task_on_val(self) -> dict[int, float]:
        """The same on val, by which lines may be chosen."""
        pairs = self.pairs.items()
        return _known({seed: pair.delta(self.counted, "val")[1] for seed, pair in pairs})

    @property
    def undefined(self) -> list[str]:
        """The metrics in which a single task scored 0, so that nothing is relative to it."""
        return sorted(
            {
                key
                for pair in self.pairs.values()
                for key in self.counted
                if pair.single[key.partition("/")[0]].test[key] == 0
            }
        )

    def gain(self, metric: str) -> dict[int, float]:
        """Of one metric over the single task, by seed."""
        task = metric.partition("/")[0]
        return _known(
            {
                seed: pair.run.test[metric] - pair.single[task].test[metric]
                for seed, pair in self.pairs.items()
                if metric in pair.run.test and task in pair.single
            }
        )


def _known(values: Mapping[int, float]) -> dict[int, float]:
    return {key: value for key, value in values.items() if not math.isnan(value)}


@dataclass(frozen=True)
class Results:
    """Everything a report is written from."""

    plan: Plan
    runs: Mapping[str, Result]
    lines: Sequence[Line]
    strangers: Sequence[str]


def collect(output: Path, plan: Plan) -> Results:
    """Read all runs of a plan and put each beside its single tasks."""
    folder = output / "runs"
    runs = {id: load(folder / planned.folder, planned) for id, planned in plan.runs.items()}
    lines = [_line(row, runs, plan.suite.counted) for row in plan.rows]
    for choice, names in plan.suite.choose.items():
        lines = _with_choice(lines, choice, names)
    planned = {run.folder for run in plan.runs.values()}
    found = {path.name for path in folder.glob("*") if path.is_dir()}
    return Results(plan, runs, lines, sorted(found - planned))


def _line(row: Row, runs: Mapping[str, Result], counted: Mapping[str, bool]) -> Line:
    mine = [runs[id] for id in row.runs]
    pairs, refused = {}, []
    for number, run in enumerate(mine):
        if run.status != "ok" or not row.single:
            continue
        single = {task: runs[ids[number]] for task, ids in row.single.items()}
        reasons = list(_reasons(run, single))
        refused += [f"seed {run.planned.seed}: {reason}" for reason in reasons]
        if not reasons:
            pairs[run.planned.seed] = Pair(run, single)
    tasks = {key: higher for key, higher in counted.items() if key.partition("/")[0] in row.single}
    return Line(row, mine, pairs, list(dict.fromkeys(refused)), tasks)


def _reasons(run: Result, single: Mapping[str, Result]) -> Iterable[str]:
    """Why a run cannot be held against its single tasks."""
    for task, other in single.items():
        if other.status != "ok":
            yield f"the single task {task} {_state(other)}"
        elif other.versions != run.versions:
            keys = run.versions.keys() | other.versions.keys()
            differ = sorted(k for k in keys if run.versions.get(k) != other.versions.get(k))
            yield f"the single task {task} ran with another {', '.join(differ)}"


def _state(result: Result) -> str:
    return "failed" if result.status == "failed" else "is missing"


def _with_choice(lines: Sequence[Line], choice: str, names: Sequence[str]) -> list[Line]:
    """The lines, with the one of ``names`` that was best on val under the name of the choice."""
    candidates = [line for line in lines if line.name in names]
    marked = [replace(line, candidate=line.name in names) for line in lines]
    scored = [line for line in candidates if line.by_task_on_val]
    if not scored:
        return marked
    best = max(scored, key=lambda line: statistics.fmean(line.by_task_on_val.values()))
    note = f"'{best.name}', the best of {len(candidates)} on val"
    return [*marked, replace(best, row=replace(best.row, name=choice, notes=[note]))]
