"""What a run notes for its report: about itself, what its tasks counted, and single pictures."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_evaluate import shapes
from toys import ToyData, toy_model

from mtlkit.evaluate import Scores
from mtlkit.loader import Batches, Prepared
from mtlkit.plots import LARGEST, gallery
from mtlkit.record import write_tables
from mtlkit.task import Table


def test_tables_are_written_as_they_are_with_null_for_no_number(tmp_path: Path) -> None:
    scores = Scores({"a/x": 1.0})
    scores.tables = {"a/t": Table(("r",), ("c", "d"), [[1, float("nan")]])}
    write_tables(tmp_path, "val", scores)
    written = json.loads((tmp_path / "tables" / "val.json").read_text())
    assert written == {"a/t": {"rows": ["r"], "columns": ["c", "d"], "values": [[1, None]]}}


def test_scores_without_tables_have_none(tmp_path: Path) -> None:
    write_tables(tmp_path, "val", Scores())
    assert json.loads((tmp_path / "tables" / "val.json").read_text()) == {}


def batch_of(prepared: Prepared, count: int) -> dict[str, object]:
    keys = next(iter(Batches(len(prepared.samples), count, train=False)))
    return prepared.collate([prepared[key] for key in keys])


def test_every_picture_of_the_gallery_is_kept_alone_too(tmp_path: Path) -> None:
    model, prepared = shapes(["seg", "cls"])
    gallery(tmp_path, model, batch_of(prepared, 2))
    kept = json.loads((tmp_path / "samples.json").read_text())
    titles = [["input"], *([id, what] for id in ("seg", "cls") for what in ("truth", "predicted"))]
    assert [column["title"] for column in kept["columns"]] == titles
    assert kept["ids"] == ["val-000000", "val-000001"]
    assert kept["attention"] == {}
    files = [file for column in kept["columns"] for file in column["files"]]
    assert len(set(files)) == 2 * 5
    for file in files:
        with Image.open(tmp_path / file) as picture:
            assert picture.size == (128, 128)  # four times the network's
    with Image.open(tmp_path / kept["columns"][0]["files"][1]) as picture:
        seen = torch.tensor(list(picture.resize((32, 32), Image.Resampling.BOX).getdata()))
    image = prepared.samples[1]["image"].flatten(1).T.float()
    assert (seen - image).abs().mean() < 8  # of 255: the compression's


def test_a_missing_label_has_no_picture_and_large_ones_are_kept_small(tmp_path: Path) -> None:
    data = ToyData(labelled=(True, False))
    prepared = Prepared(data.split("val"), data.spec.targets, (200, 400))
    model = toy_model(data.spec)
    gallery(tmp_path, model, batch_of(prepared, 2))
    kept = json.loads((tmp_path / "samples.json").read_text())
    truth = next(c for c in kept["columns"] if c["title"] == ["b", "truth"])
    assert [file is None for file in truth["files"]] == [False, True]
    with Image.open(tmp_path / truth["files"][0]) as picture:
        assert picture.size == (LARGEST, LARGEST // 2)


def test_attention_is_kept_by_task(tmp_path: Path) -> None:
    model, prepared = shapes(["seg", "cls"], backbone="mtan")
    gallery(tmp_path, model, batch_of(prepared, 2))
    kept = json.loads((tmp_path / "samples.json").read_text())
    assert list(kept["attention"]) == ["seg", "cls"]
    for id, columns in kept["attention"].items():
        assert (tmp_path / f"attention_{id}.png").exists()
        for column in columns:
            assert column["title"][0].startswith("mask ")
            assert all((tmp_path / file).exists() for file in column["files"])


pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata")
