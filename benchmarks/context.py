"""Context: what stands around a report's scores, without which they cannot be read."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cells import mib, number, spread, table
from benchmarks.results import Result, Results

PUBLISHED = Path(__file__).parent / "published.yaml"
PROTOCOL = (
    "data", "image_size", "epochs", "max_steps", "batch_size", "optimizer", "lr", "scheduler",
    "weight_decay", "augment", "monitor", "precision",
)  # fmt: skip


def protocol(results: Results) -> list[str]:
    """What all runs have in common."""
    made = results.plan
    recipes = [run.recipe for run in made.runs.values()]
    lines = [f"- command: `{made.command}`", f"- seeds: {made.seeds}, from 0, of every row"]
    for key in PROTOCOL:
        values = list(dict.fromkeys(chosen(recipe.get(key)) for recipe in recipes))
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


def chosen(value: Any) -> str:
    """A value of a recipe; of a component its name and options."""
    if isinstance(value, Mapping):
        options = [f"{key} {option}" for key, option in value.items() if key != "name"]
        return f"{value['name']} ({', '.join(options)})" if options else str(value["name"])
    return str(value)


def costs(results: Results) -> list[str]:
    """What training a row takes."""
    rows = [["row", "step, ms", "step, MiB", "process, MiB", "parameters", "GFLOP per image",
             "training, s", "steps' time x its single tasks"]]  # fmt: skip
    for line in results.lines:
        if not line.ok:
            continue
        found = [run.cost for run in line.ok]
        step = statistics.median(step_seconds(run) for run in line.ok)
        alone = [
            statistics.median(step_seconds(pair.single[task]) for pair in line.pairs.values())
            for task in line.row.single
            if line.pairs
        ]
        rows.append([
            line.name, f"{1000 * step:.1f}", mib(found, "step_peak_bytes"),
            mib(found, "process_peak_bytes"), f"{found[0]['parameters']:,}",
            f"{found[0]['flops'] / 1e9:.3f}",
            number(statistics.median(run.seconds for run in line.ok), ".0f"),
            f"{step / sum(alone):.2f}" if alone else "-",
        ])  # fmt: skip
    if len(rows) == 1:
        return []
    about = (
        "Medians over seeds. A step is timed on one batch after training, data apart. Its memory "
        "is the peak of tensors in a first step above the weights: activations, gradients, and "
        "what optimiser and balancer keep. The process's peak is of training (on a GPU, of tensors "
        "there). FLOPs: one forward pass for all tasks. Runs side by side slow each other."
    )
    return ["## Cost", about, table(rows)]


def step_seconds(run: Result) -> float:
    """The middle one of the steps that were timed."""
    return statistics.median(run.cost["step_seconds"])


def published(results: Results) -> list[str]:
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
            cells += [number(values.get(key, math.nan), "g"), spread(here, key)]
        rows.append(cells)
    about = (
        f"{theirs['title']} of {theirs['source']}. There: {theirs['protocol']}. Here: see "
        "'What was run'. Where data, size, weights or budget differ, compare the order of rows, "
        "not their values; squared errors of boxes are in pixels of the network's input."
    )
    return ["## Published beside ours", about, table(rows)]


def limits(results: Results) -> list[str]:
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


def left_out(results: Results) -> list[str]:
    """Failed and missing runs, what was not compared, and what lies there besides."""
    parts = []
    bad = [run for run in results.runs.values() if run.status != "ok"]
    if bad:
        rows = [["row", "seed", "status", "why"]]
        rows += [
            [run.planned.row, str(run.planned.seed), run.status, run.error.replace("|", "\\|")]
            for run in bad
        ]
        parts += [f"## Runs without a result: {len(bad)} of {len(results.runs)}", table(rows)]
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
