"""``mtlkit affinity``: of a run, or with the options of train and those in its help."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtlkit import config, help, source
from mtlkit.commands.flags import TRAIN_FLAGS, check_flags, own_plugins_only, split, whole_number
from mtlkit.errors import ConfigError, did_you_mean
from mtlkit.source import BARE

_SWITCHES = ("attention", "held_out")
_OWN = (*_SWITCHES, "lookahead", "networks")
_LOOKAHEADS = ("gradient", "optimizer")


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    command = " ".join(["mtlkit affinity", *argv])
    saved = bool(argv) and not argv[0].startswith("-")
    more = ("batches", "output") if saved else ("every",)
    flags = (*TRAIN_FLAGS, *_OWN, *more)
    asked_for_help, options, own = split(argv[saved:], flags)
    for flag in TRAIN_FLAGS:
        if flag in own and flag != "no_plugins":
            raise ConfigError(f"--{source.spell(flag)} is for mtlkit train alone")
    check_flags({key: own[key] for key in (*TRAIN_FLAGS, *_SWITCHES) if key in own})
    with own_plugins_only("no_plugins" in own):
        if asked_for_help:
            print(help.affinity())
        elif saved:
            _of_run(Path(argv[0]), options, own, command)
        else:
            _of_training(options, own, command)
    return 0


def _of_run(folder: Path, options: Sequence[str], own: dict[str, Any], command: str) -> None:
    if options:
        word = options[0].partition("=")[0]
        known = [f"--{source.spell(key)}" for key in (*_OWN, "batches", "output")]
        raise ConfigError(
            f"unrecognized arguments: {word}{did_you_mean(word, known)}; a saved run has its own "
            "options of mtlkit train"
        )
    if own.get("output") is BARE:
        raise ConfigError("--output expects a value, but none was given")
    batches = whole_number("batches", own.get("batches", "20"))
    if batches < 2:
        raise ConfigError("--batches 1 tells nothing of noise; take 2 or more")
    given = _given(own, command)
    from mtlkit.affinity import answer, runs  # after the words were read, because of torch

    output = Path(own["output"]) if "output" in own else None
    runs.of_run(folder, answer.Wanted(**given), batches=batches, output=output)


def _of_training(options: Sequence[str], own: dict[str, Any], command: str) -> None:
    every = whole_number("every", own.get("every", "10"))
    given = _given(own, command)
    asked = config.parse(options)
    from mtlkit.affinity import answer, runs  # after the configuration was read, because of torch

    runs.of_training(asked, answer.Wanted(**given), every=every)


def _given(own: dict[str, Any], command: str) -> dict[str, Any]:
    """How to measure."""
    step = own.get("lookahead", _LOOKAHEADS[0])
    if step not in _LOOKAHEADS:
        got = "no value was given" if step is BARE else f"got '{step}'"
        raise ConfigError(f"--lookahead expects {' or '.join(_LOOKAHEADS)}, but {got}")
    return {
        "held_out": "held_out" in own,
        "optimizer": step == "optimizer",
        "networks": whole_number("networks", own.get("networks", "2")),
        "attention": "attention" in own,
        "command": command,
    }
