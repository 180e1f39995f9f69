"""Measuring in turns: what is called when, and what the numbers say."""

import json
from pathlib import Path

import torch

from mtlkit.measure import MIB, Cost, in_turns, peak_bytes, summary, table, write

CPU = torch.device("cpu")


def test_each_round_makes_every_way_anew_and_times_it_next_to_the_baseline() -> None:
    said: list[str] = []

    def maker(name: str):
        def make():
            said.append(f"make {name}")
            return lambda: said.append(name)

        return make

    costs = in_turns({"plain": maker("plain"), "other": maker("other")}, "plain",
                     rounds=2, device=CPU)  # fmt: skip
    one_round = ["make plain", "plain", "plain", "plain", "make other", "other", "plain", "other"]
    assert said == ["make plain", "plain", *one_round, *one_round]
    assert [len(c.seconds) for c in costs.values()] == [2, 2]
    assert [len(c.baseline_seconds) for c in costs.values()] == [2, 2]


def test_peak_memory_is_what_lives_at_the_same_time() -> None:
    held = torch.zeros(3 * MIB, dtype=torch.uint8)

    def step() -> None:
        for _ in range(5):
            first = torch.zeros(2 * MIB, dtype=torch.uint8)
            second = torch.zeros(MIB, dtype=torch.uint8)
            del first, second
        torch.zeros(MIB, dtype=torch.uint8)

    assert peak_bytes(CPU, step) == 3 * MIB
    assert held.numel() == 3 * MIB


def test_a_rounds_ratio_is_to_the_baseline_of_the_same_round() -> None:
    plain = Cost([1.0, 2.0, 9.0], [1.0, 2.0, 9.0], 50)
    other = Cost([2.0, 6.0, 9.0], [1.0, 2.0, 9.0], 125)
    assert summary(other, plain) == {
        "milliseconds": 6000.0, "ratio": 2.0, "quartiles": [1.0, 3.0], "memory_ratio": 2.5
    }  # fmt: skip


def test_the_table_leaves_out_what_no_one_counts() -> None:
    plain, other = Cost([1.0], [1.0], None), Cost([1.5], [1.0], None)
    shown = table({"equal": plain, "mgda": other}, "equal", {"passes": {"equal": 1, "mgda": 3}})
    assert shown.splitlines() == [
        "            time  x equal                  memory  x equal  passes",
        "equal  1000.0 ms     1.00  (1.00 to 1.00)       -        -       1",
        "mgda   1500.0 ms     1.50  (1.50 to 1.50)       -        -       3",
    ]


def test_the_file_has_the_command_the_machine_and_the_versions(tmp_path: Path) -> None:
    write(tmp_path / "x.json", "python x.py", CPU, {"found": [1, 2]})
    tree = json.loads((tmp_path / "x.json").read_text())
    assert tree["command"] == "python x.py"
    assert tree["found"] == [1, 2]
    assert tree["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"cpus", "device", "platform", "python", "threads", "commit"} <= set(tree)
