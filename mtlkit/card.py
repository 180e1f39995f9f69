"""The model card: what a model does, on which data, how well, how it was trained, how to use it.

Everything is read from the model and the files of its run. Names that somebody chose (of classes,
labels, tasks) are data: they are escaped, and cannot become markup.
"""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import yaml

from mtlkit.data import SPLITS, DatasetSpec, one_line
from mtlkit.errors import CheckpointError
from mtlkit.markdown import escape, fenced, table

if TYPE_CHECKING:
    from mtlkit.model import Model

CARD = "README.md"
SHOWN_CLASSES = 20
HUB_TASKS = {"mask": "image-segmentation", "class": "image-classification"}
"""What the Hub calls tasks on labels of a kind; of the other kinds it has none that is the same."""
_PRIVATE = ("output", "resume")
"""Options that say where a run was on its machine."""


def card(model: "Model", name: str, run: Path | None = None) -> str:
    """The text of ``README.md``.

    Args:
        model: built by mtlkit.
        name: of the model: ``USER/NAME`` or that of its folder.
        run: folder of the run that trained it; without one the card is shorter.

    Raises:
        CheckpointError: a file of the run is damaged.
    """
    name = one_line(name)
    results = _read(run, "results.json")
    config, machine = _read(run, "config.yaml"), _read(run, "env.json")
    spec = DatasetSpec.from_json(model.config["data"])
    parts = [
        f"# {escape(name)}",
        _summary(model),
        _tasks(model, spec),
        _use(model, name),
        _data(spec, config),
        *([_metrics(model, results, config)] if results else []),
        *([_training(model, results, config, machine)] if config else []),
        _limits(model, results, config),
    ]
    return (
        f"---\n{_front_matter(model, name, results, config)}\n---\n\n" + "\n\n".join(parts) + "\n"
    )


def _read(run: Path | None, file: str) -> dict[str, Any]:
    """A file of a run; empty if there is none."""
    if run is None or not (run / file).is_file():
        return {}
    try:
        text = (run / file).read_text(encoding="utf-8")
        tree = yaml.safe_load(text) if file.endswith(".yaml") else json.loads(text)
        return dict(tree)
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot read {run / file}: {reason}") from None


def _front_matter(
    model: "Model", name: str, results: Mapping[str, Any], config: Mapping[str, Any]
) -> str:
    """What the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    types = {id: HUB_TASKS[task.kind] for id, task in model.tasks.items() if task.kind in HUB_TASKS}
    kinds = list(dict.fromkeys(types.values()))
    data = one_line(config["data"]["name"]) if config and not config.get("overfit") else ""
    found = [
        EvalResult(
            task_type=types[id],
            dataset_type=data,
            dataset_name=data,
            dataset_split="test",
            metric_type=metric,
            metric_name=f"{id}/{metric}",
            metric_value=value,
        )
        for id, metric, value in _measured(results.get("test", {}))
        if id in types and value is not None and metric != "loss" and data
    ]
    return ModelCardData(
        library_name="mtlkit",
        tags=["mtlkit", "multi-task-learning", "pytorch", *kinds],
        pipeline_tag=kinds[0] if len(model.tasks) == len(kinds) == 1 else None,
        model_name=name,
        eval_results=found or None,
    ).to_yaml()


def _measured(values: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    """Task, metric and value of each; the task of the sum of losses is empty."""
    for key, value in values.items():
        id, _, metric = key.rpartition("/")
        yield id, metric, value


def _summary(model: "Model") -> str:
    number = len(model.tasks)
    tasks = "one task" if number == 1 else f"{number} tasks at once"
    parameters = sum(p.numel() for p in model.parameters())
    height, width = model.image_size
    return (
        f"One network for {tasks}, of {parameters:,} parameters, trained with mtlkit. Its backbone "
        f"is {escape(model.config['backbone']['name'])}; it sees pictures at {height} x {width} "
        "pixels (height x width)."
    )


def _tasks(model: "Model", spec: DatasetSpec) -> str:
    rows = []
    for id, task in model.tasks.items():
        classes = spec.targets[task.target].classes if task.target else ()
        rows.append((escape(id), _what(type(task)), _names(classes)))
    return table(("task", "what it answers", "classes"), rows)


def _what(kind: type) -> str:
    """The first line of a component's documentation."""
    lines = (inspect.getdoc(kind) or kind.__name__).splitlines()
    return escape(lines[0].replace("``", ""))


def _names(classes: Sequence[str]) -> str:
    shown = ", ".join(map(escape, islice(classes, SHOWN_CLASSES)))
    more = len(classes) - SHOWN_CLASSES
    return f"{shown} and {more} more, in config.json" if more > 0 else shown


def _use(model: "Model", name: str) -> str:
    first, place = (
        json.dumps(word, ensure_ascii=False) for word in (next(iter(model.tasks)), name)
    )
    code = (
        "import mtlkit\n"
        "from PIL import Image\n\n"
        f"model = mtlkit.Model.from_pretrained({place})  # USER/NAME on the Hub, or a folder\n"
        'picture = Image.new("RGB", (320, 240))  # yours: Image.open("picture.jpg")\n'
        "answer = model.predict(picture)\n"
        f"print(answer[{first}])\n"
    )
    needs = " and ".join(f"{escape(n)} {escape(v)}" for n, v in model.config["plugins"].items())
    return (
        f"## Use it\n\n{fenced(code, 'python')}\n\nThe answer has an entry for each task, in the "
        f"picture's own pixels. It needs {needs}."
    )


def _data(spec: DatasetSpec, config: Mapping[str, Any]) -> str:
    name = f"Dataset {escape(config['data']['name'])}: " if config else "Samples: "
    sizes = ", ".join(f"{spec.sizes.get(split, 0):,} {split}" for split in SPLITS)
    rows = [
        (escape(name), escape(target.kind), *(_coverage(spec, name, split) for split in SPLITS))
        for name, target in spec.targets.items()
    ]
    coverage = table(("samples with this label", "kind", *SPLITS), rows)
    return f"## Data\n\n{name}{sizes}.\n\n{coverage}"


def _coverage(spec: DatasetSpec, target: str, split: str) -> str:
    labelled = spec.targets[target].labelled.get(split)
    size = spec.sizes.get(split, 0)
    if labelled is None or not size:
        return "not counted" if labelled is None else f"{labelled:,}"
    return f"{labelled:,} ({labelled / size:.0%})"


def _metrics(model: "Model", results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    test, val = results.get("test", {}), results.get("val", {})
    rows = []
    for id, metric, _ in _measured({**test, **val}):
        key = f"{id}/{metric}" if id else metric
        primary = id in model.tasks and metric == model.tasks[id].primary
        shown = f"**{escape(metric)}**" if primary else escape(metric)
        rows.append((escape(id) or "all", shown, _number(test.get(key)), _number(val.get(key))))
    found = table(("task", "metric", "test", "val"), rows)
    return (
        f"## Results\n\n{found}\n\n{_choice(val, config)} "
        "Test was evaluated once, with it. The loss of all is the plain sum."
    )


def _choice(val: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Which of a run's models this is."""
    if not val:
        return "This is the last model: there was no val split to choose by."
    monitor = config.get("monitor")
    by = escape(monitor) if monitor else "the mean of the tasks' main metrics (bold)"
    return f"This is the model of the best evaluation on val, by {by}."


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _training(
    model: "Model",
    results: Mapping[str, Any],
    config: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> str:
    facts = [
        ("backbone", _named(config["backbone"])),
        ("balancer", _named(config["balancer"])),
        ("epochs", config.get("epochs")),
        ("images per step", _effective(config, machine)),
        ("optimiser steps", results.get("steps")),
        ("best after step", results.get("best_step")),
        ("seconds", round(results["seconds"]) if "seconds" in results else None),
        ("seed", config.get("seed")),
        ("precision", config.get("precision")),
        ("device", machine.get("device")),
        ("processes", machine.get("processes")),
        ("platform", machine.get("platform")),
        ("commit of the folder it was started in", machine.get("commit")),
        ("Python", machine.get("python")),
        *({**machine.get("versions", {}), **config.get("plugins", {})}).items(),
    ]
    rows = [(escape(str(key)), escape(str(value))) for key, value in facts if value is not None]
    shared = {key: value for key, value in config.items() if key not in _PRIVATE}
    text = yaml.safe_dump(_without_places(shared), sort_keys=False, default_flow_style=None)
    ended = "" if results else "The run had not ended when this was written.\n\n"
    return (
        f"## Training\n\n{ended}{table(('', ''), rows)}\n\n"
        "Again: `mtlkit train --config config.yaml`, with this `config.yaml`:\n\n"
        f"<details>\n<summary>config.yaml</summary>\n\n{fenced(text, 'yaml')}\n\n</details>"
    )


def _named(choice: Mapping[str, Any]) -> str:
    """A component and its simple options."""
    options = _without_places({k: v for k, v in choice.items() if k != "name" and v is not None})
    return ", ".join([choice["name"], *(f"{key} {value}" for key, value in options.items())])


def _effective(config: Mapping[str, Any], machine: Mapping[str, Any]) -> int:
    processes: int = machine.get("processes", 1)
    return int(config["batch_size"]) * int(config["accumulate"]) * processes


def _without_places(tree: Any) -> Any:
    """A tree without the folders of the machine it was written on; files keep their names."""
    if isinstance(tree, Mapping):
        return {key: _without_places(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_places(value) for value in tree]
    if isinstance(tree, str):
        for path in (PurePosixPath(tree), PureWindowsPath(tree)):
            if path.is_absolute() or tree.startswith("~"):
                return f"PATH/TO/{path.name}"
    return tree


def _limits(model: "Model", results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    height, width = model.image_size
    lines = [
        f"Pictures are resized to {height} x {width} pixels, each side on its own: what is smaller "
        "than a pixel then is not seen.",
        "It always answers; nothing says that a picture is unlike those it was trained on."
        + (" The results are for pictures like those of the test split." if results else ""),
    ]
    if config.get("overfit"):
        lines.append(f"It was trained and measured on the same {config['overfit']} images.")
    if any(task.kind == "box" for task in model.tasks.values()):
        lines.append("One box per picture, whether there is one object, none or several.")
    unmeasured = sorted(
        {id for id, _, value in _measured(results.get("test", {})) if id and value is None}
    )
    if unmeasured:
        lines.append(f"Not all could be measured on test of: {', '.join(map(escape, unmeasured))}.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)
