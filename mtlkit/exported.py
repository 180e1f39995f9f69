"""Exported: an ONNX file that ``mtlkit export`` wrote, answering like the run it came from."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlkit.build import create
from mtlkit.errors import CheckpointError, ConfigError, MtlkitError, RunError
from mtlkit.predictor import Predictor
from mtlkit.saved import KEYS, read_saved, writers
from mtlkit.task import Task
from mtlkit.tracing import INPUT, KEY

SUFFIX = ".onnx"


def need(*packages: str) -> None:
    """Refuse to go on without packages that are an extra.

    Raises:
        ConfigError: one of them cannot be imported.
    """
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise ConfigError(
                f'ONNX files need {package} ({error}): pip install "mtlkit[onnx]"'
            ) from None


class Exported(Predictor):
    """A network in an ONNX file, and the tasks that read its answers.

    Args:
        file: for messages.
        session: of onnxruntime.
        tasks: in the order of the outputs.
        image_size: height and width of the pictures it is given.
        batch_size: the only number of pictures it takes at a time; None takes any.
    """

    def __init__(
        self,
        file: Path,
        session: Any,
        tasks: list[Task],
        *,
        image_size: tuple[int, int],
        batch_size: int | None,
    ) -> None:
        self.file = file
        self.session = session
        self.tasks = {task.id: task for task in tasks}
        self.image_size = image_size
        self.batch_size = batch_size

    def raw(self, pictures: Tensor) -> dict[str, Tensor]:
        """Raw predictions by task id.

        Args:
            pictures: uint8 ``[B, 3, H, W]``; a file of one batch size is given as many batches as
                it takes, the last one filled up.

        Raises:
            RunError: the file cannot be run on these.
        """
        size = self.batch_size or len(pictures)
        batches = [self._run(batch, size) for batch in torch.split(pictures, size)]
        return {id: torch.cat([batch[id] for batch in batches]) for id in self.tasks}

    def _run(self, pictures: Tensor, size: int) -> dict[str, Tensor]:
        number = len(pictures)
        full = torch.cat((pictures, pictures[:1].expand(size - number, -1, -1, -1)))
        try:
            found = self.session.run(list(self.tasks), {INPUT: full.contiguous().numpy()})
        except Exception as error:  # onnxruntime's classes of errors have no name to import
            raise RunError(f"cannot run {self.file}: {error}") from error
        return {
            id: torch.from_numpy(values[:number])
            for id, values in zip(self.tasks, found, strict=True)
        }


def is_exported(path: Path) -> bool:
    """Whether it is a file that was exported, not the folder of a run or model.

    Raises:
        ConfigError: it is one of torch's, which can run code of whoever made it.
    """
    if path.is_dir():
        return False
    if path.suffix == ".pt2":
        raise ConfigError(
            f"loading {path} would run whatever code is in it; export as ONNX to predict, or use "
            "torch.export.load if you trust it"
        )
    return path.suffix == SUFFIX


def load_exported(file: Path) -> Exported:
    """What ``mtlkit export`` wrote, ready for ``predict(image)``.

    Nothing in the file is ever executed but ONNX's own operations; weights may lie outside of it
    only beside it.

    Raises:
        CheckpointError: it is no ONNX file, was not written by mtlkit, or needs a plugin that is
            absent.
        ConfigError: onnx or onnxruntime is not installed.
    """
    need("onnx", "onnxruntime")
    session = _session(file)
    about = _about(file, session)
    try:
        saved = read_saved({key: about[key] for key in KEYS if key in about})
        size = saved.image_size
        tasks = [create("task", choice, id, saved.spec, size) for id, choice in saved.tasks.items()]
        batch_size = about["input"]["batch_size"]
        found = Exported(file, session, tasks, image_size=size, batch_size=batch_size)
    except (KeyError, TypeError, ValueError, AttributeError, MtlkitError) as error:
        raise CheckpointError(
            f"cannot rebuild the tasks of {file}: {error}{writers(about)}"
        ) from error
    missing = set(found.tasks) - {output.name for output in session.get_outputs()}
    if missing:
        raise CheckpointError(f"{file} has no output for {', '.join(sorted(missing))}")
    return found


def _session(file: Path) -> Any:
    """Onnxruntime's, of a file that is whole and reads no other file but one beside it."""
    import onnx
    import onnxruntime

    if not file.is_file():
        raise CheckpointError(f"there is no file {file}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails raises; it need not be printed as well
    options.intra_op_num_threads = torch.get_num_threads()
    able = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in able]
    try:
        # it refuses data in other folders and behind links; so do later versions of onnxruntime
        onnx.checker.check_model(str(file))
        return onnxruntime.InferenceSession(file, options, providers=providers)
    except Exception as error:  # onnx, protobuf and onnxruntime each have their own
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"cannot read {file} as an ONNX file: {reason}") from error


def _about(file: Path, session: Any) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        raise CheckpointError(f"{file} was not written by mtlkit export: it has no '{KEY}' entry")
    try:
        about = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"the '{KEY}' entry of {file} is no JSON: {error}") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"the '{KEY}' entry of {file} is no mapping")
    return about
