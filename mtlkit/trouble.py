"""Trouble that comes from outside and can strike at any line: said in one sentence."""

import re
import signal
import threading

import torch.distributed as dist

from mtlkit.errors import ProcessError

_PEERS = re.compile(
    r"gloo|nccl|ProcessGroup|Connection (closed|reset) by peer|Timed out waiting|Broken pipe",
    re.IGNORECASE,
)


def explained(error: BaseException, again: str) -> ProcessError | None:
    """What an error means that torch raises when another process is gone; None if it is not that.

    Args:
        error: as raised.
        again: the command that goes on with the run.
    """
    if not isinstance(error, RuntimeError):
        return None
    text = " ".join(str(error).split())
    if "DataLoader worker" in text:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # each further one would raise again
        return ProcessError(
            f"a process that loads data was ended from outside ({text.removesuffix('.')}): often "
            "for want of memory; try fewer --workers or a smaller --batch-size, and go on with "
            f"{again}"
        )
    if dist.is_initialized() and (isinstance(error, dist.DistError) or _PEERS.search(text)):
        late = ", or was later than --timeout allows" if "imed out" in text else ""
        return ProcessError(
            f"another process of this run is gone{late}: what it said, if anything, stands above; "
            f"go on with {again}"
        )
    return None
