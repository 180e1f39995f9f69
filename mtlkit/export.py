"""Export: a saved model's network, or a part of it, as one file that runs without mtlkit."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from mtlkit.agreement import Difference, compare
from mtlkit.build import build_model, load_model
from mtlkit.data import DatasetSpec, one_line
from mtlkit.errors import ConfigError, RunError, did_you_mean
from mtlkit.exported import load_exported, need
from mtlkit.model import Model
from mtlkit.saved import read_saved
from mtlkit.tracing import INPUT, Graph, InputShape, trace, write_onnx, write_pt2

Format = Literal["onnx", "pt2"]

DECODED = 32
"""Decoders halve the image five times; varying sides are multiples of this as well."""


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        file: where.
        bytes: of the file and of what lies beside it.
        parameters: of the network in the file.
        of_parameters: of the whole network.
        pictures: random ones that were compared.
        sizes: of these, height and width.
        differences: by task id.
    """

    file: Path
    bytes: int
    parameters: int
    of_parameters: int
    pictures: int
    sizes: list[tuple[int, int]]
    differences: dict[str, Difference]


def export_model(
    folder: Path,
    output: Path,
    *,
    format: Format | None = None,
    tasks: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    dynamic: bool = False,
    batch_size: int | None = None,
) -> Report:
    """Write the network of a run or model folder as one file, and compare it with PyTorch.

    Args:
        folder: of a run, or of a model.
        output: the file; one that is there is replaced when all is well.
        format: by default what the file's name ends in.
        tasks: ids of those to predict; what only others need is left out. By default all.
        image_size: height and width, by default those of the run.
        dynamic: take pictures of any height and width that the network can.
        batch_size: take exactly so many pictures at a time; by default any number.

    Raises:
        CheckpointError: the folder holds no model.
        ConfigError: an option cannot be, the file cannot be written, or a package is missing.
        RunError: the network cannot be exported, or the file does not do what the network does.
    """
    format = _format(output, format)
    if format == "onnx":
        need("onnx", "onnxscript", "onnxruntime")
    whole = load_model(folder, image_size)
    config = whole.config
    part = take_part(whole, config, tasks or tuple(whole.tasks))
    shape = InputShape(whole.image_size, batch_size, _step(whole) if dynamic else None)
    about = json.dumps(describe(part, config, shape), indent=1)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".mtlkit-", dir=output.parent) as place:
            file = Path(place) / output.name
            _write(part, whole, file, format, about, shape)
            sizes = _sizes(shape)
            differences, pictures = compare(_runner(file, format), part, whole, shape, sizes)
            written = list(Path(place).iterdir())
            total = sum(path.stat().st_size for path in written)
            for path in written:
                path.replace(output.parent / path.name)
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror or error}") from error
    return Report(output, total, _count(part), _count(whole), pictures, sizes, differences)


def _step(model: Model) -> int:
    """Of which number the sides may be any multiple, from twice on."""
    step = math.lcm(model.backbone.multiple, DECODED)
    height, width = model.image_size
    if height % step or width % step or min(height, width) < 2 * step:
        raise ConfigError(
            f"--dynamic takes sides that are multiples of {step} from {2 * step} on, which "
            f"{height} x {width} are not; give it such an --image-size as well"
        )
    try:
        for size in _sizes(InputShape(model.image_size, step=step)):
            model.backbone.check_size(*size)
    except ValueError as error:
        raise ConfigError(f"--dynamic is not for this network: {error}") from error
    return step


def _format(output: Path, format: Format | None) -> Format:
    ends = output.suffix.removeprefix(".")
    if ends not in ("onnx", "pt2") or format not in (None, ends):
        raise ConfigError(f"{output} must end in .{format or 'onnx or .pt2'}")
    return "onnx" if ends == "onnx" else "pt2"


def _count(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def take_part(whole: Model, config: Mapping[str, Any], tasks: Sequence[str]) -> Model:
    """A model of some of the tasks, with the weights that they use in the whole one.

    Args:
        whole: the saved model.
        config: saved with it.
        tasks: ids, in any order.

    Raises:
        ConfigError: there is no such task, or the network does not come apart.
    """
    for id in tasks:
        if id == INPUT:
            raise ConfigError(f"a task called '{INPUT}' cannot be exported: so is the input")
        if id not in whole.tasks:
            near = did_you_mean(id, whole.tasks)
            raise ConfigError(f"no task '{id}' in this run{near} It has: {', '.join(whole.tasks)}")
    if set(tasks) == set(whole.tasks):
        return whole
    saved = read_saved(config)
    part = build_model(
        {id: choice for id, choice in saved.tasks.items() if id in tasks},
        saved.backbone,
        saved.spec,
        image_size=whole.image_size,
        views=whole.views,
        channels=whole.backbone.in_channels,
    )
    state = whole.state_dict()
    try:
        part.load_state_dict({name: state[name] for name in part.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise ConfigError(
            f"this network does not come apart by task: {one_line(str(error))}; export all tasks"
        ) from error
    return part.eval()


def describe(part: Model, config: Mapping[str, Any], shape: InputShape) -> dict[str, Any]:
    """What the file says about itself: the saved configuration of its tasks, and how to use it."""
    spec = DatasetSpec.from_json(config["data"])
    outputs = {}
    for id, task in part.tasks.items():
        place = ["B", task.out_channels, "H", "W"][: 4 if task.output == "map" else 2]
        outputs[id] = {"task": config["tasks"][id]["name"], "shape": place}
        outputs[id] |= {"meaning": task.meaning()} if task.meaning() else {}
        if task.target is not None and (classes := task.target_spec(spec).classes):
            outputs[id]["classes"] = list(classes)
    return {
        **config,
        "tasks": {id: config["tasks"][id] for id in part.tasks},
        "image_size": list(part.image_size),
        "input": {
            "name": INPUT,
            "type": "uint8",
            "shape": ["B", 3, "H", "W"],
            "meaning": "RGB in [0, 255], as decoded from a file; the network normalises it itself",
            "mean": part.mean.flatten().tolist(),
            "std": part.std.flatten().tolist(),
            "batch_size": shape.batch_size,
            "sides": f"any multiple of {shape.step} from {2 * shape.step} on"
            if shape.step
            else list(shape.size),
            "resize": "bilinear with antialiasing, each side on its own",
        },
        "outputs": outputs,
    }


def _write(
    part: Model, whole: Model, file: Path, format: Format, about: str, shape: InputShape
) -> None:
    try:
        program = trace(Graph(part, whole), shape)
        if format == "onnx":
            write_onnx(program, file, about, tasks=tuple(part.tasks), shape=shape)
        else:
            write_pt2(program, file, about)
    except OSError:
        raise
    except Exception as error:  # the exporters share no class of errors
        reason = one_line(str(error).strip().partition("\n")[0])
        hint = "; without --dynamic it may be possible" if shape.step else ""
        raise RunError(f"this network cannot be exported as {format}: {reason}{hint}") from error


def _runner(file: Path, format: Format) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """What gives the raw predictions of a file that we have just written."""
    if format == "onnx":
        return load_exported(file).raw
    module = torch.export.load(file).module()  # runs what a stranger may have put into it
    return lambda pictures: dict(module(pictures))


def _sizes(shape: InputShape) -> list[tuple[int, int]]:
    """At which sizes a file is tried: its own, and others if it takes them."""
    if shape.step is None:
        return [shape.size]
    step = shape.step
    return list(dict.fromkeys([shape.size, (2 * step, 2 * step), (3 * step, 2 * step)]))
