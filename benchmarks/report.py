"""Report: what a suite's runs say and what they do not, in plain words and tables.

Reads the plan and the folders of the runs; needs neither the data nor a GPU.
"""

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import context, figures, plan, verdict
from benchmarks.cells import names, p_value, signed, spread, table
from benchmarks.results import LAST_EPOCHS, Line, Results, collect
from benchmarks.verdict import LEVEL, Family
from mtlkit.errors import ConfigError


def write(output: Path) -> None:
    """Write ``report.md``, ``results.csv`` and the pictures.

    Raises:
        ConfigError: no suite was run there.
    """
    file = output / "plan.json"
    if not file.is_file():
        raise ConfigError(f"{output} holds no suite's runs: it has no plan.json")
    results = collect(output, plan.read(file))
    pictures = figures.draw(results, output)
    (output / "report.md").write_text(text(results, pictures), encoding="utf-8")
    with (output / "results.csv").open("w", newline="", encoding="utf-8") as handle:
        rows = list(table_of_runs(results))
        keys = dict.fromkeys(key for row in rows for key in row)
        writer = csv.DictWriter(handle, list(keys))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {output / 'report.md'}")


def text(results: Results, pictures: Sequence[str] = ()) -> str:
    """The report in Markdown."""
    suite = results.plan.suite
    parts = [f"# {suite.title}", suite.question, *_answer(results)]
    parts += [f"![{name}]({name})" for name in pictures]
    parts += context.protocol(results)
    if suite.train:
        parts += [*_scores(results), *_target(results), *_reference(results)]
    parts += [
        *context.costs(results),
        *context.published(results),
        *context.limits(results),
        *context.left_out(results),
    ]
    return "\n\n".join(parts) + "\n"


def _answer(results: Results) -> list[str]:
    """One paragraph: how many lines are better or worse than their single tasks."""
    if results.plan.smoke:
        return [
            "**A smoke test: it shows that every row runs, and says nothing about the rows.** "
            "Budget and network are far too small."
        ]
    lines = verdict.comparable(results.lines)
    if not results.plan.suite.train or not any(line.by_task for line in lines):
        return []
    found = verdict.against_single(results.lines)
    sure = [name for name, p in found.corrected.items() if p < LEVEL]
    better = [
        line.name
        for line in lines
        if line.name in sure and line.by_task and statistics.fmean(line.by_task.values()) > 0
    ]
    known = [line for line in lines if line.by_task]
    ahead = sum(statistics.fmean(line.by_task.values()) > 0 for line in known)
    words = (
        f"**{ahead} of {len(known)} rows that train tasks together are ahead of single-task "
        f"networks by Δm (b); {names(better) if better else 'none'} by more than luck** "
        f"(sign-flip test over seeds, Holm's correction, p < {LEVEL})."
    )
    worse = [name for name in sure if name not in better]
    return [words + (f" Behind by more than luck: {names(worse)}." if worse else "")]


def _scores(results: Results) -> list[str]:
    """Test metrics and both Δm of every line."""
    suite, lines = results.plan.suite, results.lines
    keys = [key for key in suite.metrics if any(key in run.test for x in lines for run in x.ok)]
    found = verdict.against_single(lines)
    deltas = ["Δm (a) ↓", "Δm (b) ↑", "p", "p, Holm"] if suite.baseline is not None else []
    rows = [["row", "seeds", *keys, *deltas]]
    for line in lines:
        cells = [line.name, f"{len(line.ok)} of {len(line.runs)}"]
        cells += [spread([run.test.get(key, math.nan) for run in line.ok], key) for key in keys]
        if deltas:
            forms = (line.flat, line.by_task)
            cells += ["itself"] * 2 if line.is_single else [spread(x.values()) for x in forms]
            cells += [p_value(found.p, line.name), p_value(found.corrected, line.name)]
        rows.append(cells)
    counted = ", ".join(f"`{key}`{'' if higher else ' (lower is better)'}"
                        for key, higher in suite.counted.items())  # fmt: skip
    about = "Means over seeds ± half of a 95 % t interval, on test."
    if deltas:
        about += (
            f" Δm against single-task networks of the same seed, in percent, over {counted}: "
            "(a) mean relative loss over all metrics, lower is better; (b) mean relative gain per "
            "task, then over tasks, higher is better. p: exact sign-flip test of (b). "
            + _power(found, results.plan.seeds)
        )
    single = _single_scores(results, keys)
    return ["## Results", about, table(rows), *_notes(lines), *single]


def _notes(lines: Sequence[Line]) -> list[str]:
    """What the reader must know of rows, each note once."""
    notes: dict[str, list[str]] = {}
    for line in lines:
        undefined = f"no Δm, since a single task scored 0 in {', '.join(line.undefined)}"
        for note in (*line.row.notes, *([undefined] if line.undefined else [])):
            notes.setdefault(note, []).append(line.name)
    if not notes:
        return []
    return ["\n".join(f"- {note}: {names(rows)}" for note, rows in notes.items())]


def _power(found: Family, seeds: int) -> str:
    """What the tests can show at best."""
    if not found.p:
        return "With one seed there is nothing to test."
    tests = len(found.p)
    words = f"With {seeds} seeds p is at least {found.least:.2g}"
    if found.hopeless:
        return (
            f"{words}, after Holm's correction over {tests} rows at least "
            f"{min(1.0, tests * found.least):.2g}: no single row can be called significant here; "
            f"{found.seeds_needed} seeds could."
        )
    return f"{words}, corrected over {tests} rows."


def _single_scores(results: Results, keys: Sequence[str]) -> list[str]:
    """Test metrics of the single-task networks, each once."""
    seen: dict[tuple[str, ...], str] = {}
    for row in results.plan.rows:
        for task, ids in row.single.items():
            seen.setdefault(tuple(ids), task)
    if not seen:
        return []
    rows = [["single task", "backbone", "seeds", *keys]]
    for ids, task in seen.items():
        runs = [results.runs[id] for id in ids]
        ok = [run for run in runs if run.status == "ok"]
        backbone = context.chosen(runs[0].planned.recipe["backbone"])
        cells = [spread([run.test.get(key, math.nan) for run in ok], key) for key in keys]
        rows.append([task, backbone, f"{len(ok)} of {len(runs)}", *cells])
    return ["### Single-task networks", table(rows)]


def _target(results: Results) -> list[str]:
    """The metric that the other tasks should help, and how it was chosen."""
    target = results.plan.suite.target
    if target is None or results.plan.suite.baseline is None:
        return []
    found = verdict.target_against_single(results.lines, target)
    rows = [["row", "test", "less single task", "p", "p, Holm", "val, chosen", "val, last epochs"]]
    for line in results.lines:
        if not any(target in run.test for run in line.ok):
            continue
        splits = [[run.test[target] for run in line.ok], [run.val[target] for run in line.ok]]
        last = [run.last[target] for run in line.ok]
        gain = list(line.gain(target).values())
        rows.append([
            line.name, spread(splits[0], target), signed(gain), p_value(found.p, line.name),
            p_value(found.corrected, line.name), spread(splits[1], target), spread(last, target),
        ])  # fmt: skip
    about = (
        f"Differences are paired by seed. Last epochs: the mean over the last third of the "
        f"evaluations on val, {LAST_EPOCHS} at most. A gap between it and the chosen checkpoint is "
        "what choosing alone gives."
    )
    return [f"## The target task: `{target}`", about, table(rows)]


def _reference(results: Results) -> list[str]:
    """Every line against one row."""
    suite = results.plan.suite
    reference = next((x for x in results.lines if x.name == suite.reference), None)
    if reference is None:
        return []
    what = f"`{suite.target}`" if suite.target else "Δm (b)"
    differences = verdict.differences(results.lines, reference, suite.target)
    found = verdict.family(differences)
    rows = [[f"row, less '{reference.name}'", f"{what} ↑", "p", "p, Holm"]]
    for line in results.lines:
        if line.name in differences:
            values = differences[line.name]
            rows.append(
                [
                    line.name,
                    signed(values),
                    p_value(found.p, line.name),
                    p_value(found.corrected, line.name),
                ]
            )
    power = _power(found, results.plan.seeds)
    about = f"In {what} on test, paired by seed. {power}"
    return [f"## Against '{reference.name}'", about, table(rows)]


def table_of_runs(results: Results) -> Iterable[dict[str, Any]]:
    """One row for each run of each line and each single task, for ``results.csv``."""
    deltas = {
        run.planned.id: {"delta_a": line.flat.get(seed), "delta_b": line.by_task.get(seed)}
        for line in results.lines
        for seed, pair in line.pairs.items()
        for run in [pair.run]
    }
    for id, run in results.runs.items():
        row = {"row": run.planned.row, "seed": run.planned.seed, "status": run.status,
               "error": run.error, "folder": run.planned.folder}  # fmt: skip
        scores = {f"{split}/{k}": v for split in ("test", "val") for k, v in
                  getattr(run, split).items()}  # fmt: skip
        cost: dict[str, Any] = {}
        if run.cost:
            cost = {key: value for key, value in run.cost.items() if key != "step_seconds"}
            cost["step_seconds"] = context.step_seconds(run)
        yield {**row, **deltas.get(id, {}), **scores, "seconds": run.seconds, **cost}
