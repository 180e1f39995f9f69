"""What the command line does, in Python."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object

from mtlkit import build as building
from mtlkit import registry, report, summary
from mtlkit.build import (
    Parts,
    build,
    build_engine,
    build_optimizer,
    build_scheduler,
    load_model,
    model_config,
)
from mtlkit.config import from_mapping, plugins, to_mapping
from mtlkit.data import SPLITS, Dataset, Split, left_out
from mtlkit.errors import CheckpointError, ConfigError, MtlkitError
from mtlkit.exported import Exported, is_exported, load_exported
from mtlkit.model import Model, take_single_values
from mtlkit.predict import predict_files as predict_with
from mtlkit.record import write_about
from mtlkit.resume import resume
from mtlkit.run import RunFolder
from mtlkit.saving import on_main
from mtlkit.session import Run, make_accelerator, planned_steps
from mtlkit.settings import Choice, Config, Precision, Settings
from mtlkit.sharing import find_sharing
from mtlkit.train import train


def names(kind: str) -> list[str]:
    """Registered names of a kind: task, head, backbone, balancer or dataset."""
    return list(registry.load().names(kind))


def create(kind: str, name: str, *given: Any, **options: Any) -> Any:
    """Build any registered component.

    Args:
        kind: task, head, backbone, balancer or dataset.
        name: as registered.
        given: what the framework gives to a component of this kind, in order.
        options: its own.

    Raises:
        ConfigError: there is no such component, or it refuses an option.
    """
    return building.create(kind, Choice(name, options), *given)


def load(path: Path | str) -> Model | Exported:
    """The model of a run or model folder, or an exported file, for ``model.predict(image)``."""
    return load_exported(Path(path)) if is_exported(Path(path)) else load_model(Path(path))


def fit(**options: Any) -> dict[str, Any]:
    """Train, as the command line does, with the same options.

    Args:
        options: general options by name (``max_steps=10``); components by name (``data="shapes"``)
            or with options (``backbone={"name": "segnet", "width": 16}``). ``data`` may be a
            dataset itself; then no file can build it again.

    Returns:
        The content of results.json, and under ``folder`` where the run is.
    """
    return run_config(from_mapping(options))


def run_config(config: Config) -> dict[str, Any]:
    """Train what a configuration describes, to the end."""
    run = assemble(config)
    describe(run)
    run.cache_samples()
    start(run)
    try:
        results = train(run)
    finally:  # a run that fails or is stopped has a report too
        if run.main:
            report.write_after(run.folder.path, run.say)
    return {**results, "folder": str(run.folder.path)}


def dry_run(config: Config) -> None:
    """Build everything, say what would be trained, write nothing."""
    describe(assemble(config))


def start(run: Run) -> None:
    """Make the run's folder and load initial weights, or go on where the run was.

    Raises:
        CheckpointError: there is nothing to go on from, or it does not fit.
    """
    folder, device = run.folder, str(run.accelerator.device)
    again = bool(run.settings.resume)
    if again and not run.checkpoints.exist() and not folder.began():
        raise CheckpointError(
            f"nothing to resume in {folder.path}: it has no checkpoints/last; "
            "start without --resume"
        )
    if again:
        on_main(run, folder.lock)
    if again and run.checkpoints.exist():
        resume(run)
    else:
        for line in run.model.backbone.initialise():
            run.say(line)
        if not again:  # last, so that a mistake found before leaves no folder behind
            on_main(run, folder.create)
        if again:
            run.say(f"nothing was saved in {folder.path} yet: it starts from the beginning")
            on_main(run, lambda: folder.rewind(0))
    processes = run.accelerator.num_processes

    def describe_run() -> None:
        folder.write_config(run.config, device, processes)
        write_about(run)

    on_main(run, describe_run)
    if run.settings.log_with:
        text = yaml.safe_dump(run.config)
        run.accelerator.init_trackers("mtlkit", config={"config": text})


def assemble(config: Config, dataset: Dataset | None = None) -> Run:
    """All parts of the run that a configuration describes; nothing is written yet.

    Args:
        config: of the run.
        dataset: built already from that configuration.

    Raises:
        ConfigError: something in the configuration cannot be.
    """
    settings = config.settings
    if settings.deterministic:
        torch.use_deterministic_algorithms(True)
    folder = RunFolder(settings.output or _default_output(config))
    accelerator = make_accelerator(settings, str(folder.path))
    parts = _build(config, dataset, accelerator)
    model, balancer = parts.model, parts.balancer
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    model.to(memory_format=layout).to(accelerator.device)
    sharing = find_sharing(model)
    sharing.freeze_unused(model)
    optimizer = build_optimizer(settings, model, balancer)
    prepared = accelerator.prepare_optimizer(optimizer)
    engine = build_engine(settings, accelerator, model, balancer, prepared, sharing)
    samples, processes = parts.dataset.spec.sizes["train"], accelerator.num_processes
    if settings.batch_size == 1 or samples <= processes:
        take_single_values(model)
    per_epoch, steps = planned_steps(settings, samples, processes)
    chosen = to_mapping(config)
    return Run(
        settings=settings,
        folder=folder,
        dataset=parts.dataset,
        model=model,
        balancer=balancer,
        engine=engine,
        optimizer=prepared,
        scheduler=build_scheduler(settings, optimizer, steps),
        steps=steps,
        steps_per_epoch=per_epoch,
        accelerator=accelerator,
        config=chosen | {"plugins": plugins(config)},
        model_config=model_config(config, parts),
        observers=registry.load().observers(),
    )


def _build(config: Config, dataset: Dataset | None, accelerator: Accelerator) -> Parts:
    """The parts, first on one process of each machine: it may download, or find a mistake."""
    first = accelerator.is_local_main_process
    parts, mistake = None, None
    if first:
        try:
            parts = build(config, dataset)
        except MtlkitError as error:
            mistake = error
    told = gather_object([str(mistake) if mistake else None])
    if mistake:
        raise mistake
    here = told[accelerator.process_index - accelerator.local_process_index]
    if here:
        raise ConfigError(here)
    return parts or build(config, dataset)


def _default_output(config: Config) -> Path:
    parts = (config.data.name, config.backbone.name, config.balancer.name)
    words = "-".join(name.replace("/", "_") for name in parts)
    place = Path("runs") / f"{words}-{datetime.now():%Y%m%d-%H%M%S}"
    later = (place.with_name(f"{place.name}-{n}") for n in itertools.count(2))
    return next(p for p in itertools.chain([place], later) if not p.exists())  # clocks go back too


def describe(run: Run) -> None:
    """Print what is going to be trained, and on what."""
    model, settings = run.model, run.settings
    processes = run.accelerator.num_processes
    sizes = ", ".join(f"{run.dataset.spec.sizes.get(split, 0)} {split}" for split in SPLITS)
    height, width = model.image_size
    names = {kind: run.config[kind]["name"] for kind in ("data", "backbone", "balancer")}
    effective = settings.batch_size * processes * settings.accumulate
    run.say(f"data      {names['data']}: {sizes}; {height} x {width} px")
    if run.dataset.problems:
        number = len(run.dataset.problems)
        run.say(f"          {number} problem{'s' * (number != 1)}, which mtlkit data check names; "
                f"left out: {left_out(run.dataset.problems) or 'nothing'}")  # fmt: skip
    sharing = run.engine.sharing
    run.say(f"network   {names['backbone']}")
    for line in summary.table(summary.summarise(model, sharing)):
        run.say(f"          {line}")
    if sharing.unused:
        run.say(f"          no task uses {', '.join(sharing.unused[:3])}"
                f"{', ...' * (len(sharing.unused) > 3)}: left as it is")  # fmt: skip
    run.say(f"balancer  {names['balancer']}{_balanced(run)}")
    run.say(f"training  {run.steps} steps of {effective} images ({settings.batch_size} x "
            f"{processes} processes x {settings.accumulate} accumulated) on "
            f"{run.accelerator.device}, precision {settings.precision}")  # fmt: skip
    run.say(f"output    {run.folder.path}")


def _balanced(run: Run) -> str:
    """Where the balancer looks, and what the heads get, if it looks at gradients."""
    balancing = run.engine.balancing
    if balancing.needs == "losses":
        return ""
    return f", at the tasks' gradients on the {run.settings.gradients}; heads {balancing.heads}"


def evaluate_run(
    folder: Path,
    split: str,
    batch_size: int | None = None,
    workers: int | None = None,
    *,
    full_size: bool = False,
    dataset: Dataset | None = None,
) -> dict[str, float]:
    """Metrics and losses of a saved run's best model on one split of its data.

    Args:
        folder: of the run.
        split: train, val or test.
        batch_size: by default the run's own.
        workers: by default the run's own.
        full_size: compare masks, maps and boxes in the pixels of each picture, to whose size
            predictions are brought; classes and self-supervised tasks are measured as always.
        dataset: instead of the run's own.

    Raises:
        CheckpointError: the folder holds no run with a model.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise CheckpointError(f"{folder} is not the folder of a run: it has no config.yaml")
    other = {} if dataset is None else {"data": dataset}
    config = from_mapping({"config": str(file), "resume": False, **other})
    config.settings.output = str(folder)
    config.settings.batch_size = batch_size or config.settings.batch_size
    config.settings.workers = config.settings.workers if workers is None else workers
    config.settings.log_with = ()
    run = assemble(config)
    run.model.load_state_dict(load_model(folder).state_dict())
    return run.evaluate(cast(Split, split), full_size=full_size)


def predict_files(
    folder: Path,
    images: Sequence[Path],
    output: Path,
    batch_size: int = 16,
    *,
    precision: Precision = "no",
    channels_last: bool = True,
    compile: bool = False,
) -> int:
    """Predict for picture files, or folders of them, with a saved model or an exported one.

    Returns:
        How many files could not be read.

    Raises:
        CheckpointError: there is no model.
        ConfigError: the pictures or the output folder cannot be used, or there is no GPU for fp16.
    """
    model = load(folder)
    if isinstance(model, Exported) and (compile or precision != "no"):
        raise ConfigError(f"{folder} runs as it was exported, without --compile and --precision")
    accelerator = make_accelerator(Settings(precision=precision), str(output))
    return predict_with(
        model,
        images,
        output,
        accelerator,
        batch_size=batch_size,
        channels_last=channels_last,
        compile=compile,
    )
