"""The demo as a user starts it: a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(run: Path, *options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Its address, and the process; when it is interrupted it has to end well, without a word."""
    words = [sys.executable, "-m", "mtlkit", "demo", str(run), "--port", "0", *options]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if not found:
                process.kill()
                raise AssertionError(line + process.communicate()[1])
            yield found[0], process
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out, err) == (0, "", "")
        finally:
            process.kill()
