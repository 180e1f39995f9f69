"""What a notebook needs beside ``mtlkit.fit``: a loop of one's own, and the other commands."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from mtlkit import api
from mtlkit.bench import bench, bench_alone
from mtlkit.config import from_mapping
from mtlkit.data import Dataset, Split
from mtlkit.errors import ConfigError
from mtlkit.loader import Batch, Batches, Prepared, hash_words, read
from mtlkit.model import Model
from mtlkit.session import Run
from mtlkit.settings import Precision
from mtlkit.step import StepResult


class Trainer:
    """The parts of a run, for a training loop of one's own.

    The steps are those of :func:`mtlkit.fit` with the same options, to the last bit. Nothing is
    written, and no plugin is told of them::

        trainer = mtlkit.Trainer(tasks="seg,cls", data="shapes")
        for epoch in range(3):
            for batch in trainer.loader:
                result = trainer.training_step(batch)
            print(epoch, trainer.evaluate("val"))
        trainer.save("model")

    Args:
        options: as for :func:`mtlkit.fit`; ``data`` may be a dataset itself. The learning rate
            follows its schedule over ``epochs`` or ``max_steps``.

    Raises:
        ConfigError: something in the options is wrong.
    """

    def __init__(self, **options: Any) -> None:
        if options.get("resume"):
            raise ConfigError("a loop of one's own has no folder to resume; use mtlkit.fit")
        self.run = api.assemble(from_mapping(options))
        self.run.cache_samples()
        for line in self.run.model.backbone.initialise():
            self.run.say(line)
        self.loader = Epochs(self.run)
        self.model.train()

    @property
    def model(self) -> Model:
        """The network, in training mode."""
        return self.run.model

    def training_step(self, *batches: Batch) -> StepResult:
        """One optimiser step.

        Args:
            batches: one, or up to ``accumulate``, over all of which losses are averaged.

        Returns:
            ``losses`` and ``weights`` by task, on the device, and what else the balancer saw.

        Raises:
            ConfigError: there are more batches than ``accumulate``, or none.
            RunError: a loss or gradient is not finite.
        """
        run, settings, progress = self.run, self.run.settings, self.run.progress
        if not 1 <= len(batches) <= settings.accumulate:
            raise ConfigError(
                f"training_step got {len(batches)} batches; it takes 1 to {settings.accumulate}, "
                "the option accumulate"
            )
        if run.scheduler is not None:
            run.scheduler.step_update(progress.step)
        channels_last = settings.channels_last
        window = [run.model.prepare(batch, channels_last=channels_last) for batch in batches]
        result = run.engine(window, step=progress.step, epoch=progress.epoch)
        progress.step += 1
        return result

    def batch(self, images: Tensor, labels: Mapping[str, Sequence[Any] | Tensor]) -> Batch:
        """A batch for :meth:`training_step`, from a loader of one's own.

        Args:
            images: uint8 ``[B, 3, H, W]``, of the size the network sees.
            labels: by name, B values each, None for a missing one: of a ``mask`` ``[H, W]``, of a
                ``class`` a scalar, of a ``box`` ``[4]`` in fractions of the image's sides, of a
                ``map`` ``[C, H, W]``, of a ``vector`` ``[C]``, all tensors. Labels that are not
                given are missing.

        Raises:
            ConfigError: a name is not that of a label that a task learns.
        """
        prepared = self.loader.prepared
        for name in labels:
            if name not in prepared.targets:
                known = ", ".join(prepared.targets) or "none"
                raise ConfigError(f"no task learns a label '{name}'; labels: {known}")
        run = self.run
        words = (run.settings.seed, run.progress.step, run.accelerator.process_index)
        samples = [
            {
                "image": image,
                "id": str(i),
                "seed": hash_words(*words, i),
                "valid": True,
                "labels": {n: values[i] for n, values in labels.items() if values[i] is not None},
            }
            for i, image in enumerate(images)
        ]
        return prepared.collate(samples)

    def evaluate(self, split: Split = "val", *, full_size: bool = False) -> dict[str, float]:
        """Metrics and losses on a split, as they are in ``metrics.jsonl``; empty without samples.

        Args:
            split: train, val or test.
            full_size: compare masks, maps and boxes in the pixels of each picture.
        """
        self.run.engine.settle()
        self.run.engine.share_buffers()
        return self.run.evaluate(split, full_size=full_size)

    def save(self, folder: Path | str) -> None:
        """Write the model as :meth:`mtlkit.Model.save_pretrained` does, on the main process."""
        if self.run.main:
            self.model.save_pretrained(folder)
        self.run.accelerator.wait_for_everyone()


class Epochs:
    """The batches of training; each pass over them is an epoch, shuffled and augmented anew.

    A batch is a dict: ``image`` uint8 [B, 3, H, W], ``id``, ``targets`` and ``present`` by label,
    and what the noise of the images is drawn from.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._loader = run.loader("train", train=True)
        self._passes = 0

    @property
    def prepared(self) -> Prepared:
        """The samples that batches are made of."""
        return cast(Prepared, self._loader.dataset)

    def __len__(self) -> int:
        return cast(Batches, self._loader.batch_sampler).total

    def __iter__(self) -> Iterator[Batch]:
        batches = cast(Batches, self._loader.batch_sampler)
        self._run.progress.epoch = batches.epoch = self._passes
        self._passes += 1
        yield from read(self._loader)


def evaluate_run(
    run: Path | str,
    split: Split = "test",
    *,
    data: Dataset | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    full_size: bool = False,
) -> dict[str, float]:
    """Metrics and losses of a run's best model, as ``mtlkit evaluate`` prints them.

    Args:
        run: folder of the run.
        split: train, val or test.
        data: instead of what the run was trained on, or because that was an object.
        batch_size: by default the run's own.
        workers: by default the run's own.
        full_size: compare masks, maps and boxes in the pixels of each picture.

    Raises:
        CheckpointError: the folder holds no run with a model.
        ConfigError: the run's data cannot be built again.
    """
    return api.evaluate_run(
        Path(run), split, batch_size, workers, full_size=full_size, dataset=data
    )


def predict_files(
    run: Path | str,
    images: Sequence[Path | str] | Path | str,
    output: Path | str,
    *,
    batch_size: int = 16,
    precision: Precision = "no",
    channels_last: bool = True,
    compile: bool = False,
) -> int:
    """Predict for picture files, as ``mtlkit predict`` does.

    Args:
        run: folder of a run or of a model.
        images: picture files and folders of them, or one.
        output: folder of the answers.
        batch_size: pictures per forward pass.
        precision: arithmetic of the forward pass.
        channels_last: keep images in the memory order that convolutions like best.
        compile: compile the network.

    Returns:
        How many files could not be read; each is named on stderr.

    Raises:
        CheckpointError: the folder holds no model.
        ConfigError: the pictures or the output folder cannot be used.
    """
    several = [images] if isinstance(images, Path | str) else images
    return api.predict_files(
        Path(run),
        [Path(image) for image in several],
        Path(output),
        batch_size,
        precision=precision,
        channels_last=channels_last,
        compile=compile,
    )


def bench_balancers(
    balancers: Sequence[str] | None = None, *, rounds: int = 5, **options: Any
) -> dict[str, dict[str, Any]]:
    """What a step costs with each balancer, as ``mtlkit bench`` prints it.

    Args:
        balancers: which, with their defaults; None takes all that can be used.
        rounds: how often each is measured, in turn.
        options: as for :func:`mtlkit.fit`.

    Returns:
        By balancer, the numbers that ``mtlkit bench --output`` writes.
    """
    return bench(from_mapping(options), balancers, rounds=rounds)


def bench_networks(
    *, predict: bool = True, rounds: int = 5, **options: Any
) -> dict[str, dict[str, Any]]:
    """What one network for all tasks costs against one for each, as ``mtlkit bench`` prints it.

    Args:
        predict: measure forward passes; otherwise optimiser steps.
        rounds: how often each is measured, in turn.
        options: as for :func:`mtlkit.fit`.

    Returns:
        By network, the numbers that ``mtlkit bench --output`` writes.
    """
    return bench_alone(from_mapping(options), predict=predict, rounds=rounds)
