"""YAML whoever wrote it: plain values, or one reason and its line."""

import time

import pytest

from mtlkit.tree import LARGEST, Unreadable, read_tree

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)


def test_plain_values_are_read() -> None:
    text = "{a: no, b: true, c: 2026-11-26, d: 1e-3, e: 1.5, f: [~, 7], g: =, h: '1', \ufeffi: é}"
    assert read_tree(text) == {
        "a": "no", "b": True, "c": "2026-11-26", "d": "1e-3", "e": 1.5, "f": [None, 7], "g": "=",
        "h": "1", "\ufeffi": "é",
    }  # fmt: skip


def test_an_empty_text_is_nothing() -> None:
    assert read_tree("") is None
    assert read_tree("\ufeff# only a comment".encode()) is None


def test_aliases_and_merges_are_read() -> None:
    text = "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}"
    assert read_tree(text) == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("a: !!python/object/apply:os.system [true]", "the tag tag:yaml.org,2002:python/", 1),
        ("\na: !mine x", "the tag !mine stands for no plain value", 2),
        ("a: !!binary eA==", "binary stands for no plain value", 1),
        ("a: !!timestamp x", "timestamp stands for no plain value", 1),
        ("a: !!int x", "'x' is no int", 1),
        ("a: !!map x", "the tag tag:yaml.org,2002:map stands for no plain value", 1),
        (LAUGHS, "more than 100000 values, with what aliases stand for", 6),
        (MERGES, "more than 100000 values, with what aliases stand for", 6),
        ("a: &a [*a]", "a value that holds itself", 1),
        ("a: &a {b: {c: *a}}", "a value that holds itself", 1),
        ("[" * 2000, "nested deeper than 32 levels", 1),
        (
            "a0: &a0 x\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 40)),
            "nested deeper than 32 levels",
            33,
        ),
        ("a: " + "9" * 5000, "a number of more than 100 characters", 1),
        ("a: 1" + ":1" * 300, "a number of more than 100 characters", 1),
        ("? [a]\n: 1", "a name that is a list or a mapping", 1),
        ("a: 1\nb: 2\na: 3", "'a' is given twice", 3),
        ('a: "\\UFFFFFFFF"', "it has a number that is out of range", None),
        ("a: \x01", "unacceptable character", None),
        (b"\xff\xfe", "it is not UTF-8 text", None),
        ("a: " + "x" * LARGEST, f"it is longer than {LARGEST} bytes", None),
        ("a: [", "expected the node content, but found '<stream end>'", 1),
    ],
    ids=range(21),
)
def test_what_is_no_configuration_is_refused(text: str, reason: str, line: int | None) -> None:
    start = time.process_time()
    with pytest.raises(Unreadable) as caught:
        read_tree(text)
    assert reason in str(caught.value)
    assert caught.value.line == line
    assert time.process_time() - start < 10
