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
from filelock import FileLock, Timeout

from mtlkit.errors import ConfigError, RunError
from mtlkit.files import flush, replace_text

LOCK = ".lock"
"""Held while a run writes to its folder; the system lets go of it however the run ends."""
PACKAGES = (
    "mtlkit", "torch", "torchvision", "timm", "segmentation-models-pytorch", "accelerate",
    "torchmetrics",
)  # fmt: skip


class RunFolder:
    """Writes and reads the files of one run.

    Args:
        path: of the folder; nothing is touched before :meth:`create` or :meth:`lock`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best"
        self.model = self.path / "model"
        self.metrics = self.path / "metrics.jsonl"
        self._lock = FileLock(self.path / LOCK, timeout=0)

    def create(self) -> None:
        """Make the folder, and keep other runs out of it.

        Raises:
            ConfigError: it holds something already, or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        self.lock()
        if any(e.name != LOCK and e.suffix != ".new" for e in self.path.iterdir()):
            self.unlock()
            raise ConfigError(
                f"the output folder {self.path} is in use; choose another --output, "
                f"or go on with that run by --resume {self.path}"
            )

    def lock(self) -> None:
        """Keep other runs out of the folder until :meth:`unlock`, or the end of this process.

        Raises:
            ConfigError: another run is writing there, or nobody can.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(
                f"another run is writing to {self.path}; wait for its end, or choose another "
                "--output"
            ) from None
        except NotImplementedError:  # a file system without locks
            pass
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"cannot write to the output folder {self.path}: {error.strerror}; "
            "choose another --output"
        )

    def unlock(self) -> None:
        """Let others in."""
        self._lock.release()

    def write_config(self, config: Mapping[str, Any], device: str, processes: int) -> None:
        """Write ``config.yaml`` and ``env.json``."""
        text = yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None, width=100)
        replace_text(self.path / "config.yaml", text)
        _write_json(self.path / "env.json", environment(device, processes))

    def log(self, step: int, epoch: int, split: str, values: Mapping[str, float]) -> None:
        """Append one line to ``metrics.jsonl``; a value that is not finite becomes null.

        Raises:
            RunError: it cannot be written.
        """
        line = {"step": step, "epoch": epoch, "split": split, **_finite(values)}
        try:
            with self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise RunError(self.cannot_write(self.metrics, error)) from error

    def cannot_write(self, what: Path, error: OSError) -> str:
        """What to tell when the disk is full, say."""
        return (
            f"cannot write {what}: {error.strerror or error}; what was saved before is whole: mend "
            f"this, then go on with mtlkit train --resume {self.path}"
        )

    def history(self) -> Iterator[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; what is not one is passed over."""
        if not self.metrics.exists():
            return
        with self.metrics.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict):
                    yield entry

    def logged(self) -> int:
        """Bytes of ``metrics.jsonl``, all of them on the disk."""
        self.metrics.touch()
        flush(self.metrics)
        return self.metrics.stat().st_size

    def rewind(self, logged: int) -> bool:
        """Drop the lines after so many bytes, which a resumed run writes again.

        Returns:
            Whether all lines before them are there.
        """
        self.metrics.touch()
        size = self.metrics.stat().st_size
        os.truncate(self.metrics, min(size, logged))
        return size >= logged

    def began(self) -> bool:
        """Whether a run began here and ended before anything was saved."""
        saved = (self.best, self.model, self.path / "results.json")
        return (self.path / "config.yaml").exists() and not any(f.exists() for f in saved)

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write ``results.json``."""
        _write_json(self.path / "results.json", _finite(results))


def environment(device: str, processes: int) -> dict[str, Any]:
    """Versions, device and commit."""
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "processes": processes,
        "cpus": os.cpu_count(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Of the checkout that the run was started in."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return done.stdout.strip() or None


def _write_json(file: Path, tree: Mapping[str, Any]) -> None:
    replace_text(file, json.dumps(tree, indent=2) + "\n")


def _finite(tree: Any) -> Any:
    """JSON knows no NaN: null stands for a number that is none."""
    if isinstance(tree, Mapping):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree
