"""Answer: which tasks help and hurt each other, on the terminal and in files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mtlkit import measure
from mtlkit.affinity import attention
from mtlkit.affinity.attention import KINDS, Block
from mtlkit.affinity.effects import MOST_TASKS, Agreement, Effects, gather, with_interval
from mtlkit.affinity.heat_maps import heat_maps
from mtlkit.affinity.interval import Estimate
from mtlkit.affinity.lookahead import WHOLE, Look
from mtlkit.data import Split, TargetSpec
from mtlkit.loader import Batch, Key, Prepared
from mtlkit.session import Run

PICTURED = 3
"""Samples in the picture of attention."""
MOST_IMAGES = 512
"""Of val, whose attention is measured."""


@dataclass(frozen=True)
class Wanted:
    """How to measure.

    Args:
        held_out: compare losses on other images, of val, than those of the step.
        optimizer: let the run's optimiser take the step, with its state and learning rate.
        networks: the most to split the tasks into.
        attention: look at the tasks' masks too.
        command: what the user typed, for the file.
    """

    held_out: bool = False
    optimizer: bool = False
    networks: int = 2
    attention: bool = False
    command: str = ""


@dataclass
class Found:
    """What was measured in a run.

    Args:
        run: with the model whose attention is looked at.
        wanted: how it was measured.
        looks: in order.
        logged: the cosines in the log of a saved run, if it has any.
    """

    run: Run
    wanted: Wanted
    looks: list[Look] = field(default_factory=list)
    logged: Agreement | None = None


def tell(found: Found, output: Path | None) -> None:
    """Print the answer, and write it as numbers and pictures into a folder that is there."""
    run, ids = found.run, list(found.run.model.tasks)
    effects = gather(found.looks, ids)
    print("\n".join(_lines(found, effects)))
    tree = _tree(found, effects)
    if output:
        _draw(output / "affinity.png", effects)
    if found.wanted.attention:
        labels = {n: s for n, s in run.dataset.spec.targets.items() if s.kind in KINDS}
        blocks = attention.measure(run.model, _batches(run, labels, MOST_IMAGES), labels)
        print("\n".join(_attention_lines(blocks, list(labels))))
        tree["attention"] = [_block(block) for block in blocks]
        if output:
            few = next(_batches(run, labels, PICTURED))
            attention.picture(output / "attention.png", run.model, few, labels)
    if output:
        device = run.accelerator.device
        measure.write(output / "affinity.json", found.wanted.command, device, tree)
        print(f"\nwritten into {output}")


def _lines(found: Found, effects: Effects) -> Iterator[str]:
    """The answer without attention."""
    wanted, number = found.wanted, len(found.looks)
    lr = found.run.settings.lr
    how = "the optimizer's step" if wanted.optimizer else f"a gradient step (lr {lr:g})"
    where = "other images, of val" if wanted.held_out else "the same images"
    yield f"\nWhat {how} on the row's task does to each column's loss,"
    yield f"on {where}, in % (+ it falls, - it rises; 95 % intervals over {number} looks):"
    yield effects.effect_table()
    yield f"\n{effects.sentence()}\n"
    yield "Cosine of the tasks' gradients at the shared parameters (all, then by thirds of the"
    yield "layers), its standard deviation over looks, and in how many of them it is below 0:"
    yield effects.agreement_table()
    if found.logged:
        yield f"\nOver training, from the run's log ({int(found.logged.cosine.known.max())} lines):"
        yield Effects(effects.ids, effects.effect, {WHOLE: found.logged}).agreement_table()
    yield from _split_lines(effects, wanted.networks)


def _split_lines(effects: Effects, networks: int) -> Iterator[str]:
    best = effects.best_split(networks)
    if best is None:
        yield f"\nA split into networks is looked for among up to {MOST_TASKS} tasks."
        return
    together = 100 * effects.split([list(range(len(effects.ids)))]).total
    groups = " | ".join("+".join(effects.ids[i] for i in group) for group in best.groups)
    yield f"\nBest split into at most {networks} networks: {groups}"
    yield f"({100 * best.total:+.2g} %, one network {together:+.2g} %: the mean effect of a task's"
    yield "partners, summed over tasks; a heuristic that knows single steps, not trained networks)"


def _attention_lines(blocks: Sequence[Block], labels: Sequence[str]) -> Iterator[str]:
    yield "\nAttention on val: a mask's mean, its standard deviation over positions and channels,"
    yield "that over positions alone, and its mean inside of a label less its mean outside:"
    quantities = ["level", "spread", "spread over positions"]
    rows = [
        [
            "block",
            "task",
            "level",
            "spread",
            "positions",
            *(f"{attention.inside_of(n)} - out" for n in labels),
        ]
    ]
    for number, block in enumerate(blocks, start=1):
        for task, values in block.tasks.items():
            plain = [f"{float(values[name].mean):.3f}" for name in quantities]
            contrasts = [_contrast(values[attention.inside_of(name)]) for name in labels]
            rows.append([str(number), task, *plain, *contrasts])
    yield measure.columns(rows)
    yield "\nCorrelation of two tasks' masks over positions and channels, by block:"
    pairs = list(dict.fromkeys(pair for block in blocks for pair in block.similarity))
    heads = ["", *map(str, range(1, len(blocks) + 1))]
    yield measure.columns([heads, *([pair, *_similar(pair, blocks)] for pair in pairs)])


def _contrast(value: Estimate) -> str:
    return with_interval(float(value.mean), float(value.half), bool(value.sure), 4)


def _similar(pair: str, blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        value = block.similarity.get(pair)
        yield "" if value is None else f"{float(value.mean):+.2f}"


def _batches(run: Run, labels: Mapping[str, TargetSpec], most: int) -> Iterator[Batch]:
    """At most so many samples, evenly spread over val, or over what there is if there is none."""
    order: tuple[Split, ...] = ("val", "test", "train")
    split = next(split for split in order if run.dataset.spec.sizes.get(split))
    samples = run.samples(split, "none")
    prepared = Prepared(samples, labels, run.model.image_size, seed=run.settings.seed)
    number = min(most, len(samples))
    places = [n * len(samples) // number for n in range(number)]
    size = run.settings.batch_size
    for start in range(0, number, size):
        part = places[start : start + size]
        yield prepared.collate([prepared[Key(0, place, True)] for place in part])


def _draw(file: Path, effects: Effects) -> None:
    effect, agreement = effects.effect, effects.agreement[WHOLE]

    def effect_text(i: int, j: int) -> str:
        return effects.cell(i, j).replace(" ", "\n")

    def cosine_text(i: int, j: int) -> str:
        share = f"\nbelow 0:\n{agreement.conflicts[i, j]:.0%}" if i != j else ""
        return f"{agreement.cosine.mean[i, j]:+.2f}{share}"

    heat_maps(
        file,
        effects.ids,
        effect=100 * effect.mean.where(effect.sure, 0),
        effect_text=effect_text,
        cosine=agreement.cosine.mean,
        cosine_text=cosine_text,
    )


def _tree(found: Found, effects: Effects) -> dict[str, Any]:
    """All numbers, for the file."""
    run, wanted, ids = found.run, found.wanted, effects.ids
    best = effects.best_split(wanted.networks)
    return {
        "config": run.config,
        "tasks": list(ids),
        "step": "optimizer" if wanted.optimizer else "gradient",
        "lr": None if wanted.optimizer else run.settings.lr,
        "held_out": wanted.held_out,
        "answer": effects.sentence(),
        "affinity": _estimate(effects.effect),
        "agreement": {part: _agreement(value) for part, value in effects.agreement.items()},
        "agreement_logged": found.logged and _agreement(found.logged),
        "split": best and {
            "most_networks": wanted.networks,
            "networks": [[ids[i] for i in group] for group in best.groups],
            "total": best.total,
            "total_in_one_network": effects.split([list(range(len(ids)))]).total,
        },
        "looks": [
            {
                "step": look.step,
                "losses": _list(look.losses),
                "gradient_norms": _list(look.norms),
                "affinity": _list(look.affinity),
                "cosines": {part: _list(value) for part, value in look.cosines.items()},
            }
            for look in found.looks
        ],
    }  # fmt: skip


def _agreement(agreement: Agreement) -> dict[str, Any]:
    return {"cosine": _estimate(agreement.cosine), "conflicts": _list(agreement.conflicts)}


def _block(block: Block) -> dict[str, Any]:
    return {
        "size": block.size,
        "tasks": {
            task: {name: _estimate(value) for name, value in values.items()}
            for task, values in block.tasks.items()
        },
        "similarity": {pair: _estimate(value) for pair, value in block.similarity.items()},
    }


def _estimate(value: Estimate) -> dict[str, Any]:
    return {
        "mean": _list(value.mean),
        "half_width_95": _list(value.half),
        "sd": _list(value.sd),
        "known": value.known.tolist(),
    }


def _list(values: Tensor) -> Any:
    """Nested lists of numbers; JSON knows no NaN, so null stands for it."""
    if values.ndim:
        return [_list(value) for value in values]
    return float(values) if values.isfinite() else None
