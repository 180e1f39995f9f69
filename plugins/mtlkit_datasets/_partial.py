"""Labels taken away on purpose, to see what a task does without them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mtlkit import DatasetSpec, Sample

from ._samples import shuffled

Absent = Mapping[str, frozenset[str]]
"""By label, the ids of the samples that lose it."""


def absent(keep: Mapping[str, float], ids: Sequence[str], labels: Collection[str], /) -> Absent:
    """Which training samples lose which label.

    The order in which samples lose a label depends on their ids and the label alone, so that what
    a smaller share keeps a larger one keeps as well.

    Args:
        keep: share of the samples that keep a label, in [0, 1], by label.
        ids: of the training samples.
        labels: that there are.

    Raises:
        ValueError: there is no such label, or a share is out of range.
    """
    for label, share in keep.items():
        if label not in labels:
            raise ValueError(
                f"keep_labels names '{label}', but the labels are {', '.join(sorted(labels))}"
            )
        if not 0 <= share <= 1:
            raise ValueError(f"keep_labels is a share in [0, 1], got {label}={share}")
    return {label: frozenset(_order(label, ids)[round(share * len(ids)) :])
            for label, share in keep.items()}  # fmt: skip


def _order(label: str, ids: Sequence[str]) -> list[str]:
    words = {f"{label}/{id}": id for id in ids}
    return [words[word] for word in shuffled(words)]


def without(sample: Sample, absent: Absent, /) -> Sample:
    """The sample, less the labels it loses."""
    return {key: value for key, value in sample.items() if sample["id"] not in absent.get(key, ())}


def what_is_left(
    spec: DatasetSpec, absent: Absent, has: Mapping[str, Collection[str]], /
) -> DatasetSpec:
    """The description of what is left.

    Args:
        spec: of the whole.
        absent: what is taken away from the training samples.
        has: the ids of the training samples that have a label, by label.
    """
    left = {label: len(set(has[label]) - ids) for label, ids in absent.items()}
    targets = {
        name: replace(target, labelled={**target.labelled, "train": left[name]})
        if name in left
        else target
        for name, target in spec.targets.items()
    }
    return replace(spec, targets=targets)
