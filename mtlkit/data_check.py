"""What a dataset holds and what is bad in it: ``mtlkit data check``."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from mtlkit import build, options, registry
from mtlkit.config import DEFAULTS
from mtlkit.data import (
    SPLITS,
    BadData,
    DataProblem,
    Dataset,
    DatasetSpec,
    Sample,
    Split,
    left_out,
    map_fault,
    one_line,
)
from mtlkit.errors import ConfigError, DataError, did_you_mean
from mtlkit.settings import Choice
from mtlkit.source import COMMAND_LINE, Given, Layer, label

SHOWN = 6
"""Samples of each split in the picture."""
MOST_CLASSES = 40
"""Classes of a label whose shares are printed."""
ROUNDING = 1e-3
UNLABELLED = "(not labelled)"


def choose(word: str, given: Layer) -> Choice:
    """The dataset that a user means by a name or a folder.

    Bad samples are left out, if the dataset can do that and the user does not say otherwise, so
    that the others are counted.

    Args:
        word: a registered name, which comes first, or a folder for the default reader.
        given: options as on the command line, ``data.root`` and so on.

    Raises:
        ConfigError: it is neither, or an option is unknown, missing or of another type.
    """
    known = registry.load()
    try:
        component = known.find("dataset", word)
    except ConfigError as error:
        if not Path(word).is_dir():
            raise ConfigError(f"{error}\n  note: and there is no folder '{word}'") from None
        component = known.find("dataset", DEFAULTS["reader"])
        given = {"data.root": Given(word, COMMAND_LINE), **given}
    cls = component.load()
    names = options.option_types(cls)
    known_keys = {f"data.{name}": name for name in names}
    for key in given:
        if key not in known_keys:
            near = did_you_mean(_label(key), map(_label, known_keys))
            raise ConfigError(f"unrecognized arguments: {_label(key)}{near}")
    own = {known_keys[key]: value for key, value in given.items()}
    if missing := sorted(options.required(cls) - own.keys()):
        where = ", ".join(_label(f"data.{name}") for name in missing)
        raise ConfigError(f"dataset '{component.name}' needs {where}")
    if "on_bad" in names:
        own.setdefault("on_bad", Given("skip", COMMAND_LINE))
    values = options.typed(cls, own, lambda name: _label(f"data.{name}"))
    return Choice(component.qualified, {name: values[name] for name in own})


def _label(key: str) -> str:
    return label(key, COMMAND_LINE)


@dataclass
class Found:
    """What is in a dataset.

    Args:
        spec: its own description; None where the data is refused as a whole.
        sizes: samples that can be read, by split.
        pixels: heights and widths of images.
        labelled: samples that have a label, by its name and split.
        classes: samples of a class, or pixels of a mask, by label, split and number.
        shown: the first samples of each split.
        problems: all that is bad.
    """

    spec: DatasetSpec | None = None
    sizes: Counter[str] = field(default_factory=Counter)
    pixels: set[tuple[int, int]] = field(default_factory=set)
    labelled: Counter[tuple[str, str]] = field(default_factory=Counter)
    classes: dict[tuple[str, str], Counter[int]] = field(default_factory=dict)
    shown: dict[str, list[Sample]] = field(default_factory=dict)
    problems: list[DataProblem] = field(default_factory=list)


def check(choice: Choice) -> Found:
    """Build a dataset and read all of it."""
    try:
        dataset: Dataset = build.create("dataset", choice)
    except BadData as error:
        return Found(problems=list(error.problems))
    except DataError as error:
        return Found(problems=[DataProblem(str(error))])
    found = Found(dataset.spec, problems=list(dataset.problems))
    for split in SPLITS:
        _read(found, dataset, split)
    return found


def _read(found: Found, dataset: Dataset, split: Split) -> None:
    samples = dataset.split(split)
    said = dataset.spec.sizes.get(split, 0)
    if len(samples) != said:
        text = f"{split}: has {len(samples)} samples, but the dataset's spec says {said}"
        found.problems.append(DataProblem(text))
    ids: Counter[str] = Counter()
    for index in tqdm(range(len(samples)), desc=f"reading {split}", leave=False, disable=None):
        where = f"sample {index} of {split}"
        try:
            sample = samples[index]
            where += f", {sample['id']}"
            faults = list(_faults(sample, dataset.spec))
        except Exception as error:  # a reader may raise anything
            text = (
                str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            )
            found.problems.append(DataProblem(f"{where}: {text}"))
            continue
        found.problems += [DataProblem(f"{where}: {fault}") for fault in faults]
        ids[sample["id"]] += 1
        if not faults:
            _count(found, sample, split, dataset.spec)
    twice = [id for id, number in ids.items() if number > 1]
    found.problems += [DataProblem(f"{split}: several samples are called {id}") for id in twice]


def _faults(sample: Sample, spec: DatasetSpec) -> Iterable[str]:
    """What is wrong with the values of a sample; their types are ``mtlkit check``'s matter."""
    size = tuple(sample["image"].shape[-2:])
    for name in sorted(sample.keys() - {"image", "id"}):
        if name not in spec.targets:
            yield f"has '{name}', which is not in the dataset's spec"
            continue
        target = spec.targets[name]
        value: Tensor = sample[name].as_subclass(Tensor)
        if target.kind in ("mask", "map") and tuple(value.shape[-2:]) != size:
            yield f"'{name}' has {list(value.shape[-2:])} pixels, its image {list(size)}"
        if target.kind in ("mask", "class"):
            ids = np.unique(value.numpy()).tolist()
            ids = [id for id in ids if target.kind == "class" or id != target.ignore_index]
            if strange := [id for id in ids if not 0 <= id < len(target.classes)]:
                yield f"'{name}' has class {strange[0]}; there are {len(target.classes)} classes"
        elif fault := map_fault(value, target.quantity):
            yield f"'{name}' {fault}"
        elif target.kind == "box":
            left, top, right, bottom = value.flatten().tolist()
            inside = min(left, top) >= -ROUNDING and bottom <= size[0] + ROUNDING
            if not (inside and left < right <= size[1] + ROUNDING and top < bottom):
                yield f"'{name}' is {[left, top, right, bottom]} in an image of {list(size)}"


def _count(found: Found, sample: Sample, split: str, spec: DatasetSpec) -> None:
    found.sizes[split] += 1
    found.pixels.add((sample["image"].shape[-2], sample["image"].shape[-1]))
    for name in sample.keys() & spec.targets.keys():
        found.labelled[name, split] += 1
        if spec.targets[name].kind in ("mask", "class"):
            ids, numbers = np.unique(sample[name].numpy(), return_counts=True)
            tally = found.classes.setdefault((name, split), Counter())
            tally.update(dict(zip(ids.tolist(), numbers.tolist(), strict=True)))
    shown = found.shown.setdefault(split, [])
    if len(shown) < SHOWN:
        shown.append(sample)


def describe(found: Found) -> str:
    """What ``mtlkit data check`` prints."""
    parts = []
    if found.spec is not None:
        parts += [_sizes(found), _coverage(found, found.spec)]
        parts += [
            _shares(found, name, target.classes, target.kind)
            for name, target in found.spec.targets.items()
            if target.kind in ("mask", "class")
        ]
    if not found.problems:
        return "\n\n".join([*parts, "all is good"])
    number = len(found.problems)
    lost = left_out(found.problems)
    skip = f"; --data.on-bad skip leaves out: {lost}" if lost else ""
    lines = [f"  {one_line(problem.text)}" for problem in found.problems]
    head = f"{number} problem{'s' * (number != 1)}{skip}"
    return "\n\n".join([*parts, "\n".join([head, *lines])])


def _sizes(found: Found) -> str:
    counts = ", ".join(f"{found.sizes[split]} {split}" for split in SPLITS)
    if not found.pixels:
        return counts
    low, high = (
        "x".join(str(pick(size[i] for size in found.pixels)) for i in (1, 0)) for pick in (min, max)
    )
    return f"{counts}; {low} to {high} pixels" if low != high else f"{counts}; {low} pixels"


def _coverage(found: Found, spec: DatasetSpec) -> str:
    rows = [["label", "kind", *SPLITS]]
    for name, target in spec.targets.items():
        cells = [
            f"{found.labelled[name, split]} ({_percent(found.labelled[name, split], size)})"
            for split in SPLITS
            for size in [found.sizes[split]]
        ]
        rows.append([name, target.kind, *cells])
    return _columns(rows)


def _shares(found: Found, name: str, classes: tuple[str, ...], kind: str) -> str:
    """A line for each class: its share of the labelled samples or pixels of each split."""
    tallies = [found.classes.get((name, split), Counter()) for split in SPLITS]
    known = dict(enumerate(classes))
    beyond = {id: UNLABELLED for tally in tallies for id in tally if id not in known}
    whole: Counter[int] = sum(tallies, Counter())
    shown = {id: known[id] for id in sorted(known, key=lambda id: -whole[id])[:MOST_CLASSES]}
    rows = [[f"{name}, {'pixels' if kind == 'mask' else 'samples'}", *SPLITS]]
    for id, word in {**dict(sorted(shown.items())), **beyond}.items():
        rows.append([word, *(_percent(tally[id], tally.total()) for tally in tallies)])
    more = f"\n... and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return _columns(rows) + more


def _percent(part: int, whole: int) -> str:
    if not whole:
        return "-"
    return "100 %" if part == whole else f"{100 * part / whole:.1f} %"


def _columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
