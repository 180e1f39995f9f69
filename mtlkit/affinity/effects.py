"""Effects: what many looks at the tasks say together, in numbers and in words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from mtlkit.affinity.interval import Estimate, estimate
from mtlkit.affinity.lookahead import Look
from mtlkit.measure import columns

NOISE = "."
MOST_TASKS = 8
"""Of which all ways to split them are tried: 4140."""
MOST_NAMED = 6


@dataclass(frozen=True)
class Agreement:
    """How the gradients of each pair of tasks agree.

    Args:
        cosine: ``[T, T]`` over looks.
        conflicts: ``[T, T]`` share of the looks in which it is below 0.
    """

    cosine: Estimate
    conflicts: Tensor


@dataclass(frozen=True)
class Split:
    """Tasks spread over networks.

    Args:
        groups: positions of the tasks of each network.
        total: the sum over tasks of the mean effect on each from the others in its network.
    """

    groups: list[list[int]]
    total: float


@dataclass(frozen=True)
class Effects:
    """What the looks say.

    Args:
        ids: of the T tasks.
        effect: ``[T, T]``: of a step on the row's task on the loss of the column's.
        agreement: by part of the shared parameters.
    """

    ids: Sequence[str]
    effect: Estimate
    agreement: dict[str, Agreement]

    def sentence(self) -> str:
        """The answer in a line: the largest effects that are not noise."""
        size = len(self.ids)
        pairs = [(i, j) for i in range(size) for j in range(size) if i != j]
        sure = [(i, j) for i, j in pairs if self.effect.sure[i, j]]
        sure.sort(key=lambda pair: -abs(float(self.effect.mean[pair])))
        named = ", ".join(self._named(i, j) for i, j in sure[:MOST_NAMED])
        more = f", and {len(sure) - MOST_NAMED} more" if len(sure) > MOST_NAMED else ""
        noise = f"effects within noise are shown as {NOISE}" if len(sure) < len(pairs) else ""
        if not sure:
            named = "no task's step changes another task's loss by more than noise"
        return "; ".join(filter(None, (named + more, noise)))

    def _named(self, i: int, j: int) -> str:
        value = 100 * float(self.effect.mean[i, j])
        return f"{self.ids[i]} {'helps' if value > 0 else 'hurts'} {self.ids[j]} ({value:+.2g} %)"

    def effect_table(self) -> str:
        """A row for each task that steps; in percent."""
        places = range(len(self.ids))
        rows = [[id, *(self.cell(i, j) for j in places)] for i, id in enumerate(self.ids)]
        return columns([["", *self.ids], *rows])

    def cell(self, i: int, j: int) -> str:
        """An effect in percent with its interval, in decimals that suit the row's other tasks."""
        mean, half = ([100 * x for x in part[i].tolist()] for part in self.effect[:2])
        digits = _digits([*mean[:i], *mean[i + 1 :], *half[:i], *half[i + 1 :]])
        return with_interval(mean[j], half[j], bool(self.effect.sure[i, j]), digits)

    def agreement_table(self) -> str:
        """A row for each pair of tasks: cosine, its standard deviation, share of conflicts."""
        rows = [["", *self.agreement]]
        for i, a in enumerate(self.ids):
            for j, b in enumerate(self.ids[:i]):
                cells = [
                    f"{found.cosine.mean[i, j]:+.2f} sd {found.cosine.sd[i, j]:.2f}, "
                    f"{found.conflicts[i, j]:4.0%}"
                    for found in self.agreement.values()
                ]
                rows.append([f"{b}+{a}", *cells])
        return columns(rows)

    def best_split(self, networks: int) -> Split | None:
        """The split into at most so many networks with the largest total, the fewest of equals.

        Effects within noise count as none. None for more tasks than ``MOST_TASKS``.
        """
        size = len(self.ids)
        if size > MOST_TASKS:
            return None
        found = [self.split(groups) for groups in splits(size, networks)]
        return max(found, key=lambda split: (split.total, -len(split.groups)))

    def split(self, groups: list[list[int]]) -> Split:
        """What these networks come to."""
        effect = torch.where(self.effect.sure, self.effect.mean, 0).tolist()
        total = sum(
            fmean(effect[i][j] for i in group if i != j)
            for group in groups if len(group) > 1 for j in group
        )  # fmt: skip
        return Split(groups, total)


def gather(looks: Sequence[Look], ids: Sequence[str]) -> Effects:
    """What these looks say together."""
    effect = estimate(torch.stack([look.affinity for look in looks]))
    agreement = {
        part: agree(torch.stack([look.cosines[part] for look in looks]))
        for part in looks[0].cosines
    }
    return Effects(ids, effect, agreement)


def agree(cosines: Tensor) -> Agreement:
    """Of cosines ``[N, T, T]``, NaN where they are not known."""
    conflicts = torch.where(cosines.isfinite(), (cosines < 0).double(), torch.nan)
    return Agreement(estimate(cosines), conflicts.nanmean(0))


def logged(history: Sequence[Mapping[str, float | None]], ids: Sequence[str]) -> Agreement | None:
    """From the cosines in the lines of metrics.jsonl; None if there are none."""
    lines = [line for line in history if any(key.endswith("/cosine") for key in line)]
    if not lines:
        return None
    cosines = torch.full((len(lines), len(ids), len(ids)), torch.nan, dtype=torch.float64)
    for i, a in enumerate(ids):
        for j, b in enumerate(ids[:i]):
            known = [line.get(f"{b}+{a}/cosine") for line in lines]
            values = [math.nan if value is None else value for value in known]
            cosines[:, i, j] = cosines[:, j, i] = torch.tensor(values, dtype=torch.float64)
    return agree(cosines)


def splits(size: int, most: int) -> Iterator[list[list[int]]]:
    """Every way to spread the numbers below ``size`` over 1 to ``most`` groups."""
    if size == 0:
        yield []
        return
    for groups in splits(size - 1, most):
        for place in range(len(groups)):
            yield [[*g, size - 1] if n == place else g for n, g in enumerate(groups)]
        if len(groups) < most:
            yield [*groups, [size - 1]]


def with_interval(mean: float, half: float, sure: bool, digits: int) -> str:
    """A number with half its interval's width; a dot instead of what is noise."""
    number = f"{mean:+.{digits}f}" if sure else NOISE
    return f"{number} ±{half:.{digits}f}"


def _digits(values: Sequence[float]) -> int:
    """Decimals that leave two digits of the largest absolute value."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0)
    return min(max(1 - math.floor(math.log10(largest or 1.0)), 0), 9)
