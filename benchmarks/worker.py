"""One run in a process of its own: train, then measure what a step costs.

python -m benchmarks.worker RECIPE.yaml RUN_FOLDER [--no-train]
"""

import json
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mtlkit import api, cli, config, measure, source
from mtlkit.session import Run
from mtlkit.train import windows

ROUNDS = 3
"""Steps that are timed."""
COST = "cost.json"


def main(recipe: Path, folder: Path, *, train: bool = True) -> int:
    """Do what is missing of a run; returns the exit code of its training."""
    trained = (folder / "results.json").exists()
    peak = None
    if train and not trained:
        code = cli.main(["train", *_words(recipe, folder)])
        if code:
            return code
        peak = peak_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    found = {"process_peak_bytes": peak, **cost(dict(source.read(recipe)))}
    fresh = folder / f"{COST}.new"
    fresh.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    fresh.replace(folder / COST)
    return 0


def _words(recipe: Path, folder: Path) -> list[str]:
    """Go on with a run that has a checkpoint, or begin it."""
    if any((folder / "checkpoints" / name).exists() for name in ("last", "last.old")):
        return ["--resume", str(folder)]
    return ["--config", str(recipe), "--output", str(folder)]


def peak_bytes() -> int:
    """The most memory this process has held; on a GPU, of its tensors there."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cost(recipe: dict[str, Any]) -> dict[str, Any]:
    """What a step of this recipe costs, data apart: on one batch, again and again."""
    run = api.assemble(config.from_mapping({**recipe, "workers": 0, "log_with": ()}))
    run.model.train()
    window = next(windows(run.loader("train", train=True), run.model, run.settings))
    work = partial(run.engine, window, step=0, epoch=0)
    device = run.accelerator.device
    step_bytes = measure.peak_bytes(device, work)  # the first one also makes what stays
    return {
        "step_seconds": [measure.seconds(device, work) for _ in range(ROUNDS)],
        "step_peak_bytes": step_bytes,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "flops": _flops(run, window[0].inputs),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }


@torch.no_grad()
def _flops(run: Run, inputs: Any) -> float:
    """Of a forward pass for one image and all tasks; a multiplication and an addition are two."""
    run.model.eval()
    with FlopCounterMode(display=False) as counter:
        run.model(*inputs)
    return float(counter.get_total_flops() / len(inputs[0]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), train="--no-train" not in sys.argv))
