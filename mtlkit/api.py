"""What the command line does, in Python."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from mtlkit import build as building
from mtlkit import registry
from mtlkit.build import (
    build,
    build_engine,
    build_optimizer,
    build_scheduler,
    load_model,
    model_config,
)
from mtlkit.config import from_mapping, plugins, to_mapping
from mtlkit.data import SPLITS, Dataset, Split, left_out
from mtlkit.errors import CheckpointError, ConfigError
from mtlkit.exported import Exported, is_exported, load_exported
from mtlkit.model import Model
from mtlkit.predict import predict_files as predict_with
from mtlkit.resume import resume
from mtlkit.run import RunFolder
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
            or with options (``backbone={"name": "segnet", "width": 16}``).

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
    results = train(run)
    return {**results, "folder": str(run.folder.path)}


def dry_run(config: Config) -> None:
    """Build everything, say what would be trained, write nothing."""
    describe(assemble(config))


def start(run: Run) -> None:
    """Make the run's folder and load initial weights, or go on where the run was."""
    if run.settings.resume:
        run.folder.check_resumable()
        resume(run)
        return
    for line in run.model.backbone.initialise():
        run.say(line)
    if run.main:  # last, so that a mistake found before leaves no folder behind
        run.folder.create()
        run.folder.write_config(
            run.config, str(run.accelerator.device), run.accelerator.num_processes
        )
    run.accelerator.wait_for_everyone()


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
    with accelerator.local_main_process_first():  # only one downloads, if any does
        parts = build(config, dataset)
    model, balancer = parts.model, parts.balancer
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    model.to(memory_format=layout).to(accelerator.device)
    sharing = find_sharing(model)
    sharing.freeze_unused(model)
    optimizer = build_optimizer(settings, model, balancer)
    prepared = accelerator.prepare_optimizer(optimizer)
    engine = build_engine(settings, accelerator, model, balancer, prepared, sharing)
    samples = parts.dataset.spec.sizes["train"]
    _, steps = planned_steps(settings, samples, accelerator.num_processes)
    chosen = to_mapping(config)
    if settings.log_with:
        accelerator.init_trackers("mtlkit", config={"config": yaml.safe_dump(chosen)})
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
        accelerator=accelerator,
        config=chosen | {"plugins": plugins(config)},
        model_config=model_config(config, parts),
        observers=registry.load().observers(),
    )


def _default_output(config: Config) -> Path:
    parts = (config.data.name, config.backbone.name, config.balancer.name)
    words = "-".join(name.replace("/", "_") for name in parts)
    return Path("runs") / f"{words}-{datetime.now():%Y%m%d-%H%M%S}"


def describe(run: Run) -> None:
    """Print what is going to be trained, and on what."""
    model, settings = run.model, run.settings
    sharing = run.engine.sharing
    shared = sum(p.numel() for p in sharing.shared)
    own = {id: sum(p.numel() for p in parameters) for id, parameters in sharing.own.items()}
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
    run.say(f"network   {names['backbone']}: {shared:,} shared parameters; of each task's own "
            + ", ".join(f"{id} {count:,}" for id, count in own.items()))  # fmt: skip
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
) -> dict[str, float]:
    """Metrics and losses of a saved run's best model on one split of its data.

    Args:
        folder: of the run.
        split: train, val or test.
        batch_size: by default the run's own.
        workers: by default the run's own.
        full_size: compare masks, maps and boxes in the pixels of each picture, to whose size
            predictions are brought; classes and self-supervised tasks are measured as always.

    Raises:
        CheckpointError: the folder holds no run with a model.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise CheckpointError(f"{folder} is not the folder of a run: it has no config.yaml")
    config = from_mapping({"config": str(file), "resume": False})
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
