"""Published differences, recomputed from the rows they were made of."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mtlkit.report.compare import delta_by_task, delta_flat

NYUV2 = yaml.safe_load(
    (Path(__file__).parents[2] / "benchmarks" / "published.yaml").read_text(encoding="utf-8")
)["nyuv2"]


def flat(tree: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{task}/{key}": value for task, inner in tree.items() for key, value in inner.items()}


HIGHER = {key: word == "higher" for key, word in flat(NYUV2["directions"]).items()}


@pytest.mark.parametrize(
    ("row", "a", "b"),
    [("equal", 5.59, 0.88), ("mgda", 1.38, -1.66), ("cagrad", 0.19, 4.33), ("nash", -4.05, 7.65)],
)
def test_both_forms_are_what_published_rows_give(row: str, a: float, b: float) -> None:
    scores, base = flat(NYUV2["rows"][row]), flat(NYUV2["single"])
    assert round(delta_flat(scores, base, HIGHER), 2) == a
    assert round(delta_by_task(scores, base, HIGHER), 2) == b
    assert (NYUV2["deltas"][row]["a"], NYUV2["deltas"][row]["b"]) == (a, b)
