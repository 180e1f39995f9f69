"""Read: what the files of a run say, without torch and without the data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mtlkit.errors import CheckpointError

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A :class:`mtlkit.Table` as it was written; None is no number."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]

    @property
    def confusion(self) -> bool:
        """Whether it tells which class was taken for which."""
        return list(self.rows) == list(self.columns)


@dataclass(frozen=True)
class Read:
    """What one run left.

    Args:
        name: what it is called in the report.
        path: of its folder.
        config: config.yaml.
        env: env.json; empty if there is none.
        about: about.json; empty for a run of an mtlkit that did not write it.
        results: results.json; empty for a run that did not finish.
        lines: of metrics.jsonl.
        tables: by split.
        gallery: gallery/samples.json; empty if nothing was drawn.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    env: Mapping[str, Any]
    about: Mapping[str, Any]
    results: Mapping[str, Any]
    lines: Sequence[Line]
    tables: Mapping[str, Sequence[Table]]
    gallery: Mapping[str, Any]

    @property
    def tasks(self) -> list[str]:
        """Ids, in the run's order."""
        return list(self.config["tasks"])

    @property
    def status(self) -> str:
        """``ok``, or why there are no results."""
        return str(self.results.get("status", "unfinished"))

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end and measured."""
        return self.status == "ok"

    @cached_property
    def metrics(self) -> dict[str, dict[str, int]]:
        """By task, each metric: 1 where higher is better, -1 where lower is, 0 if unknown."""
        if "tasks" in self.about:
            return {id: dict(self.about["tasks"][id]["metrics"]) for id in self.tasks}
        keys = {key: None for line in self.lines if line["split"] != "train" for key in line}
        return {
            id: {key.partition("/")[2]: 0 for key in keys if key.startswith(f"{id}/")
                 and not key.endswith("/loss")}
            for id in self.tasks
        }  # fmt: skip

    @cached_property
    def primary(self) -> dict[str, str]:
        """By task, the key of the metric that stands for it, such as ``seg/miou``."""
        if "tasks" in self.about:
            return {id: f"{id}/{self.about['tasks'][id]['primary']}" for id in self.tasks}
        return {id: f"{id}/{next(iter(names))}" for id, names in self.metrics.items() if names}

    @cached_property
    def signs(self) -> dict[str, int]:
        """``<task>/<metric>``: 1 where higher is better, -1 where lower is, 0 if unknown."""
        return {f"{id}/{m}": s for id, names in self.metrics.items() for m, s in names.items()}

    def split(self, name: str) -> list[Line]:
        """The lines of one split."""
        return [line for line in self.lines if line["split"] == name]

    @property
    def steps(self) -> int:
        """Optimiser steps done, as far as was logged."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def test(self) -> Mapping[str, float | None]:
        """Results on test; empty if there are none."""
        found: Mapping[str, float | None] = self.results.get("test") or {}
        return found

    @cached_property
    def best(self) -> Line:
        """The evaluation on val of the best model; empty if there was none."""
        lines = self.split("val")
        if "best_step" in self.results:
            lines = [line for line in lines if line["step"] == self.results["best_step"]]
        scored = [(self.score(line), -i) for i, line in enumerate(lines)]
        known = [pair for pair in scored if pair[0] is not None]
        return lines[-max(known)[1]] if known else (lines or [{}])[-1]

    def score(self, line: Line) -> float | None:
        """As the run decides which is best, higher is better.

        By its monitored metric, or the mean of the primary ones; None if they have no number.
        """
        monitor = self.config.get("monitor")
        keys = [monitor] if monitor else list(self.primary.values())
        found = [(line.get(key), self.signs.get(key, -1)) for key in keys]
        known = [value * (sign or 1) for value, sign in found if value is not None]
        return sum(known) / len(known) if known else None


def read_runs(folders: Sequence[Path]) -> list[Read]:
    """The runs in folders, each once, with names that tell them apart.

    Raises:
        CheckpointError: one of them is not the folder of a run, or a file of it is damaged.
    """
    paths = {folder.resolve(): None for folder in folders}
    return [_read(path, name) for path, name in zip(paths, _names(list(paths)), strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many of the last parts as tell all apart."""
    depth = 1
    while True:
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
        depth += 1


def _read(path: Path, name: str) -> Read:
    config = _load(path / "config.yaml") if (path / "config.yaml").is_file() else None
    if not isinstance(config, Mapping) or not isinstance(config.get("tasks"), Mapping):
        raise CheckpointError(f"{path} is not the folder of a run: it has no config.yaml of one")
    tables = {split: _tables(path / "tables" / f"{split}.json") for split in ("val", "test")}
    return Read(
        name=name,
        path=path,
        config=config,
        env=_load(path / "env.json"),
        about=_load(path / "about.json"),
        results=_load(path / "results.json"),
        lines=_lines(path / "metrics.jsonl"),
        tables={split: found for split, found in tables.items() if found},
        gallery=_load(path / "gallery" / "samples.json"),
    )


def _tables(file: Path) -> list[Table]:
    return [Table(title, **table) for title, table in _load(file).items()]


def _load(file: Path) -> Any:
    """A JSON or YAML file; empty if there is none."""
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        return yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"cannot read {file}: {' '.join(str(error).split())}") from None


def _lines(file: Path) -> list[Line]:
    """All whole lines: the last one of a run that was killed may be cut off."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    try:
        return [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise CheckpointError(f"cannot read {file}: {error}") from None
