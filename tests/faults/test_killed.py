"""A run that is killed at any moment and resumed ends at the same bits as one that never was."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import SMALL, ended, outcome, start

BALANCERS = ("uncertainty", "dwa", "moco", "famo", "cagrad", "gradnorm")
"""With parameters, histories, columns, a second look at the losses, and gradients."""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Any]:
    """What runs come to that nobody kills, made when first asked for."""
    home = tmp_path_factory.mktemp("whole")

    class Whole(dict[tuple[str, int], Any]):
        def __missing__(self, key: tuple[str, int]) -> Any:
            balancer, processes = key
            folder = home / f"{balancer}-{processes}"
            began = time.monotonic()
            words = [*SMALL, "--balancer", balancer, "--output", str(folder)]
            codes = ended(start(words, home / f"said-{balancer}-{processes}", processes=processes))
            assert codes == [0] * processes
            self[key] = outcome(folder), time.monotonic() - began
            return self[key]

    return Whole()


def resumed(folder: Path, said: Path, words: list[str], processes: int) -> None:
    """Go on until the end; a run that was killed before it said what it is begins anew."""
    again = ["--resume", str(folder)] if (folder / "config.yaml").exists() else words
    codes = ended(start(again, said, processes=processes))
    assert codes == [0] * processes, (said / "0.txt").read_text()


def assert_alike(folder: Path, expected: dict[str, Any]) -> None:
    found = outcome(folder)
    assert found.keys() == expected.keys()
    assert found["metrics"] == expected["metrics"]
    for name in expected:
        assert repr(found[name]) == repr(expected[name]), name  # NaN is like NaN


@pytest.mark.parametrize("seed", range(15))
def test_killed_at_an_operation_on_a_file(
    seed: int, tmp_path: Path, whole: dict[tuple[str, int], Any]
) -> None:
    """Checkpoint writing is nothing else: that is where most of these moments are."""
    balancer = BALANCERS[seed % len(BALANCERS)]
    words = [*SMALL, "--balancer", balancer, "--output", str(tmp_path / "run")]
    number = random.Random(seed).randint(20, 400)
    (code,) = ended(start(words, tmp_path / "said", kill_at=number))
    assert code in (-signal.SIGKILL, 0)  # it may have fewer operations
    resumed(tmp_path / "run", tmp_path / "again", words, 1)
    assert_alike(tmp_path / "run", whole[balancer, 1][0])


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_a_time(seed: int, tmp_path: Path, whole: dict[tuple[str, int], Any]) -> None:
    balancer = BALANCERS[seed % len(BALANCERS)]
    expected, seconds = whole[balancer, 1]
    words = [*SMALL, "--balancer", balancer, "--output", str(tmp_path / "run")]
    (process,) = start(words, tmp_path / "said")
    time.sleep(seconds * random.Random(seed).uniform(0.3, 1))
    process.kill()
    process.join()
    resumed(tmp_path / "run", tmp_path / "again", words, 1)
    assert_alike(tmp_path / "run", expected)


@pytest.mark.parametrize("seed", range(10))
def test_killed_on_two_processes(
    seed: int, tmp_path: Path, whole: dict[tuple[str, int], Any]
) -> None:
    """One of them is killed; the other says so and ends by itself."""
    balancer = ("uncertainty", "moco")[seed % 2]
    expected, seconds = whole[balancer, 2]
    words = [*SMALL, "--balancer", balancer]
    words += ["--output", str(tmp_path / "run")]
    random_ = random.Random(seed)
    killed = random_.randint(0, 1)
    processes = start(words, tmp_path / "said", processes=2)
    while not (tmp_path / "run" / "config.yaml").exists():  # they have met
        assert processes[0].is_alive()
        time.sleep(0.01)
    time.sleep(seconds * random_.uniform(0, 0.5))
    processes[killed].kill()
    codes = ended(processes, 60)
    assert codes[killed] in (-signal.SIGKILL, 0)
    if codes[killed]:
        other = (tmp_path / "said" / f"{1 - killed}.txt").read_text()
        assert codes[1 - killed] in (0, 1), other  # 0: it had nothing left to do together
        assert "Traceback" not in other
    resumed(tmp_path / "run", tmp_path / "again", words, 2)
    assert_alike(tmp_path / "run", expected)
