from pathlib import Path

import pytest
from mtlkit_datasets._labels import Names, class_index, names_of, read_names, read_table

from mtlkit import DataError

NAMES = Names({"a": Path("a.jpg"), "one/b": Path("one/b.png"), "two/b": Path("two/b.jpg")})


def read(tmp_path, text, encoding="utf-8", splits=True):
    (tmp_path / "labels.csv").write_text(text, encoding=encoding, newline="")
    return read_table(tmp_path / "labels.csv", NAMES, splits=splits)


@pytest.mark.parametrize(
    ("name", "id"),
    [("a", "a"), ("a.jpg", "a"), ("one/b", "one/b"), ("b.png", "one/b"), ("two/b.jpg", "two/b")],
)
def test_a_picture_is_found_by_path_or_bare_name(name, id):
    assert NAMES.find(name) == id


def test_an_ambiguous_or_unknown_name_is_refused():
    with pytest.raises(KeyError, match="'b' is the name of several pictures; write its path"):
        NAMES.find("b")
    with pytest.raises(KeyError, match="'c' is no picture in images/"):
        NAMES.find("c")


def test_columns_and_rows_are_read(tmp_path):
    table = read(tmp_path, "id, kind ,split,size\na, cat,train, 3\none/b,,val,4\n")
    assert table.classes == ["kind", "size"]
    assert table.splits
    assert table.rows["a"] == {"id": "a", "kind": "cat", "split": "train", "size": "3"}
    assert table.rows["one/b"]["kind"] == ""
    assert not table.problems


def test_a_byte_order_mark_of_a_spreadsheet_is_no_part_of_the_first_column(tmp_path):
    assert read(tmp_path, "id,kind\na,cat\n", encoding="utf-8-sig").classes == ["kind"]


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends_of_any_system_are_the_same(tmp_path, end):
    table = read(tmp_path, end.join(["id,kind", "a,cat", "one/b,dog", ""]))
    assert {id: row["kind"] for id, row in table.rows.items()} == {"a": "cat", "one/b": "dog"}
    assert not table.problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,kind\na,cat\n", r"labels\.csv: has no column 'id' .* but name, kind"),
        ("", r"labels\.csv: has no column 'id' .* but nothing"),
        ("id,kind,kind\n", "a column cannot be called 'kind'"),
        ("id,seg\n", "a column cannot be called 'seg'.*; rename it"),
        ("id,,kind\n", "a column cannot be called ''"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message", "rows", "labels"),
    [
        ("id,kind\nzebra,cat\na,dog", r"line 2: 'zebra' is no picture in images/", {"a"}, ()),
        ("id,kind\na,cat\na.jpg,dog\n", "line 3: 'a' has a line already", set(), ("kind",)),
        ("id,kind\na,\na,\n", "line 3: 'a' has a line already", set(), ()),
        ("id,kind,x\na,cat\ntwo/b,dog,1", "line 2: has not 3 cells", {"two/b"}, ("kind",)),
        ("id,kind\na,cat,dog\n", "line 2: has not 2 cells", set(), ("kind",)),
    ],
)
def test_a_line_that_cannot_be_used_spoils_the_labels_of_its_picture_alone(
    tmp_path, text, message, rows, labels
):
    table = read(tmp_path, text)
    [problem] = table.problems
    assert problem.text.endswith(f"labels.csv: {message}")
    assert (problem.sample, problem.labels) == (False, labels)
    assert set(table.rows) == rows
    assert table.bad == ({"a"} - rows)


def test_where_the_table_decides_the_split_a_bad_line_spoils_the_picture(tmp_path):
    text = "id,kind,split\na,cat,testing\none/b,cat,val\n"
    [problem] = read(tmp_path, text).problems
    assert problem.text.endswith("line 2: split 'testing' is none of train, val, test")
    assert (problem.sample, problem.labels) == (True, ())
    assert not read(tmp_path, text, splits=False).problems


def test_a_third_line_costs_nothing_more(tmp_path):
    table = read(tmp_path, "id,kind\na,x\na,y\na,z\n")
    assert [problem.labels for problem in table.problems] == [("kind",), ()]
    assert not table.rows


def test_a_table_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read as CSV"):
        read(tmp_path, "id,kind\na,žluť\n", encoding="cp1250")


def test_class_names_are_ordered_as_numbers_or_by_the_alphabet():
    assert names_of(["dog", "cat", "dog"]) == ("cat", "dog")
    assert names_of(["10", "-1", "9", "1"]) == ("1", "9", "10")
    assert names_of(["9" * 5000, "10"]) == ("10", "9" * 5000)


def test_a_class_is_given_by_name_or_number():
    assert class_index("dog", ("cat", "dog")) == 1
    assert class_index("0", ("cat", "dog")) == 0
    assert class_index("6", ("1", "2", "6")) == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2", "class id 2 is out of range; there are 2 classes: cat, dog"),
        ("-1", "class id -1 is out of range; leave the cell empty"),
        ("cow", "class cow is out of range"),
    ],
)
def test_an_unknown_class_is_refused(value, message):
    with pytest.raises(KeyError, match=message):
        class_index(value, ("cat", "dog"))


def test_a_list_of_names_is_optional_and_names_each_class_once(tmp_path):
    path = tmp_path / "cls_classes.txt"
    assert read_names(path) is None
    path.write_text("cat\n\n dog \n")
    assert read_names(path) == ("cat", "dog")
    for bad in ("cat\ncat\n", "\n"):
        path.write_text(bad)
        with pytest.raises(DataError, match="must name each class once, one a line"):
            read_names(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"cls_classes\.txt: cannot be read"):
        read_names(path)
