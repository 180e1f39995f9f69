"""Group: runs that differ in nothing but their seed, and what they are compared with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mtlkit.report.compare import (
    Interval,
    delta_by_task,
    delta_flat,
    holm,
    interval,
    mean,
    sign_flip,
    smallest_p,
)
from mtlkit.report.read import Read
from mtlkit.source import spell

CHANGES_NOTHING = (
    "output", "resume", "log_with", "log_every", "conflict_every", "workers", "cache",
)  # fmt: skip
"""Options that do not change what is learned."""
BALANCING = (
    "balancer", "gradients", "heads", "losses", "smooth", "balancer_scale", "balance_every",
    "monitor",
)  # fmt: skip
"""Options that mean nothing for one task alone, or another thing."""

Values = list[tuple[int, float]]
"""A seed and a value."""


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as dotted ones; ``tasks`` also has the ids in their order."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if prefix + key == "tasks":
            found["tasks"] = tuple(value)
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def recipe(run: Read, without: Sequence[str] = ()) -> dict[str, Any]:
    """All that decides what a run learns, but its seed and what is ``without``."""
    gone = {"seed", *CHANGES_NOTHING, *without}
    options = flat(run.config)
    kept = {key: value for key, value in options.items() if key.partition(".")[0] not in gone}
    samples = {f"samples.{split}": n for split, n in run.about.get("samples", {}).items()}
    return {**kept, **samples, "processes": run.env.get("processes", 1)}


def _alone(run: Read, task: str) -> dict[str, Any]:
    """The recipe of a run for one of its tasks."""
    options = recipe(run, without=BALANCING)
    own = ("tasks", f"tasks.{task}.")
    return {k: v for k, v in options.items() if not k.startswith("tasks") or k.startswith(own[1])}


@dataclass(frozen=True)
class Group:
    """Runs of one recipe.

    Args:
        label: how it differs from the others.
        runs: all of them, finished or not.
    """

    label: str
    runs: Sequence[Read]

    @property
    def tasks(self) -> list[str]:
        """Ids."""
        return self.runs[0].tasks

    @cached_property
    def by_seed(self) -> dict[int, Read]:
        """The finished run of each seed; of several with one seed the last."""
        finished = sorted((r for r in self.runs if r.finished), key=lambda r: r.config["seed"])
        return {run.config["seed"]: run for run in finished}

    def values(self, key: str) -> Values:
        """Seed and value on test, where there is one."""
        found = [(seed, run.test.get(key)) for seed, run in self.by_seed.items()]
        return [(seed, value) for seed, value in found if value is not None]


def group(runs: Sequence[Read]) -> list[Group]:
    """The runs by their recipe, in the order in which they were given, single tasks last."""
    found: list[tuple[dict[str, Any], list[Read]]] = []
    for run in runs:
        key = recipe(run)
        members = next((members for other, members in found if other == key), None)
        if members is None:
            found.append((key, [run]))
        else:
            members.append(run)
    found.sort(key=lambda pair: len(pair[0]["tasks"]) == 1)
    labels = _labels([key for key, _ in found])
    return [Group(name, runs) for name, (_, runs) in zip(labels, found, strict=True)]


def _labels(recipes: Sequence[dict[str, Any]]) -> list[str]:
    """What tells each recipe from the others, in as few words as do."""
    labels = []
    for own in recipes:
        told = [
            key for key, value in own.items()
            if any(_comparable(key, own, other) and other.get(key) != value for other in recipes)
        ]  # fmt: skip
        if len(told) > 1 and len({r["tasks"] for r in recipes if len(r["tasks"]) > 1}) == 1:
            told = [key for key in told if key != "tasks" or len(own["tasks"]) == 1]
        labels.append(", ".join(_word(key, own[key]) for key in told) or "all runs")
    twice = {label for label in labels if labels.count(label) > 1}
    return [f"{x} ({i + 1})" if x in twice else x for i, x in enumerate(labels)]


def _comparable(key: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether an option tells the two apart.

    Options of another component do not, nor does how a single task is balanced.
    """
    if key.partition(".")[0] in BALANCING and 1 in (len(own["tasks"]), len(other["tasks"])):
        return False
    if key.startswith("tasks.") and own["tasks"] != other["tasks"]:
        return False
    if key.startswith("samples.") and _data(own) != _data(other):
        return False
    parts = key.split(".")
    name = ".".join([*parts[:-1], "name"])
    return len(parts) == 1 or key == name or own.get(name) == other.get(name)


def _data(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key.startswith("data.")}


def _word(key: str, value: Any) -> str:
    if key == "tasks":
        return f"{value[0]} alone" if len(value) == 1 else " + ".join(value)
    *slot, option = key.split(".")
    if option == "name" and len(slot) == 1:
        return str(value)
    if slot == ["samples"]:
        return f"{value} {option} samples"
    words = ".".join(slot[1:] if option == "name" else (*slot[1:], option))
    return f"{spell(words)} {'default' if value is None else shown(value)}"


def shown(value: Any) -> str:
    """A value as a user writes it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{k}={shown(v)}" for k, v in value.items())
    return ",".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


@dataclass
class Delta:
    """What training together gained over training alone, in both forms, in percent.

    Args:
        label: of the group.
        flat: (a), lower is better, by seed.
        by_task: (b), higher is better, by seed.
        paired: whether each seed was held against single tasks of that seed; else against their
            means over seeds.
        p_flat: of the sign-flip test with Holm's correction over the groups; None without one.
        p_by_task: likewise.
    """

    label: str
    flat: Values
    by_task: Values
    paired: bool
    p_flat: float | None = None
    p_by_task: float | None = None

    @property
    def interval_flat(self) -> Interval:
        """Of (a)."""
        return interval([value for _, value in self.flat])

    @property
    def interval_by_task(self) -> Interval:
        """Of (b)."""
        return interval([value for _, value in self.by_task])


@dataclass
class Comparison:
    """All Δm that can be had, and in words what could not, or is not as it should be."""

    deltas: list[Delta] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    least_p: float | None = None
    """The smallest p that this number of seeds and groups can give."""


def against_single_tasks(groups: Sequence[Group]) -> Comparison:
    """Δm of every group of several tasks, where the single tasks were run by the same recipe."""
    found = Comparison()
    singles = [g for g in groups if len(g.tasks) == 1 and g.by_seed]
    for several in (g for g in groups if len(g.tasks) > 1 and g.by_seed):
        base, missing = _baseline(several, singles)
        if missing:
            found.notes.append(
                f"No Δm for {several.label}: there is no finished run of {_listed(missing)} alone "
                "with the same recipe among those given."
            )
            continue
        delta = _delta(several, base, found.notes)
        if delta:
            found.deltas.append(delta)
    _test(found)
    return found


def _baseline(several: Group, singles: Iterable[Group]) -> tuple[dict[str, Group], list[str]]:
    """The single-task group of each task, and the tasks that have none."""
    base = {}
    for single in singles:
        task = single.tasks[0]
        if task in several.tasks and _alone(single.runs[0], task) == _alone(several.runs[0], task):
            base[task] = single
    return base, [task for task in several.tasks if task not in base]


def _delta(several: Group, base: Mapping[str, Group], notes: list[str]) -> Delta | None:
    signs = {key: sign > 0 for key, sign in several.runs[0].signs.items() if sign}
    known = {
        key: higher for key, higher in signs.items()
        if len(several.values(key)) == len(several.by_seed)
        and len(base[key.split("/")[0]].values(key)) == len(base[key.split("/")[0]].by_seed)
        and all(value for _, value in base[key.split("/")[0]].values(key))
    }  # fmt: skip
    if len(known) < len(signs):
        gone = _listed([key for key in signs if key not in known])
        notes.append(f"Δm of {several.label} is without {gone}: no number, or 0, in some run.")
    if not known:
        return None
    seeds = [s for s in several.by_seed if all(s in single.by_seed for single in base.values())]
    if seeds and len(seeds) < len(several.by_seed):
        gone = _listed([str(s) for s in several.by_seed if s not in seeds])
        notes.append(f"Δm of {several.label} is without seed {gone}: no single tasks of it.")
    if not seeds:
        notes.append(
            f"{several.label} and its single tasks have no seed in common: Δm is against their "
            "means, and its interval is without their spread."
        )
    values: list[tuple[int, float, float]] = []
    for seed in seeds or several.by_seed:
        scores = {key: dict(several.values(key))[seed] for key in known}
        alone = {}
        for key in known:
            own = dict(base[key.split("/")[0]].values(key))
            alone[key] = own[seed] if seeds else mean(list(own.values()))
        values.append((seed, delta_flat(scores, alone, known), delta_by_task(scores, alone, known)))
    flats, by_task = [(s, a) for s, a, _ in values], [(s, b) for s, _, b in values]
    return Delta(several.label, flats, by_task, bool(seeds))


def _test(found: Comparison) -> None:
    """Sign-flip tests of all groups with at least two paired seeds, corrected together."""
    tested = [delta for delta in found.deltas if delta.paired and len(delta.flat) > 1]
    if not tested:
        return
    flat_ps = holm([sign_flip([v for _, v in delta.flat]) for delta in tested])
    by_task_ps = holm([sign_flip([v for _, v in delta.by_task]) for delta in tested])
    for delta, a, b in zip(tested, flat_ps, by_task_ps, strict=True):
        delta.p_flat, delta.p_by_task = a, b
    found.least_p = min(smallest_p(len(delta.flat), len(tested)) for delta in tested)


@dataclass
class Difference:
    """A metric of a group minus that of the first group, seed by seed."""

    label: str
    key: str
    sign: int
    interval: Interval
    pairs: int
    p: float | None = None


def against_first(groups: Sequence[Group]) -> list[Difference]:
    """Primary metrics of the other groups with the first one's tasks, data and image size.

    The first group is the first of those with the most tasks.
    """
    finished = [g for g in groups if g.by_seed]
    if not finished:
        return []
    first = max(finished, key=lambda g: len(g.tasks))
    found = []
    for other in finished:
        if other is first or not same_measure(first.runs[0], other.runs[0]):
            continue
        for key in first.runs[0].primary.values():
            ours, theirs = dict(other.values(key)), dict(first.values(key))
            pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
            if pairs:
                p = sign_flip(pairs) if len(pairs) > 1 else None
                sign = first.runs[0].signs[key]
                found.append(Difference(other.label, key, sign, interval(pairs), len(pairs), p))
    tested = [d for d in found if d.p is not None]
    for difference, p in zip(tested, holm([d.p for d in tested if d.p is not None]), strict=True):
        difference.p = p
    return found


def same_measure(a: Read, b: Read) -> bool:
    """Whether numbers of two runs can be compared: same tasks, data and image size."""
    return measure(a) == measure(b) and a.tasks == b.tasks


def measure(run: Read) -> tuple[Any, ...]:
    """Data and image size, which numbers depend on."""
    size = run.about.get("image_size") or run.config.get("image_size")
    samples = run.about.get("samples")
    return flat(run.config["data"]), samples, size, run.config.get("overfit", 0)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
