"""All balancers on the pets: three tasks, equal budget, several seeds, against single tasks.

    python -m benchmarks.balancers_on_pets --root DIR --pretrained FILE --output OUT

Runs that OUT/runs.jsonl already has are not done again. The table is OUT/table.md.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import mtlkit
from mtlkit.report.compare import delta_by_task, delta_flat

TASKS = {"seg": {"head": "fpn"}, "cls": {}, "bbox": {}}
HIGHER_IS_BETTER = {
    "seg/miou": True,
    "seg/f1": True,
    "cls/accuracy": True,
    "bbox/iou": True,
    "bbox/l2": False,
}
SHOWN = ("seg/miou", "cls/accuracy", "bbox/iou")
OPTIONS: dict[str, dict[str, Any]] = {
    "fixed": {"weights": {"seg": 0.7, "cls": 0.1, "bbox": 0.2}},  # the study's
    "fairgrad": {"alpha": 2.0},  # 1 is Nash-MTL
}
LEFT_OUT = ("torchjd",)  # an adapter, not a method

Row = dict[str, Any]


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and options of every row: single tasks, then all balancers."""
    for task, options in TASKS.items():
        yield f"single {task}", {"tasks": {task: options}, "balancer": "equal"}
    for name in mtlkit.names("balancer"):
        if name not in LEFT_OUT:
            balancer = {"name": name, **OPTIONS.get(name, {})}
            yield name, {"tasks": TASKS, "balancer": balancer}


def train(options: Mapping[str, Any], recipe: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One run; a failure is an answer too."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            results = mtlkit.fit(**recipe, **options, seed=seed, output=f"{folder}/run")
        except Exception as error:
            return {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    kept = ("test", "val", "best_step", "steps", "seconds", "status")
    return {key: results[key] for key in kept}


def read(file: Path) -> list[Row]:
    """The runs that are done."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def table(done: list[Row]) -> str:
    """The rows with means and standard deviations over seeds, best Δm first."""
    ok = [run for run in done if run["status"] == "ok"]
    base = {
        key: statistics.mean(run["test"][key] for run in ok if run["row"] == f"single {task}")
        for task in TASKS
        for key in HIGHER_IS_BETTER
        if key.startswith(f"{task}/")
    }
    lines = []
    for name in dict.fromkeys(run["row"] for run in done if not run["row"].startswith("single")):
        mine = [run["test"] for run in ok if run["row"] == name]
        if not mine:
            lines.append((float("-inf"), f"| {name} |" + " failed |" * (len(SHOWN) + 3)))
            continue
        cells = [_spread([scores[key] for scores in mine], ".3f") for key in SHOWN]
        by_task = [delta_by_task(scores, base, HIGHER_IS_BETTER) for scores in mine]
        flat = [delta_flat(scores, base, HIGHER_IS_BETTER) for scores in mine]
        cells += [_spread(by_task, "+.1f"), _spread(flat, "+.1f"), str(len(mine))]
        lines.append((statistics.mean(by_task), f"| {name} | {' | '.join(cells)} |"))
    single = [f"| single tasks | {' | '.join(f'{base[key]:.3f}' for key in SHOWN)} | 0 | 0 | |"]
    head = f"| balancer | {' | '.join(SHOWN)} | Δm (b) ↑ | Δm (a) ↓ | seeds |"
    order = [line for _, line in sorted(lines, key=lambda pair: -pair[0])]
    return "\n".join([head, "|---" * (len(SHOWN) + 4) + "|", *single, *order]) + "\n"


def _spread(values: list[float], form: str) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{form}} ± {deviation:{form.lstrip('+')}}"


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="holds oxford-iiit-pet/")
    parser.add_argument("--pretrained", type=Path, required=True, help="MobileNetV2 weights")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    args = parser.parse_args()
    recipe = {
        "data": {"name": "oxford-pets", "root": args.root, "verify": False},
        "backbone": {"model": "mobilenetv2_100", "pretrained": args.pretrained, "name": "timm"},
        "image_size": args.size,
        "epochs": args.epochs,
        "batch_size": 16,
        "workers": 0,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "runs.jsonl"
    file.touch()
    for seed in args.seeds:
        for name, options in rows():
            if any((run["row"], run["seed"]) == (name, seed) for run in read(file)):
                continue
            run = {"row": name, "seed": seed, **train(options, recipe, seed)}
            with file.open("a") as out:
                out.write(json.dumps(run) + "\n")
            print(name, seed, run["status"], flush=True)
    about = {
        "recipe": {k: str(v) for k, v in recipe.items() if k not in ("data", "backbone")},
        "torch": torch.__version__,
        "mtlkit": mtlkit.__version__,
        "threads": torch.get_num_threads(),
    }
    (args.output / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    (args.output / "table.md").write_text(table(read(file)))


if __name__ == "__main__":
    main()
