from pathlib import Path

import pytest
from mtlkit_datasets._labels import Names, class_index, names_of, read_names, read_table

from mtlkit import DataError

NAMES = Names({"a": Path("a.jpg"), "one/b": Path("one/b.png"), "two/b": Path("two/b.jpg")})


def read(tmp_path, text, encoding="utf-8"):
    (tmp_path / "labels.csv").write_text(text, encoding=encoding)
    return read_table(tmp_path / "labels.csv", NAMES)


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
    columns, rows = read(tmp_path, "id, kind ,split,size\na, cat,train, 3\none/b,,val,4\n")
    assert columns == ["kind", "size"]
    assert rows["a"] == {"id": "a", "kind": "cat", "split": "train", "size": "3"}
    assert rows["one/b"]["kind"] == ""


def test_a_byte_order_mark_of_a_spreadsheet_is_no_part_of_the_first_column(tmp_path):
    assert read(tmp_path, "id,kind\na,cat\n", encoding="utf-8-sig")[0] == ["kind"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,kind\na,cat\n", r"labels\.csv: has no column 'id' .* but name, kind"),
        ("", r"labels\.csv: has no column 'id' .* but nothing"),
        ("id,kind,kind\n", "a column cannot be called 'kind'"),
        ("id,seg\n", "a column cannot be called 'seg'.*; rename it"),
        ("id,,kind\n", "a column cannot be called ''"),
        ("id,kind\nzebra,cat\n", r"labels\.csv: line 2: 'zebra' is no picture in images/"),
        ("id,kind\na,cat\na.jpg,dog\n", "line 3: 'a' has a line already"),
        ("id,kind\na\n", "line 2 has not 2 cells"),
        ("id,kind\na,cat,dog\n", "line 2 has not 2 cells"),
        ("id,split\na,testing\n", "line 2: split 'testing' is none of train, val, test"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_table_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read as CSV"):
        read(tmp_path, "id,kind\na,žluť\n", encoding="cp1250")


def test_class_names_are_ordered_as_numbers_or_by_the_alphabet():
    assert names_of(["dog", "cat", "dog"]) == ("cat", "dog")
    assert names_of(["10", "-1", "9", "1"]) == ("1", "9", "10")


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
