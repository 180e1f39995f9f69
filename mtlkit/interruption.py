"""Interruption: a run that is asked to end does so between two steps."""

import signal
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator


class Interruption:
    """Notes SIGINT and SIGTERM, so that the run ends between two steps; a second one ends it now.

    On several processes they agree every few steps, so that all stop at the same one.
    """

    EVERY = 10

    def __init__(self) -> None:
        self.signal = 0
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
        self.signal = number
        signal.signal(number, self._before[number])

    def agreed(self, accelerator: Accelerator, step: int) -> bool:
        """Whether all processes stop after this step."""
        if accelerator.num_processes == 1:
            return bool(self.signal)
        if step % self.EVERY:
            return False
        noted = torch.tensor([self.signal], device=accelerator.device)
        self.signal = int(accelerator.gather(noted).max())
        return bool(self.signal)
