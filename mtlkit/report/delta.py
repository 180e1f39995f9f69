"""Delta: groups of runs against single tasks, and against one of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from mtlkit.report.group import BALANCING, Group, Values, recipe, same_measure
from mtlkit.report.parts import listed
from mtlkit.report.read import Read


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
                f"No Δm for {several.label}: there is no finished run of {listed(missing)} alone "
                "with the same recipe among those given."
            )
            continue
        delta = _delta(several, base, found.notes)
        if delta:
            found.deltas.append(delta)
    _test(found)
    return found


def _alone(run: Read, task: str) -> dict[str, Any]:
    """The recipe of a run for one of its tasks."""
    options = recipe(run, without=BALANCING)
    own = ("tasks", f"tasks.{task}.")
    return {k: v for k, v in options.items() if not k.startswith("tasks") or k.startswith(own[1])}


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
        gone = listed([key for key in signs if key not in known])
        notes.append(f"Δm of {several.label} is without {gone}: no number, or 0, in some run.")
    if not known:
        return None
    seeds = [s for s in several.by_seed if all(s in single.by_seed for single in base.values())]
    if seeds and len(seeds) < len(several.by_seed):
        gone = listed([str(s) for s in several.by_seed if s not in seeds])
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
