"""Virtual environments to install strangers' packages into."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, which also sees all that is installed in this one."""

    python: Path

    def run(self, *words: object, **variables: str) -> Done:
        return subprocess.run(
            [str(self.python), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.python.parents[1],
            env={**_environment(), **variables},
        )

    def mtlkit(self, *words: object, **variables: str) -> Done:
        return self.run("-m", "mtlkit", *words, **variables)

    def pip(self, *words: object) -> None:
        command = [sys.executable, "-m", "pip", "-q", "--python", self.python, *words]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, env=_environment()
        )
        assert done.returncode == 0, done.stderr

    def install(self, *words: object) -> None:
        """Without the network: mtlkit and setuptools are seen already."""
        self.pip("install", "--no-deps", "--no-build-isolation", *words)


def _environment() -> dict[str, str]:
    """Ours without what would lead a test astray."""
    names = ("MTLKIT_STRICT_PLUGINS", "MTLKIT_DISABLE_PLUGINS", "LOCAL_RANK", "PYTEST_ADDOPTS")
    ours = {name: value for name, value in os.environ.items() if name not in names}
    return {**ours, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


MakeEnvironment = Callable[[], Environment]
