"""The benchmark of the data path runs, at its smallest, and writes what it promises."""

import json
import subprocess
import sys
from pathlib import Path

import mtlkit

SCRIPT = Path(mtlkit.__file__).parents[1] / "benchmarks" / "speed" / "pipeline.py"


def test_the_benchmark_of_the_pipeline_measures_every_way(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    small = [
        "--images",
        "2",
        "--large",
        "300",
        "--size",
        "32",
        "--rounds",
        "1",
        "--batch-size",
        "2",
    ]
    step = [
        "--image-size",
        "32",
        "--batch-size",
        "2",
        "--backbone",
        "segnet",
        "--backbone.width",
        "4",
    ]
    command = [
        sys.executable,
        "-W",
        "error",
        str(SCRIPT),
        *small,
        "--output",
        str(file),
        "--",
        *step,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = json.loads(file.read_text())
    ways = {"torchvision", "mtlkit", "mtlkit --decode full", "mtlkit --cache ram"}
    assert found["256 px"].keys() == found["300 px"].keys() == ways
    assert all(way["images_per_second"] > 0 for way in found["300 px"].values())
    assert found["targets"].keys() == {"step", "noise", "canny", "lab"}
    assert found["command"].startswith("python benchmarks/speed/pipeline.py --images 2")
