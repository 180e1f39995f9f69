"""Labels in text files: a table of class labels, lists of class names."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mtlkit import DataError, DataProblem

SPLITS = ("train", "val", "test")
NOT_CLASSES = ("id", "split")
TAKEN = ("image", "seg", "bbox", "present", "targets")
Row = dict[str, str]


class Names:
    """Finds the picture that a file means by its path, its path without suffix, or its bare name.

    Args:
        images: paths relative to ``images/`` by id, which is that path without suffix.
    """

    def __init__(self, images: Mapping[str, Path], /) -> None:
        self._ids: dict[str, str | None] = {}
        for id, path in images.items():
            for name in {path.name, path.stem}:
                self._ids[name] = None if name in self._ids else id
        for id, path in images.items():
            self._ids[id] = self._ids[path.as_posix()] = id

    def find(self, name: str, /) -> str:
        """The id.

        Raises:
            KeyError: no picture is called so, or several are; the argument says which.
        """
        if name not in self._ids:
            raise KeyError(f"'{name}' is no picture in images/")
        id = self._ids[name]
        if id is None:
            raise KeyError(f"'{name}' is the name of several pictures; write its path in images/")
        return id


@dataclass
class Table:
    """What a ``labels.csv`` says.

    Args:
        classes: its columns of class labels, in order.
        splits: whether its column ``split`` decides where a picture belongs.
        rows: by the picture's id.
        bad: pictures without a row because a line of theirs cannot be used.
        problems: lines that cannot be used.
    """

    classes: list[str] = field(default_factory=list)
    splits: bool = False
    rows: dict[str, Row] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    problems: list[DataProblem] = field(default_factory=list)

    def add(self, id: str, row: Row, where: str, fault: str | None, /) -> None:
        """Keep a row, or leave out all that the table says of a picture."""
        if fault is None and (id in self.rows or id in self.bad):
            fault = f"'{id}' has a line already"
        if fault is None and self.splits and row["split"] not in SPLITS:
            fault = f"split '{row['split']}' is none of {', '.join(SPLITS)}"
        if fault is None:
            self.rows[id] = row
            return
        filled = {**row, **self.rows.pop(id, {})}
        lost = () if id in self.bad or self.splits else tuple(c for c in self.classes if filled[c])
        sample = self.splits and id not in self.bad
        self.problems.append(DataProblem(f"{where}: {fault}", sample, lost))
        self.bad.add(id)


def read_table(path: Path, names: Names, /, *, splits: bool) -> Table:
    """Read a ``labels.csv``; ``splits`` is whether a column ``split`` would decide.

    Raises:
        DataError: it is no table, or its columns cannot be meant.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); mend it") from error
    check_columns(path, columns)
    classes = [column for column in columns if column not in NOT_CLASSES]
    table = Table(classes, splits and "split" in columns)
    for number, line in lines:
        where = f"{path}: line {number}"
        row = {column: (line[column] or "").strip() for column in columns}
        ragged = None in line or None in line.values()
        try:
            id = names.find(row["id"])
        except KeyError as error:
            table.problems.append(DataProblem(f"{where}: {error.args[0]}"))
        else:
            table.add(id, row, where, f"has not {len(columns)} cells" if ragged else None)
    return table


def check_columns(path: Path, columns: list[str], /) -> None:
    """Refuse a header that cannot be meant."""
    if "id" not in columns:
        raise DataError(
            f"{path}: has no column 'id' (a picture's name) but {', '.join(columns) or 'nothing'}; "
            "the first line names the columns, separated by commas"
        )
    if bad := [name for name in columns if name in TAKEN or not name or columns.count(name) > 1]:
        raise DataError(
            f"{path}: a column cannot be called '{bad[0]}' (empty, twice, or a word with a "
            "meaning of its own); rename it"
        )


def read_names(path: Path, /) -> tuple[str, ...] | None:
    """Class names, one a line; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); mend it") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path}: must name each class once, one a line")
    return names


def names_of(values: Iterable[str], /) -> tuple[str, ...]:
    """The distinct values in order: of numbers, if all are, else of the alphabet.

    A negative number, by which some mean "no class", is no name.
    """
    distinct = sorted(value for value in set(values) if not _is_negative(value))
    return tuple(sorted(distinct, key=int) if all(map(_is_number, distinct)) else distinct)


def class_index(value: str, names: tuple[str, ...], /) -> int:
    """The number of a class given by its name or by that number.

    Raises:
        KeyError: there is no such class; the argument says so.
    """
    if value in names:
        return names.index(value)
    if _is_number(value) and int(value) < len(names):
        return int(value)
    if _is_negative(value):
        raise KeyError(
            f"class id {value} is out of range; leave the cell empty for a missing label"
        )
    what = "class id" if _is_number(value) else "class"
    known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    raise KeyError(f"{what} {value} is out of range; there are {len(names)} classes: {known}")


def _is_negative(value: str) -> bool:
    return value.startswith("-") and value[1:].isdecimal()


def _is_number(value: str) -> bool:
    return value.isdecimal() and len(value) < 10
