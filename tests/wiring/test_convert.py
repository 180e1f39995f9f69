"""Values become what an option declares, and name nothing that would be imported."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from mtlkit.convert import Misfit, convert
from mtlkit.errors import ConfigError
from mtlkit.options import typed
from mtlkit.source import BARE, Given


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, "7", 7),
        (float, 1, 1.0),
        (float, "1e-3", 0.001),
        (bool, "True", True),
        (str, Path("a/b"), "a/b"),
        (Path, "a/b", Path("a/b")),
        (bool | Path, "false", False),
        (bool | Path, "file", Path("file")),
        (int | str | None, "7", 7),
        (int | str | None, "7x", "7x"),
        (float | None, "null", None),
        (Annotated[int, "words"], "7", 7),
        (Literal["a", 2], "2", 2),
        (tuple[int, ...], [1, "2"], (1, 2)),
        (list[int], (1, "2"), [1, 2]),
        (Sequence[str], ["a"], ("a",)),
        (tuple[int, str], [1, "b"], (1, "b")),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (dict[str, Any], {"a": "1e-3", "b": ["x"]}, {"a": 0.001, "b": ["x"]}),
    ],
)
def test_a_value_gets_the_declared_type(hint: Any, value: Any, expected: Any) -> None:
    found = convert(value, hint)
    assert found == expected
    assert type(found) is type(expected)


DEEP: list[Any] = []
DEEP.append(DEEP)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, True), (int, 1.0), (int, "1.0"), (int, "9" * 200), (int, "&a 1"), (int, []),
        (float, 10**400), (float, "inf"), (float, "nan"), (bool, 1), (bool, "yes"), (str, 5),
        (str, "a\0b"), (Path, "a\0b"), (tuple[int, str], [1]), (list[int], "1"), (list[int], {}),
        (dict[str, int], {1: 1}), (Literal["a"], "b"), (Literal[1], True), (Any, DEEP),
        (type, "os.path"), (Callable, "os.system"), (Callable[[int], int], "os.system"),
        (Path | None, {"class_path": "pathlib.Path"}),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(hint: Any, value: Any) -> None:
    with pytest.raises(Misfit):
        convert(value, hint)


class Component:
    def __init__(
        self,
        *,
        plain: dict[str, Any] | None = None,
        anything: Any = None,
        kind: type | None = None,
        call: Callable[[], None] | None = None,
        numbers: tuple[int, ...] = (),
    ) -> None: ...


@pytest.mark.parametrize("option", ["plain", "anything", "kind", "call", "numbers"])
@pytest.mark.parametrize(
    "value",
    [
        "this.s",
        {"class_path": "this.s"},
        {"a": {"class_path": "this.s"}},
        {"a": "{class_path: this.s}"},
        "{class_path: this.s}",
        '{"\\x63lass_path": this.s}',
        "a={class_path: this.s}",
        "!!python/name:this.s",
        BARE,
    ],
    ids=str,
)
def test_no_value_names_something_to_import(option: str, value: Any) -> None:
    with suppress(ConfigError):
        typed(Component, {option: Given(value, "")}, str)
    assert "this" not in sys.modules
