"""Suites: one clear error for each mistake, and those that come with the project."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from stand_in import TINY, tiny_suite

import mtlkit
from benchmarks import plan, suite
from benchmarks.suite import Suite
from mtlkit.errors import ConfigError

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "published.yaml"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": {}}, "unknown key 'row'; did you mean 'rows'?"),
        ({"seeds": "six"}, "seeds in tiny.yaml must be a whole number, but is 'six'"),
        ({"seeds": True}, "seeds in tiny.yaml must be a whole number, but is True"),
        ({"seeds": 0}, "seeds in tiny.yaml must be at least 1, but is 0"),
        ({"rows": {}}, "tiny.yaml has no rows"),
        ({"rows": {"a": "x"}}, "row 'a' in tiny.yaml must be a mapping of options"),
        ({"rows": {1: {}}}, "rows in tiny.yaml: a name is text, but one is 1"),
        ({"title": 3}, "title in tiny.yaml must be text, but is 3"),
        ({"options": []}, "options in tiny.yaml must be a mapping, but is []"),
        ({"metrics": {"a/b": "highest"}}, "must be one of higher, lower, shown, but is 'highest'"),
        ({"metrics": {}, "target": "a/b"}, "has baselines, but no metrics that make Δm"),
        ({"target": "seg/mio"}, "there is no metric 'seg/mio'; did you mean 'seg/miou'?"),
        ({"reference": "bot"}, "there is no row 'bot'; did you mean 'both'?"),
        ({"choose": {"best": ["bothh"]}}, "there is no row 'bothh'; did you mean 'both'?"),
        ({"choose": {"best": "both"}}, "'best' must be a list of rows"),
        ({"choose": {"both": ["other"]}}, "'both' is the name of a row"),
        ({"smoke": {"seed": 1}}, "smoke in tiny.yaml has an unknown key 'seed'; did you mean"),
        ({"baseline": "no"}, "baseline in tiny.yaml must be a mapping, but is 'no'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        tiny_suite(**change)
    assert message in str(error.value)


@pytest.mark.parametrize("key", ["title", "question", "rows"])
def test_what_is_lacking_is_named(key: str) -> None:
    tree = {name: value for name, value in TINY.items() if name != key}
    with pytest.raises(ConfigError, match=f"tiny.yaml lacks '{key}'"):
        suite.from_mapping(tree, "tiny.yaml")


def test_an_unknown_suite_is_told_from_the_known() -> None:
    with pytest.raises(ConfigError, match="unknown suite 'tabel1'; did you mean 'table1'"):
        suite.read("tabel1")


def test_a_suite_may_be_any_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**TINY, "baseline": "none"}))
    read = suite.read(str(file))
    assert (read.name, read.baseline, read.seeds) == ("mine", None, 6)


@pytest.fixture(scope="module", params=suite.names())
def shipped(request: pytest.FixtureRequest) -> Suite:
    return suite.read(request.param)


def test_every_suite_can_be_planned_with_its_smoke_test(shipped: Suite) -> None:
    made = plan.make(shipped, smoke=True)
    assert [row.name for row in made.rows] == list(shipped.rows)
    tasks = {metric.partition("/")[0] for metric in shipped.counted}
    for row in made.rows:
        assert set(row.single) <= tasks, "every task has a metric that counts"
        assert all(len(ids) == made.seeds for ids in (row.runs, *row.single.values()))


def test_every_balancer_that_needs_no_options_is_a_row() -> None:
    rows = suite.read("balancers").rows.values()
    used = {
        row["balancer"] if isinstance(row["balancer"], str) else row["balancer"]["name"]
        for row in rows
    }
    assert used == set(mtlkit.names("balancer")) - {"torchjd"}  # an adapter, not a method


def test_every_published_row_is_a_row_of_its_suite() -> None:
    tables = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    table1 = suite.read("table1")
    assert set(tables["table1"]["rows"]) <= set(table1.rows)
    assert len(tables["table1"]["rows"]) == 9
    for values in tables["table1"]["rows"].values():
        assert set(values) <= set(table1.metrics)


def test_the_example_of_a_suite_of_ones_own_can_be_planned() -> None:
    text = (PUBLISHED.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```yaml\n")[1].split("```")[0]
    read = suite.from_mapping(yaml.safe_load(example), "example.yaml")
    assert {row.name for row in plan.make(read, smoke=True).rows} == {"resnet18", "resnet34"}
