"""What a user may set about a run, apart from the options of the chosen components."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["no", "bf16", "fp16"]


@dataclass
class Choice:
    """A chosen component: its registered name and the options given to it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TaskChoice(Choice):
    """A chosen task type; ``head`` is None for the type's default head with its defaults."""

    head: Choice | None = None


@dataclass(kw_only=True)
class Settings:
    """General options of a run.

    Args:
        views: what tasks that alter the image do: ``shared`` feeds one altered image to all tasks,
            ``own`` gives such a task a forward pass of its own.
        epochs: passes over the training data.
        max_steps: stop after this many optimiser steps; 0 is no limit.
        batch_size: images per process and forward pass.
        image_size: side of the square images the network sees, or HEIGHTxWIDTH, in pixels;
            by default the dataset's own.
        augment: how training images are varied: ``none``, ``light`` (flip, mild crop) or
            ``strong`` (flip, crop, colour).
        decode: ``reduced`` decodes a photograph that is at least twice as large as needed at a
            half, a quarter or an eighth of its size, if the dataset can; ``full`` never does.
        cache: decode the images of train and val once and keep them in memory (``ram``), for all
            processes of a machine together, or in a folder where later runs find them (``disk``).
        lr: peak learning rate.
        optimizer: any name timm's optimiser factory knows.
        scheduler: any name timm's scheduler factory knows, or ``none``.
        warmup: share of the optimiser steps over which the learning rate rises, in [0, 1).
        weight_decay: of weights; biases and normalisation parameters get none.
        accumulate: forward passes per optimiser step.
        gradients: where a balancer that looks at the tasks' gradients gets them: at all shared
            ``parameters``, which is exact, or at the backbone's shared ``features``, which costs
            one backward pass through the backbone instead of one per task.
        heads: what a task's own parameters get: their gradient times the task's weight, or the
            ``raw`` gradient; by default what the balancer's authors do.
        losses: ``log`` balances and trains the logarithms of the losses.
        smooth: share of the average of earlier weights in a step's weights, in [0, 1).
        balancer_scale: what the weights of a step's tasks add up to: their number for ``sum-t``,
            1 for ``sum-1``, whatever the balancer says for ``none``.
        balance_every: optimiser steps between two decisions of the balancer.
        conflict_every: optimiser steps between two looks at the tasks' gradients, for the log
            alone, with a balancer that does not need them; 0 is never.
        clip: largest norm of the gradient; 0 is off.
        precision: arithmetic of the forward pass.
        channels_last: keep images in the memory order that convolutions like best.
        freeze_bn: keep the running statistics of batch normalisation as they are.
        compile: compile the network with torch.compile.
        checkpoint_activations: compute the backbone's activations again in the backward pass
            instead of keeping them: less memory, the same result, a quarter to a third more time.
        workers: processes that load data, per training process; by default one per two cores, at
            most 8.
        seed: of weights, order, augmentation and noise.
        on_nonfinite: what a loss or gradient that is not finite does: ``raise`` ends the run,
            ``skip`` leaves the step out, ``drop-task`` leaves the task out of the step.
        deterministic: use only deterministic algorithms.
        output: folder of the run; by default ``runs/`` and a name made of data, backbone, balancer
            and time.
        resume: go on with the run in this folder, or in ``--output`` when no folder is given.
        save_every: optimiser steps, or time such as ``90s``, ``10min`` or ``2h``, between two
            checkpoints inside an epoch; 0 saves after evaluations alone.
        keep: checkpoints to go on from: the last one, and those before it.
        timeout: minutes that a process waits for the others before it gives up.
        monitor: TASK/METRIC that decides which checkpoint is best; by default the mean of the
            tasks' primary metrics.
        patience: stop after this many evaluations without a better checkpoint; 0 is never.
        log_every: optimiser steps between two logged training losses.
        log_with: experiment trackers that Accelerate knows, such as ``tensorboard``.
        overfit: train and evaluate on this many training images only; 0 is off.
    """

    views: Literal["shared", "own"] = "shared"
    epochs: int = 10
    max_steps: int = 0
    batch_size: int = 32
    image_size: int | str | None = None
    augment: Literal["none", "light", "strong"] = "light"
    decode: Literal["reduced", "full"] = "reduced"
    cache: Literal["none", "ram", "disk"] = "none"
    lr: float = 1e-3
    optimizer: str = "adamw"
    scheduler: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.05
    accumulate: int = 1
    gradients: Literal["parameters", "features"] = "parameters"
    heads: Literal["weighted", "raw"] | None = None
    losses: Literal["raw", "log"] = "raw"
    smooth: float = 0.0
    balancer_scale: Literal["none", "sum-t", "sum-1"] = "none"
    balance_every: int = 1
    conflict_every: int = 0
    clip: float = 0.0
    precision: Precision = "no"
    channels_last: bool = True
    freeze_bn: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    workers: int | None = None
    seed: int = 0
    on_nonfinite: Literal["raise", "skip", "drop-task"] = "raise"
    deterministic: bool = False
    output: str | None = None
    resume: bool | str = False
    save_every: int | str = "10min"
    keep: int = 2
    timeout: float = 10.0
    monitor: str | None = None
    patience: int = 0
    log_every: int = 10
    log_with: Sequence[str] = ()
    overfit: int = 0

    def save_cadence(self) -> tuple[int, float]:
        """What ``save_every`` says: optimiser steps, and seconds; 0 where it says nothing.

        Raises:
            ValueError: it is neither.
        """
        found = re.fullmatch(r"(\d+)\s*(s|min|h)?", str(self.save_every))
        if found is None:
            raise ValueError(self.save_every)
        number, unit = int(found[1]), found[2]
        return (0, number * _SECONDS[unit]) if unit else (number, 0.0)


_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass
class Config:
    """All that defines a run. Tasks are in the order the user named them."""

    tasks: dict[str, TaskChoice]
    backbone: Choice
    balancer: Choice
    data: Choice
    settings: Settings = field(default_factory=Settings)
