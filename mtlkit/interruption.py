"""Interruption: a run that is asked to end, or to save itself, does so between two steps."""

import signal
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from mtlkit.processes import Processes


class Interrupted(Exception):
    """Raised out of an evaluation: the run is asked to end."""


class Asked(NamedTuple):
    """What all processes do now.

    Args:
        end: number of the signal that asks them to end, or 0.
        save: whether a checkpoint is due.
    """

    end: int
    save: bool


class Interruption:
    """Notes SIGINT and SIGTERM, and how long ago the run was saved.

    A second signal ends the run at once. Several processes agree on what to do, about once in
    ``PERIOD`` seconds, so that all do it at the same step.

    Args:
        accelerator: of the run.
        save_every: optimiser steps from one checkpoint to the next; 0 is never.
        save_after: seconds likewise.
    """

    PERIOD = 2.0

    def __init__(
        self, accelerator: Accelerator, *, save_every: int = 0, save_after: float = 0.0
    ) -> None:
        self.signal = 0
        """What all processes agreed to end for."""
        self._noted = 0
        self.processes = Processes.of(accelerator)
        self.save_every = save_every
        self.save_after = save_after
        self._saved = self._agreed = time.monotonic()
        self._calls, self._until = 0, 1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: signals go elsewhere
            pass
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        signal.signal(number, self._before[number])

    def saved(self) -> None:
        """A checkpoint was written just now."""
        self._saved = time.monotonic()

    def watched(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches, until the run is asked to end.

        Raises:
            Interrupted: it is.
        """
        for batch in batches:
            if self.asked().end:
                raise Interrupted
            yield batch

    def after_step(self, step: int) -> Asked:
        """What to do after so many optimiser steps, alike on all processes."""
        asked = self.asked()
        due = bool(self.save_every) and step % self.save_every == 0
        return Asked(asked.end, (asked.save or due) and not asked.end)

    def asked(self) -> Asked:
        """The same whatever the step; to be called equally often on all processes."""
        due = bool(self.save_after) and time.monotonic() - self._saved >= self.save_after
        if self.processes.count == 1:
            self.signal = self._noted
            return Asked(self.signal, due)
        self._calls += 1
        if self._calls < self._until:
            return Asked(0, False)
        now = time.monotonic()
        mine = [float(self._noted), float(due), (now - self._agreed) / self._calls]
        number, save, pace = self.processes.largest(torch.tensor(mine)).tolist()
        self.signal = int(number)
        self._agreed, self._calls = now, 0
        self._until = max(1, min(100, int(self.PERIOD / max(pace, 1e-6))))
        return Asked(self.signal, bool(save))
