"""Report: what a suite's runs say and what they do not, in plain words and tables.

Reads the plan and the folders of the runs; needs neither the data nor a GPU.
"""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import figures, plan, verdict
from benchmarks.compare import interval
from benchmarks.results import LAST_EPOCHS, Line, Result, Results, collect
from benchmarks.verdict import LEVEL, Family
from mtlkit.errors import ConfigError

PUBLISHED = Path(__file__).parent / "published.yaml"
PROTOCOL = (
    "data", "image_size", "epochs", "max_steps", "batch_size", "optimizer", "lr", "scheduler",
    "weight_decay", "augment", "monitor", "precision",
)  # fmt: skip
MIB = 2**20


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
    parts += _protocol(results)
    if suite.train:
        parts += [*_scores(results), *_target(results), *_reference(results)]
    parts += [*_costs(results), *_published(results), *_limits(results), *_left_out(results)]
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
    better = [line.name for line in lines if line.name in sure and _mean(line.by_task) > 0]
    ahead = sum(_mean(line.by_task) > 0 for line in lines)
    known = sum(bool(line.by_task) for line in lines)
    words = (
        f"**{ahead} of {known} rows that train tasks together are ahead of single-task networks "
        f"by Δm (b); {_names(better) if better else 'none'} by more than luck** "
        f"(sign-flip test over seeds, Holm's correction, p < {LEVEL})."
    )
    worse = [name for name in sure if name not in better]
    return [words + (f" Behind by more than luck: {_names(worse)}." if worse else "")]


def _protocol(results: Results) -> list[str]:
    """What all runs have in common."""
    made = results.plan
    recipes = [run.recipe for run in made.runs.values()]
    lines = [f"- command: `{made.command}`", f"- seeds: {made.seeds}, from 0, of every row"]
    for key in PROTOCOL:
        values = list(dict.fromkeys(_plain(recipe.get(key)) for recipe in recipes))
        shown = values[0] if len(values) == 1 else f"differs: {', '.join(values[:6])}"
        if shown not in ("None", "0"):
            lines.append(f"- {key.replace('_', ' ')}: {shown}")
    ok = [run for run in results.runs.values() if run.status == "ok"]
    versions = {f"{k} {v}" for run in ok for k, v in run.versions.items()}
    commits = {run.commit for run in ok if run.commit}
    threads = {str(run.cost["threads"]) for run in ok}
    lines.append(
        f"- versions and device: {', '.join(sorted(versions)) or f'mtlkit {made.version}'}"
    )
    lines.append(f"- commit: {', '.join(sorted(commits)) or 'unknown'}; CPU threads of a run: "
                 f"{', '.join(sorted(threads)) or 'unknown'}")  # fmt: skip
    if made.suite.train:
        lines.append(
            "- the checkpoint is chosen on val; test is evaluated once, at the end. Single-task "
            "networks have the same recipe, budget and seeds, and plain sums for balancer"
        )
    return ["## What was run", "\n".join(lines)]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        options = [f"{key} {option}" for key, option in value.items() if key != "name"]
        return f"{value['name']} ({', '.join(options)})" if options else str(value["name"])
    return str(value)


def _scores(results: Results) -> list[str]:
    """Test metrics and both Δm of every line."""
    suite, lines = results.plan.suite, results.lines
    keys = [key for key in suite.metrics if any(key in run.test for x in lines for run in x.ok)]
    found = verdict.against_single(lines)
    deltas = ["Δm (a) ↓", "Δm (b) ↑", "p", "p, Holm"] if suite.baseline is not None else []
    rows = [["row", "seeds", *keys, *deltas]]
    for line in lines:
        cells = [line.name, f"{len(line.ok)} of {len(line.runs)}"]
        cells += [_spread([run.test.get(key, math.nan) for run in line.ok], key) for key in keys]
        if deltas:
            forms = (line.flat, line.by_task)
            cells += ["itself"] * 2 if line.is_single else [_spread(x.values()) for x in forms]
            cells += [_p(found.p, line), _p(found.corrected, line)]
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
    return ["## Results", about, _table(rows), *_notes(lines), *single]


def _notes(lines: Sequence[Line]) -> list[str]:
    """What the reader must know of rows, each note once."""
    notes: dict[str, list[str]] = {}
    for line in lines:
        undefined = f"no Δm, since a single task scored 0 in {', '.join(line.undefined)}"
        for note in (*line.row.notes, *([undefined] if line.undefined else [])):
            notes.setdefault(note, []).append(line.name)
    if not notes:
        return []
    return ["\n".join(f"- {note}: {_names(names)}" for note, names in notes.items())]


def _power(found: Family, seeds: int) -> str:
    """What the tests can show at best."""
    if not found.p:
        return "With one seed there is nothing to test."
    number = len(found.p)
    words = f"With {seeds} seeds p is at least {found.least:.2g}"
    if found.hopeless:
        return (
            f"{words}, after Holm's correction over {number} rows at least "
            f"{min(1.0, number * found.least):.2g}: no single row can be called significant here; "
            f"{found.seeds_needed} seeds could."
        )
    return f"{words}, corrected over {number} rows."


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
        backbone = _plain(runs[0].planned.recipe["backbone"])
        cells = [_spread([run.test.get(key, math.nan) for run in ok], key) for key in keys]
        rows.append([task, backbone, f"{len(ok)} of {len(runs)}", *cells])
    return ["### Single-task networks", _table(rows)]


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
            line.name, _spread(splits[0], target), _signed(gain), _p(found.p, line),
            _p(found.corrected, line), _spread(splits[1], target), _spread(last, target),
        ])  # fmt: skip
    about = (
        f"Differences are paired by seed. Last epochs: the mean over the last third of the "
        f"evaluations on val, {LAST_EPOCHS} at most. A gap between it and the chosen checkpoint is "
        "what choosing alone gives."
    )
    return [f"## The target task: `{target}`", about, _table(rows)]


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
            rows.append([line.name, _signed(values), _p(found.p, line), _p(found.corrected, line)])
    power = _power(found, results.plan.seeds)
    about = f"In {what} on test, paired by seed. {power}"
    return [f"## Against '{reference.name}'", about, _table(rows)]


def _costs(results: Results) -> list[str]:
    """What training a row takes."""
    rows = [["row", "step, ms", "step, MiB", "process, MiB", "parameters", "GFLOP per image",
             "training, s", "steps' time x its single tasks"]]  # fmt: skip
    for line in results.lines:
        if not line.ok:
            continue
        costs = [run.cost for run in line.ok]
        step = statistics.median(_step(run) for run in line.ok)
        alone = [
            statistics.median(_step(pair.single[task]) for pair in line.pairs.values())
            for task in line.row.single
            if line.pairs
        ]
        rows.append([
            line.name, f"{1000 * step:.1f}", _mib(costs, "step_peak_bytes"),
            _mib(costs, "process_peak_bytes"), f"{costs[0]['parameters']:,}",
            f"{costs[0]['flops'] / 1e9:.3f}",
            _number(statistics.median(run.seconds for run in line.ok), ".0f"),
            f"{step / sum(alone):.2f}" if alone else "-",
        ])  # fmt: skip
    if len(rows) == 1:
        return []
    about = (
        "Medians over seeds. A step is timed on one batch after training, data apart. Its memory is "
        "the peak of tensors in a first step above the weights: activations, gradients, and what "
        "optimiser and balancer keep. The process's peak is of training (on a GPU, of tensors "
        "there). FLOPs: one forward pass for all tasks. Runs side by side slow each other."
    )
    return ["## Cost", about, _table(rows)]


def _step(run: Result) -> float:
    return statistics.median(run.cost["step_seconds"])


def _published(results: Results) -> list[str]:
    """The same rows as others printed them."""
    name = results.plan.suite.published
    if name is None:
        return []
    tables = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    theirs = tables[name]
    by_name = {line.name: line for line in results.lines}
    keys = list(dict.fromkeys(key for row in theirs["rows"].values() for key in row))
    rows = [["row", *(f"{key}, {who}" for key in keys for who in ("published", "here"))]]
    for row, values in theirs["rows"].items():
        if row not in by_name:
            continue
        cells = [row]
        for key in keys:
            here = [run.test[key] for run in by_name[row].ok if key in run.test]
            cells += [_number(values.get(key, math.nan), "g"), _spread(here, key)]
        rows.append(cells)
    about = (
        f"{theirs['title']} of {theirs['source']}. There: {theirs['protocol']}. Here: see "
        "'What was run'. Where data, size, weights or budget differ, compare the order of rows, not their "
        "values; squared errors of boxes are in pixels of the network's input."
    )
    return ["## Published beside ours", about, _table(rows)]


def _limits(results: Results) -> list[str]:
    """What nobody should read out of the numbers."""
    if not results.plan.suite.train:
        return []
    words = [
        "One recipe for all rows: whatever suits one method's step sizes favours it. Nothing was "
        "tuned but what the rows say.",
        "Seeds vary weights, order and augmentation, not the data: intervals say nothing about "
        "other data sets.",
        "Metrics with small baselines move Δm most, and several metrics of one task count several "
        "times in (a).",
        "Δm of rows with different tasks are means over different things.",
    ]
    if any("scratch" in note for line in results.lines for note in line.row.notes):
        words.append("Rows that ask for pretrained weights and got none are not what they are "
                     "called.")  # fmt: skip
    commits = {run.commit for run in results.runs.values() if run.commit}
    if len(commits) > 1:
        words.append(f"Runs were made by {len(commits)} commits of the code.")
    return ["## What this does not say", "\n".join(f"- {word}" for word in words)]


def _left_out(results: Results) -> list[str]:
    """Failed and missing runs, what was not compared, and what lies there besides."""
    parts = []
    bad = [run for run in results.runs.values() if run.status != "ok"]
    if bad:
        rows = [["row", "seed", "status", "why"]]
        rows += [
            [run.planned.row, str(run.planned.seed), run.status, run.error.replace("|", "\\|")]
            for run in bad
        ]
        parts += [f"## Runs without a result: {len(bad)} of {len(results.runs)}", _table(rows)]
    refused = [f"- {line.name}: {reason}" for line in results.lines for reason in line.refused]
    if refused:
        parts += ["## Not compared", "\n".join(refused)]
    if results.strangers:
        parts += [
            "## Not part of this plan",
            "Runs of an earlier recipe lie in the same folder and count nowhere: "
            + ", ".join(f"`{name}`" for name in results.strangers),
        ]
    return parts


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
            cost["step_seconds"] = _step(run)
        yield {**row, **deltas.get(id, {}), **scores, "seconds": run.seconds, **cost}


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _spread(values: Iterable[float], key: str = "") -> str:
    """Mean and half of the interval; ``-`` without a value."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    form = ".3f" if key and abs(statistics.fmean(known)) < 10 else ".1f"
    return _with_half(known, form if key else f"+{form}")


def _signed(values: Sequence[float]) -> str:
    return _with_half(values, "+.3f") if values else "-"


def _with_half(values: Sequence[float], form: str) -> str:
    found = interval(values)
    half = "" if found.low is None else f" ± {found.mean - found.low:{form.lstrip('+')}}"
    return f"{found.mean + 0.0:{form}}{half}"


def _p(values: Mapping[str, float], line: Line) -> str:
    return _number(values.get(line.name, math.nan), ".3f")


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _mib(costs: Sequence[Mapping[str, Any]], key: str) -> str:
    known = [cost[key] for cost in costs if cost.get(key) is not None]
    return f"{statistics.median(known) / MIB:.0f}" if known else "-"


def _mean(values: Mapping[int, float]) -> float:
    return statistics.fmean(values.values()) if values else math.nan


def _names(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
