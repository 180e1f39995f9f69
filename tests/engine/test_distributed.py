"""Two processes decide and do what one process with the whole batch does."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from toys import ToyData, toy_model, train_steps

from mtlkit import create
from mtlkit.evaluate import evaluate
from mtlkit.loader import Batches, Prepared

TASKS = ("a", "b")
CASES = [
    ("equal", {}, 1, (True,)),
    ("fixed", {"weights": {"a": 0.3, "b": 2.0}}, 2, (True, False, False, False, False, False)),
    ("uncertainty", {}, 1, (True, False, False, False, False, False)),
    ("dwa", {}, 1, (True, False)),
    ("equal", {}, 1, (False,)),
]


def work(batch_size: int, accelerator: Accelerator) -> list[object]:
    """Parameters after five steps of every case, and an evaluation of uneven length."""
    results: list[object] = []
    for name, options, accumulate, labelled in CASES:
        balancer = create("balancer", name, TASKS, **options)
        model, losses = train_steps(
            accelerator, balancer, batch_size=batch_size // accumulate,
            accumulate=accumulate, labelled=labelled,
        )  # fmt: skip
        results.append([*model.state_dict().values(), *balancer.state_dict().values()])
        results.append([torch.stack(list(loss.values())) for loss in losses])
    data = ToyData(labelled=(True, False))
    model = toy_model(data.spec)
    prepared = Prepared(data.split("val"), data.spec.targets, model.image_size)
    batches = Batches(
        7, 2, train=False, rank=accelerator.process_index, world=accelerator.num_processes
    )
    loaded = [prepared.collate([prepared[key] for key in keys]) for keys in batches]
    results.append([torch.tensor(list(evaluate(model, loaded, accelerator).values()))])
    return results


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    torch.save(work(6, accelerator), Path(folder) / f"{rank}.pt")
    os._exit(0)  # gloo may abort at interpreter exit after success


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[list[Sequence[torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    started = [context.Process(target=worker, args=(rank, port, str(folder))) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=120)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_replicas_are_bitwise_alike(two_processes: list[list[Sequence[torch.Tensor]]]) -> None:
    for first, second in zip(*two_processes, strict=True):
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))


def test_two_processes_train_and_evaluate_like_one(
    two_processes: list[list[Sequence[torch.Tensor]]],
) -> None:
    alone = work(12, Accelerator(cpu=True))
    for ours, theirs in zip(two_processes[0], alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            rtol = 1e-9 if one.dtype == torch.float64 else 1e-6
            torch.testing.assert_close(one, other, rtol=rtol, atol=1e-12, equal_nan=True)
