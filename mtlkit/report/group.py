"""Group: runs that differ in nothing but their seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
            key for key in dict.fromkeys(key for recipe in (own, *recipes) for key in recipe)
            if any(_comparable(key, own, x) and x.get(key) != own.get(key) for x in recipes)
        ]  # fmt: skip
        if len(told) > 1 and len({r["tasks"] for r in recipes if len(r["tasks"]) > 1}) == 1:
            told = [key for key in told if key != "tasks" or len(own["tasks"]) == 1]
        labels.append(", ".join(_word(key, own.get(key)) for key in told) or "all runs")
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
        return f"{value or 'no'} {option} samples"
    words = ".".join(slot[1:] if option == "name" else (*slot[1:], option))
    return f"{spell(words)} {'default' if value is None else shown(value)}"


def shown(value: Any) -> str:
    """A value as a user writes it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{k}={shown(v)}" for k, v in value.items())
    return ",".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def same_measure(a: Read, b: Read) -> bool:
    """Whether numbers of two runs can be compared: same tasks, data and image size."""
    return measure(a) == measure(b) and a.tasks == b.tasks


def measure(run: Read) -> tuple[Any, ...]:
    """Data and image size, which numbers depend on."""
    size = run.about.get("image_size") or run.config.get("image_size")
    samples = run.about.get("samples")
    return flat(run.config["data"]), samples, size, run.config.get("overfit", 0)
