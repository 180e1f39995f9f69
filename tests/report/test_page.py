"""The pages themselves: right numbers, nothing from outside, nothing that a file's text can do."""

import csv
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_files import make_run, scores, write

from mtlkit import report

VOID = {"meta", "img", "link", "br", "hr"}
HOSTILE = "<script>alert('&\"1)</script>{{ 7 * 7 }}|`*"


class Page(HTMLParser):
    """Tags, their attributes, all text, and the text of cells that say which value they hold."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.values: dict[str, str] = {}
        self.ids: list[str] = []
        self.text = ""
        self._cell: str | None = None
        self.feed(source)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs), f"an attribute twice in {tag}"
        self.attributes += given.items()
        self.ids += [given["id"]] if "id" in given else []
        self._cell = given.get("data-value", self._cell)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._cell = None if tag == "td" else self._cell

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self.values[self._cell] = self.values.get(self._cell, "") + data


def page_of(*folders: Path, output: Path | None = None) -> tuple[str, Page]:
    file = report.write(*folders, output=output)
    source = file.read_text(encoding="utf-8")
    return source, Page(source)


def shown(text: str) -> float:
    return float(text.split()[0].replace("\N{MINUS SIGN}", "-"))


CONFUSION = {
    "seg/confusion": {"rows": ["a", "b"], "columns": ["a", "b"], "values": [[3, 1], [0, 6]]},
    "seg/by class": {"rows": ["a", "b"], "columns": ["IoU"], "values": [[0.75], [None]]},
}


@pytest.fixture
def one(tmp_path: Path) -> Path:
    test = scores(miou=0.123456, f1=-0.5, l2=123.456, iou=12.3456)
    return make_run(tmp_path / "one", test=test, pictures=["p", "q"], tables=CONFUSION)


def several(folder: Path, **options: Any) -> list[Path]:
    seeds = (0, 1)
    made = [make_run(folder / f"equal{s}", seed=s, pictures=["p"], test=scores(miou=0.4 + s / 10),
                     **options) for s in seeds]  # fmt: skip
    for id in ("seg", "bbox"):
        made += [make_run(folder / f"{id}{s}", ids=(id,), seed=s) for s in seeds]
    return made


def test_every_number_of_one_run_is_that_of_its_files(one: Path) -> None:
    _, page = page_of(one)
    results = json.loads((one / "results.json").read_text())
    lines = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    best = next(x for x in lines if x["step"] == results["best_step"] and x["split"] == "val")
    keys = [key for key in results["test"] if "/" in key]
    assert set(page.values) == {f"{split} {key}" for split in ("val", "test") for key in keys}
    for key in keys:
        assert shown(page.values[f"test {key}"]) == pytest.approx(results["test"][key], rel=5e-3)
        assert shown(page.values[f"val {key}"]) == pytest.approx(best[key], rel=5e-3)


def test_the_answer_says_what_how_well_and_when(one: Path) -> None:
    _, page = page_of(one)
    assert (
        "seg and bbox were trained together on shapes for 2 epochs (4 steps). On test: "
        "seg/miou 0.123, bbox/iou 12.35. Best on val was epoch 2 of 2."
    ) in page.text
    assert "The last epoch was the best one and val was still rising" in page.text
    assert "seg/miou is 0.123 on test and 0.500 on val" in page.text


def test_counts_are_shares_of_the_truth(one: Path) -> None:
    source, page = page_of(one)
    cells = re.findall(r'--share: ([\d.]+)%" title="(\d+)">(\d+)<', source)
    assert cells == [("75.0", "3", "75"), ("25.0", "1", "25"), ("0.0", "0", "0"),
                     ("100.0", "6", "100")]  # fmt: skip
    assert "0.750" in page.text


def test_many_classes_are_drawn(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(30)]
    rows = [[int(i == j) for i in range(30)] for j in range(30)]
    tables = {"seg/confusion": {"rows": names, "columns": names, "values": rows}}
    source, page = page_of(make_run(tmp_path / "x", tables=tables))
    assert "class 29" in page.text
    assert 'class="matrix"' in source
    assert 'class="share"' not in source


def outside(source: str, page: Page) -> list[str]:
    """All that would make a browser ask for something, or do something."""
    found = [f"{n}={v}" for n, v in page.attributes if n in ("src", "href", "srcset", "data")
             and not v.startswith(("data:", "#"))]  # fmt: skip
    found += [n for n, _ in page.attributes if n.startswith("on")]
    found += [t for t in page.tags if t in ("script", "link", "iframe", "object", "base", "form")]
    return found + re.findall(r"(?i)https?:|url\(|@import|javascript:", source)


def test_no_page_asks_for_anything_from_outside(one: Path, tmp_path: Path) -> None:
    assert outside(*page_of(one)) == []
    assert outside(*page_of(*several(tmp_path / "many"), output=tmp_path / "page")) == []


def test_what_would_ask_is_found() -> None:
    for bad in ('<img src="a.png">', '<a href="http://x">x</a>', "<script></script>",
                '<p onclick="x">x</p>', "<style>a{b:url(x)}</style>"):  # fmt: skip
        assert outside(bad, Page(bad)), bad


def test_no_text_of_a_file_becomes_more_than_text(tmp_path: Path) -> None:
    tables = {
        f"seg/{HOSTILE}": {"rows": [HOSTILE], "columns": [HOSTILE], "values": [[1]]},
        "seg/x": {"rows": [HOSTILE, "b"], "columns": ["c"], "values": [[1], [2]]},
    }
    name = HOSTILE.replace("/", "_")
    about = {"problems": [HOSTILE], "samples": {"train": 1, "val": 60, "test": 60}}
    path = make_run(tmp_path / name, pictures=[HOSTILE], tables=tables, about=about,
                    data={"name": HOSTILE, "root": HOSTILE}, monitor=None)  # fmt: skip
    write(path / "env.json", {"device": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    other = make_run(tmp_path / "other", data={"name": HOSTILE, "root": "b"}, pictures=[HOSTILE])
    for folders in ([path], [path, other]):
        source, page = page_of(*folders, output=tmp_path / "page")
        assert "script" not in page.tags
        assert HOSTILE in page.text
        assert "49" not in re.findall(r"\{\{ (\d+)", source)
        assert HOSTILE in page.text
        lines = (tmp_path / "page" / "report.md").read_text().splitlines()
        text = "\n".join(line for line in lines if not line.startswith("    "))  # code is code
        assert not re.search(r"(?<!\\)[<>`*|]script|(?<!\\)<", text)


def test_a_picture_outside_of_the_gallery_is_not_shown(one: Path) -> None:
    (one.parent / "secret.webp").write_bytes(b"secret")
    file = one / "gallery" / "samples.json"
    tree = json.loads(file.read_text())
    tree["columns"][0]["files"] = ["../../../secret.webp", "/etc/passwd"]
    write(file, tree)
    source, _ = page_of(one)
    assert "c2VjcmV0" not in source  # base64
    assert source.count("data:image/webp") == 8


def test_marks_of_several_drawings_have_names_of_their_own(one: Path) -> None:
    _, page = page_of(one)
    assert page.tags.count("svg") > 4
    used = {value[1:] for name, value in page.attributes if name == "href"}
    assert used == set(page.ids)


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_an_unfinished_run_has_a_report_that_says_so(tmp_path: Path, epochs: int) -> None:
    val = [scores()] * epochs
    path = make_run(tmp_path / "x", finished=False, val=val, about={"steps": 90})
    _, page = page_of(path)
    assert ("nothing was logged" if epochs == 0 else f"for {2 * epochs} steps of 90") in page.text
    assert "did not finish (it has no results.json)" in page.text
    assert "There are no pictures" in page.text
    assert ("The best so far on val: seg/miou 0.500" in page.text) == (epochs > 0)
    assert "mtlkit train" in page.text


def test_a_run_without_a_single_file_but_its_configuration_has_a_report(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x", finished=False)
    for name in ("env.json", "about.json", "metrics.jsonl"):
        (path / name).unlink()
    assert "nothing was logged" in page_of(path)[1].text


def test_the_same_run_gives_the_same_page(one: Path) -> None:
    assert page_of(one)[0] == page_of(one)[0]


@pytest.mark.parametrize(("miou", "said"), [((0.1, 0.2, 0.5), True), ((0.1, 0.5, 0.501), False)])
def test_a_run_that_was_still_rising_is_told_from_one_that_was_not(
    tmp_path: Path, miou: tuple[float, ...], said: bool
) -> None:
    _, page = page_of(make_run(tmp_path / "x", val=[scores(miou=m) for m in miou]))
    assert ("val was still rising" in page.text) == said


NEVER_B = {"seg/x": {"rows": ["a", "b"], "columns": ["a", "b"], "values": [[5, 0], [2, 0]]}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"overfit": 8}, "--overfit 8: all numbers are of the 8 training images"),
        ({"about": {"samples": {"val": 60, "test": 7}}}, "test has only 7 samples"),
        ({"about": {"samples": {"val": 60, "test": 0}}, "test": {}}, "test has none"),
        ({"test": {**scores(), "seg/miou": None}}, "without a number: seg/miou"),
        ({"val": [scores(miou=m) for m in (0.9, 0.5, 0.4, 0.3)]}, "came early (1 of 4)"),
        ({"tables": NEVER_B}, "seg never answers b on test"),
        ({"about": {"problems": ["a.jpg is cut off"]}}, "a.jpg is cut off"),
    ],
)  # fmt: skip
def test_what_to_watch_out_for_is_said(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    assert said in page_of(make_run(tmp_path / "x", **options))[1].text


def test_gradients_that_conflict_and_a_task_that_hardly_counts_are_said(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x")
    norms = {"seg/gradient_norm": 1.0, "bbox/gradient_norm": 2.0, "seg+bbox/cosine": -0.25}
    weights = {"seg/weight": 0.001, "bbox/weight": 1.999}
    line = {"step": 9, "epoch": 1, "split": "train", **norms, **weights}
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    source, page = page_of(path)
    assert "seg and bbox pull apart (mean cosine \N{MINUS SIGN}0.25)" in page.text
    assert "seg hardly counts at the end: its weight is 0.001" in page.text
    assert "weight of each task's gradient" in page.text
    assert 'class="map"' in source


def test_every_number_of_a_comparison_is_that_of_its_files(tmp_path: Path) -> None:
    _, page = page_of(*several(tmp_path), output=tmp_path / "page")
    # miou 0.4 and 0.5 against 0.5: gains -20 and 0 of four metrics; seg is one of two tasks
    assert shown(page.values["mean seg/miou seg + bbox"]) == 0.45
    assert shown(page.values["delta_by_task seg + bbox"]) == -5 / 2
    assert shown(page.values["delta_flat seg + bbox"]) == 10 / 4
    rows = list(csv.DictReader(io.StringIO((tmp_path / "page" / "results.csv").read_text())))
    found = {(r["run"], r["metric"]): float(r["value"]) for r in rows if r["split"] == "test"}
    assert found["equal0", "seg/miou"] == 0.4
    deltas = [float(r["value"]) for r in rows if r["metric"] == "delta_m_by_task"]
    assert deltas == [pytest.approx(-5), pytest.approx(0)]


def test_two_seeds_claim_nothing(tmp_path: Path) -> None:
    better = several(tmp_path, val=[scores()])
    _, page = page_of(*better, output=tmp_path / "page")
    assert "2 seeds cannot tell that from chance (p cannot go below 0.5)" in page.text
    assert "no difference can be called significant at 0.05" in page.text


def seeds(folder: Path, count: int, gain: float) -> list[Path]:
    made = []
    for s in range(count):
        test = scores(miou=0.5 + gain + s / 100)
        made.append(make_run(folder / f"a{s}", seed=s, test=test))
        made += [make_run(folder / f"{id}{s}", ids=(id,), seed=s) for id in ("seg", "bbox")]
    return made


@pytest.mark.parametrize(
    ("count", "gain", "said"),
    [(6, 0.1, "chance alone would hardly do that (p = 0.031)"),
     (6, -0.03, "that is not told from chance"),
     (1, 0.1, "1 paired seed cannot tell that from chance")],
)  # fmt: skip
def test_as_much_is_claimed_as_the_seeds_allow(
    tmp_path: Path, count: int, gain: float, said: str
) -> None:
    made = seeds(tmp_path, count, gain)
    assert said in page_of(*made, output=tmp_path / "page")[1].text


def test_runs_on_different_data_are_never_put_together_and_the_page_says_so(
    tmp_path: Path,
) -> None:
    made = [make_run(tmp_path / "a"), make_run(tmp_path / "b", data={"name": "shapes", "size": 32})]
    _, page = page_of(*made, output=tmp_path / "page")
    assert "These runs are of 2 different data or image sizes, whose numbers are not" in page.text
    assert "Against" not in page.text
    assert "The best means" not in page.text


def test_what_did_not_finish_is_named_and_in_no_mean(tmp_path: Path) -> None:
    made = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, finished=False)]
    _, page = page_of(*made, output=tmp_path / "page")
    assert "Not finished, and so in no mean: b." in page.text
    assert "No Δm for all runs: there is no finished run of seg and bbox alone" in page.text
    neither = [make_run(tmp_path / f"n{i}", seed=i, finished=False, val=[]) for i in (0, 1)]
    assert "None of them finished" in page_of(*neither, output=tmp_path / "page")[1].text


def test_methods_are_seen_side_by_side_on_the_same_samples(tmp_path: Path) -> None:
    made = [
        make_run(tmp_path / "a", pictures=["p", "q"]),
        make_run(tmp_path / "b", lr=0.5, pictures=["q", "r"]),
        make_run(tmp_path / "c", lr=0.7),
    ]
    source, page = page_of(*made, output=tmp_path / "page")
    pictures = re.findall(r'alt="([^"]*)"', source)
    assert pictures == ["q: input", "q: truth", "q: lr default", "q: lr 0.5"] * 2
    assert page.text.count("no label") == 0


def test_peak_memory_is_shown_where_it_is_known(tmp_path: Path) -> None:
    made = several(tmp_path)
    assert "peak memory" not in page_of(*made, output=tmp_path / "page")[1].text
    results = json.loads((made[0] / "results.json").read_text())
    write(made[0] / "results.json", {**results, "peak_bytes": 2**30})
    text = page_of(*made, output=tmp_path / "page")[1].text
    assert "1,024 MiB" in text
    assert "500" in text  # ms: 16 images at 32 images per second


def test_a_report_is_small(one: Path) -> None:
    assert len(page_of(one)[0]) < 200_000


def headings(page: str) -> Sequence[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_sections_that_have_nothing_to_say_are_not_there(one: Path) -> None:
    found = headings(page_of(one)[0])
    assert found == ["What to watch out for", "Results", "Gallery", "Learning curves",
                     "Balance of the tasks", "What was taken for what", "The run"]  # fmt: skip
