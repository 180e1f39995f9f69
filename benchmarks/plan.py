"""Plan: the runs that a suite asks for, each known by a hash of all that defines its result.

Options are laid over each other: the suite's; of the data and the run the smoke test's, the command
line's and then the row's; of the network and the balancer the row's, then the smoke test's and the
command line's. So a row keeps what it varies, on any data and at any budget.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.suite import Options, Smoke, Suite
from mtlkit import __version__, config, source
from mtlkit.errors import ConfigError
from mtlkit.settings import Choice, Config

PLACE = ("output", "resume")
"""Options that the runner decides."""
NO_RESULT = ("workers", "log_with", "log_every", "cache")
"""Options that change no number of a run, and so are no part of what it is known by."""
FOR_TRAIN = ("config", "dry_run", "no_plugins", "num_processes", "print_config", "output", "resume")
"""Words of ``mtlkit train`` that a suite decides itself."""
PRETRAINED = "backbone.pretrained"
BY_ROW = ("backbone", "balancer", "tasks")
"""Parts whose options mean something only after the row has chosen the component."""
UNBALANCED = {
    "balancer": "equal", "views": "shared", "gradients": "parameters", "heads": None,
    "losses": "raw", "smooth": 0.0, "balancer-scale": "none", "balance-every": 1,
    "conflict-every": 0,
}  # fmt: skip
"""What a network for one task is trained with: nothing is left to balance."""

Tree = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """One run.

    Args:
        id: hash of all that defines its result.
        row: the first that asks for it; part of the folder's name.
        seed: of it.
        recipe: options of mtlkit train, all of them.
        train: false measures what a step costs and trains nothing.
    """

    id: str
    row: str
    seed: int
    recipe: Tree
    train: bool = True

    @property
    def folder(self) -> str:
        """Name of its folder."""
        words = re.sub(r"[^a-z0-9]+", "-", self.row.lower()).strip("-")
        return f"{words}-{self.seed}-{self.id[:8]}"


@dataclass(frozen=True)
class Row:
    """What one row of the report is made of.

    Args:
        name: of it.
        runs: id of the run with each seed, in the seeds' order.
        single: ids of the runs that train one task alone, by task, in the seeds' order.
        notes: what the reader must know about it.
    """

    name: str
    runs: Sequence[str]
    single: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """All runs of a suite, and how they are compared."""

    suite: Suite
    smoke: bool
    command: str
    version: str
    seeds: int
    rows: Sequence[Row]
    runs: Mapping[str, Planned]

    def write(self, file: Path) -> None:
        """Write it as JSON: a report needs nothing else but the runs' folders."""
        tree = asdict(self)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
        fresh.replace(file)


def read(file: Path) -> Plan:
    """The plan that :meth:`Plan.write` wrote."""
    tree = json.loads(file.read_text(encoding="utf-8"))
    smoke = Smoke(**tree["suite"].pop("smoke"))
    tree["suite"] = Suite(**tree["suite"], smoke=smoke)
    tree["rows"] = [Row(**row) for row in tree["rows"]]
    tree["runs"] = {id: Planned(**run) for id, run in tree["runs"].items()}
    return Plan(**tree)


def make(
    suite: Suite,
    words: Sequence[str] = (),
    *,
    smoke: bool = False,
    seeds: int | None = None,
    command: str = "",
) -> Plan:
    """The runs of a suite; every mistake in its options shows here.

    Args:
        suite: to run.
        words: options of ``mtlkit train`` for all rows, as typed.
        smoke: lay the suite's smoke test over it.
        seeds: number of seeds, from 0; by default the suite's.
        command: as typed.

    Raises:
        ConfigError: options are unknown or contradict each other.
    """
    number = seeds or (suite.smoke.seeds if smoke else suite.seeds)
    given = _given(suite, words)
    runs: dict[str, Planned] = {}
    rows = []
    for name, options in suite.rows.items():
        chosen, notes = _resolved(suite, name, options, given, smoke)
        ids = [_add(runs, name, chosen, seed, suite.train) for seed in range(number)]
        single = {}
        if suite.baseline is not None and suite.train:
            alone = _resolved(suite, name, options, given, smoke, single=suite.baseline)[0]
            for task in chosen.tasks:
                network = _one_task(alone, task)
                single[task] = [
                    _add(runs, f"single {task}", network, seed, True) for seed in range(number)
                ]
        rows.append(Row(name, ids, single, notes))
    _note_doubles(rows)
    return Plan(suite, smoke, command, __version__, number, rows, runs)


def _given(suite: Suite, words: Sequence[str]) -> Tree:
    """Options from the command line, none of which a row decides."""
    given = dict(source.tokens(words))
    for key in given:
        if key in FOR_TRAIN or key == "seed":
            raise ConfigError(f"--{source.spell(key)} is not for a suite; see its own options")
    varied = {key for options in suite.rows.values() for key in source.from_mapping(options, "")}
    for key in given:
        if key in varied and key != PRETRAINED:
            raise ConfigError(
                f"--{source.spell(key)} is what the rows of {suite.file} vary; "
                "change it there, or in a suite of your own"
            )
    return given


def _resolved(
    suite: Suite,
    name: str,
    options: Options,
    given: Options,
    smoke: bool,
    single: Options | None = None,
) -> tuple[Config, list[str]]:
    """The configuration of a row, or with ``single`` of its networks for one task; and notes."""
    in_file = f"{suite.file}, row '{name}'"
    extra = suite.smoke.options if smoke else {}
    after = {key: value for key, value in given.items() if _by_row(key) and key != PRETRAINED}
    layers: list[tuple[str, Options]] = [
        (suite.file, suite.options),
        (f"smoke in {suite.file}", {k: v for k, v in extra.items() if not _by_row(k)}),
        (source.COMMAND_LINE, {k: v for k, v in given.items() if not _by_row(k)}),
        (in_file, options),
        (f"smoke in {suite.file}", {k: v for k, v in extra.items() if _by_row(k)}),
        (source.COMMAND_LINE, after),
    ]
    asked = {**source.from_mapping(suite.options, ""), **source.from_mapping(options, "")}
    notes = []
    if PRETRAINED in asked and asked[PRETRAINED].value is True:
        weights = given.get(PRETRAINED, False)
        layers.append((source.COMMAND_LINE, {PRETRAINED: weights}))
        if weights is False:
            notes.append("asks for pretrained weights, got none: trained from scratch")
    if single is not None:
        layers += [(f"baseline in {suite.file}", single), ("", UNBALANCED)]
    return config.from_layers(layers), notes


def _by_row(key: str) -> bool:
    return key.partition(".")[0] in BY_ROW


def _one_task(chosen: Config, task: str) -> Config:
    """The same recipe for a single task, whose own primary metric chooses the checkpoint."""
    monitor = chosen.settings.monitor
    keeps = monitor is not None and monitor.partition("/")[0] == task
    settings = replace(chosen.settings, monitor=monitor if keeps else None)
    return replace(
        chosen, tasks={task: chosen.tasks[task]}, data=_data(chosen, task), settings=settings
    )


def _data(chosen: Config, task: str) -> Choice:
    """The data without what is said of other tasks' labels, so that rows share this run."""
    options = chosen.data.options
    kept = options.get("keep_labels")
    if not kept:
        return chosen.data
    label = chosen.tasks[task].options.get("target") or task
    mine = {key: share for key, share in kept.items() if key == label}
    return replace(chosen.data, options={**options, "keep_labels": mine or None})


def _add(runs: dict[str, Planned], row: str, chosen: Config, seed: int, train: bool) -> str:
    """Plan a run, unless the same is planned already; returns its id."""
    seeded = replace(chosen, settings=replace(chosen.settings, seed=seed))
    places = set(_paths(seeded))
    tree = config.to_mapping(seeded)
    recipe = _each_path({k: v for k, v in tree.items() if k not in PLACE}, places, _absolute)
    known = {key: value for key, value in recipe.items() if key not in NO_RESULT}
    known = _each_path(known, {_absolute(place) for place in places}, _content)
    text = json.dumps([known, config.plugins(chosen), __version__, train], sort_keys=True)
    id = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    runs.setdefault(id, Planned(id, row, seed, recipe, train))
    return id


def _paths(chosen: Config) -> Iterable[str]:
    """The options of components that are paths."""
    heads = [task.head for task in chosen.tasks.values() if task.head]
    for choice in (chosen.data, chosen.backbone, chosen.balancer, *chosen.tasks.values(), *heads):
        yield from (str(value) for value in choice.options.values() if isinstance(value, Path))


def _each_path(tree: Any, paths: Collection[str], change: Callable[[str], str]) -> Any:
    """The tree with every path in it changed."""
    if isinstance(tree, Mapping):
        return {key: _each_path(value, paths, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_each_path(value, paths, change) for value in tree]
    return change(tree) if isinstance(tree, str) and tree in paths else tree


def _absolute(path: str) -> str:
    return str(Path(path).resolve())


def _content(path: str) -> str:
    """What stands for a path in a hash: what is there, wherever that is."""
    return fingerprint(Path(path)) if Path(path).exists() else path


@lru_cache
def fingerprint(path: Path) -> str:
    """Of a file its content, of a folder the names and sizes of all files in it."""
    digest = hashlib.blake2b(digest_size=16)
    if path.is_file():
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    for file_path in sorted(_files(path)):
        entry = f"{file_path.relative_to(path)}\0{file_path.stat().st_size}\0"
        digest.update(entry.encode(errors="surrogatepass"))
    return digest.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return (Path(where, name) for where, _, names in os.walk(folder) for name in names)


def _note_doubles(rows: list[Row]) -> None:
    """Say of rows that turn out to be the same runs that they are."""
    first: dict[str, str] = {}
    for number, row in enumerate(rows):
        same = first.setdefault(row.runs[0], row.name)
        if same != row.name:
            rows[number] = replace(row, notes=[*row.notes, f"the same runs as '{same}'"])
