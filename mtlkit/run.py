"""The folder of a run: what is in it, and how it is written."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from mtlkit.errors import CheckpointError, ConfigError

PACKAGES = (
    "mtlkit", "torch", "torchvision", "timm", "segmentation-models-pytorch", "accelerate",
    "torchmetrics",
)  # fmt: skip


class RunFolder:
    """Writes and reads the files of one run.

    Args:
        path: of the folder; nothing is touched before :meth:`create`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last"
        self.best = self.path / "checkpoints" / "best"
        self.model = self.path / "model"

    def create(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: it holds something already, or cannot be written.
        """
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise ConfigError(
                f"the output folder {self.path} is in use; choose another --output, "
                f"or go on with that run by --resume {self.path}"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "metrics.jsonl").touch()
        except OSError as error:
            raise ConfigError(
                f"cannot write to the output folder {self.path}: {error.strerror}; "
                "choose another --output"
            ) from None

    def write_config(self, config: Mapping[str, Any], device: str, processes: int) -> None:
        """Write ``config.yaml`` and ``env.json``."""
        text = yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None, width=100)
        (self.path / "config.yaml").write_text(text)
        _write_json(self.path / "env.json", environment(device, processes))

    def log(self, step: int, epoch: int, split: str, values: Mapping[str, float]) -> None:
        """Append one line to ``metrics.jsonl``; a value that is not finite becomes null."""
        line = {"step": step, "epoch": epoch, "split": split, **_finite(values)}
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def history(self) -> Iterator[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open() as file:
            yield from (json.loads(line) for line in file if line.endswith("\n"))

    def rewind(self, step: int) -> None:
        """Drop the lines that a resumed run will write again."""
        kept = [line for line in self.history() if line["step"] <= step]
        fresh = self.path / "metrics.jsonl.new"
        fresh.write_text("".join(json.dumps(line) + "\n" for line in kept))
        fresh.replace(self.path / "metrics.jsonl")

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write ``results.json``."""
        _write_json(self.path / "results.json", _finite(results))

    def check_resumable(self) -> None:
        """Refuse a folder without a checkpoint.

        Raises:
            CheckpointError: there is nothing to resume.
        """
        if not self.last.exists() and not self.last.with_name("last.old").exists():
            raise CheckpointError(
                f"nothing to resume in {self.path}: it has no checkpoints/last; "
                "start without --resume"
            )


def environment(device: str, processes: int) -> dict[str, Any]:
    """Versions, device and commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "processes": processes,
        "cpus": os.cpu_count(),
        "commit": commit or None,
    }


def _write_json(file: Path, tree: Mapping[str, Any]) -> None:
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(json.dumps(tree, indent=2) + "\n")
    fresh.replace(file)


def _finite(tree: Any) -> Any:
    """JSON knows no NaN: null stands for a number that is none."""
    if isinstance(tree, Mapping):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree
