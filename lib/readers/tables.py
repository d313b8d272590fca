"""Tables beside the images: CSV and XLSX as rows of text that know their sheet and number; mm per pixel by image."""

from __future__ import annotations

import csv
import math
import re
import warnings
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterator, Mapping, Sequence

from lib.readers.names import check_inside, printable, some, stem_of
from lib.study import InputError, one_of, require

WORKBOOKS = (".xlsx", ".xlsm")
ZIP = b"PK\x03\x04"  # first bytes of a workbook
OLE = b"\xd0\xcf\x11\xe0"  # those of an encrypted one, and of Excel's older format

# what openpyxl says on stderr of validations and styles means nothing for the cells' values
warnings.filterwarnings("ignore", module=r"openpyxl\.")


class RowError(Exception):
    """A row that cannot be used; the message says why."""


@dataclass(frozen=True)
class Table:
    """A table as text without blanks around it.

    place: its file (and sheet), as messages name it. header: names of the columns. rows: (number, cells); the first row
    of the file is number 1. separator: of a CSV file, else empty.
    """
    path: Path
    place: str
    header: list[str]
    rows: list[tuple[int, list[str]]]
    separator: str

    def cells(self, columns: Mapping[str, str]) -> Iterator[tuple[int, list[str]]]:
        """(number, cells of these columns, empty where there are none) of every row that has any of them.

        columns: key in the study -> name of the column, found exactly or else without regard to case. Raises InputError
        that names the columns that are not there, or there more than once.
        """
        where = self._places(columns)
        for number, row in self.rows:
            cells = [row[index] if index < len(row) else "" for index in where]
            if any(cells):
                yield number, cells

    def has(self, column: str) -> bool:
        """Whether there is such a column, exactly or without regard to case."""
        return column.strip().casefold() in (name.casefold() for name in self.header if name)

    def row(self, number: int) -> str:
        return f"{self.place}, row {number}"

    def _places(self, columns: Mapping[str, str]) -> list[int]:
        places, missing = [], []
        folded = [name.casefold() for name in self.header]
        for key, name in columns.items():
            name = name.strip()
            found = [i for i, column in enumerate(self.header) if column == name]
            found = found or [i for i, column in enumerate(folded) if column == name.casefold()]
            if len(found) > 1:
                raise InputError(f"{self.path}: {len(found)} columns are called {name!r} ({key}); rename the others")
            if not found:
                missing.append(f"{name!r} ({key})")
            places += found
        if missing:
            raise InputError(f"{self.path}: there is no column {', '.join(missing)}; it has "
                             f"{', '.join(printable(name) for name in self.header if name)}"
                             + (f", separated by {self.separator!r}" if self.separator else ""))
        return places


def check_keys(table: str, sheet: str, separator: str, columns: Mapping[str, str], known: Mapping[str, str],
               optional: Sequence[str]) -> None:
    """Raise InputError for keys of a table, in `data.reader`, that could never work.

    columns: role -> name, of those that differ from `known` or are `optional`.
    """
    check_inside(table, "data.reader.table")
    require(not sheet or table.lower().endswith(WORKBOOKS), "data.reader.sheet", sheet, "none with a CSV file")
    require(len(separator) == 1, "data.reader.separator", repr(separator), "one character")
    for role, name in columns.items():
        one_of(role, (*known, *optional), "data.reader.columns")
        require(bool(name.strip()), f"data.reader.columns.{role}", "no name", "that of a column")
    names = list({**known, **columns}.values())
    require(len(set(names)) == len(names), "data.reader.columns", names, "a column of its own for each role")


class WrittenCases:
    """Part of the readers whose truth is written apart from the images: `headers` notes in `_named` whose it has found."""

    @cached_property
    def _named(self) -> dict[Path, set[str]]:
        """Input folder -> its cases of which something is written."""
        return {}

    def has_truth(self, root: Path, case: str) -> bool:
        """Whether anything is written of the case, usable or not, as `headers` found it last."""
        if root not in self._named:
            try:
                self.headers(root, labels=True, new=True)
            except InputError:
                return False
        return case in self._named.get(root, ())


def read_table(root: Path, file: str, key: str, separator: str = ",", sheet: str = "") -> Table:
    """A CSV file (UTF-8), or a sheet of an XLSX file (default: the first), of the input folder `root`.

    key: where the study names the file. The first row that is not empty names the columns. Raises InputError for a file
    or sheet that is not there, that cannot be read or holds no rows.
    """
    path = root / file
    try:
        with path.open("rb") as opened:
            start = opened.read(4)
        if start == OLE:
            raise InputError(f"{path}: is encrypted, or an old .xls workbook; open it, take its password off and save "
                             "it as .xlsx")
        if path.suffix.lower() in WORKBOOKS:
            title, rows = _workbook(path, sheet)
            place, separator = f"{printable(file)}, sheet {printable(title)}", ""
        elif start == ZIP:
            raise InputError(f"{path}: is a workbook or an archive, no CSV; name a workbook .xlsx")
        else:
            place, rows = printable(file), _csv(path, separator)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file ({key})") from None
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(path, error) from None
    filled = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    if len(filled) < 2:
        raise InputError(f"{path}: {f'sheet {title} ' if not separator else ''}"
                         f"{'has no rows below the names of its columns' if filled else 'is empty'} ({key})")
    (_, header), *filled = filled
    other = next((sign for sign in ";\t|" if separator and len(header) == 1 and sign in header[0]), None)
    if other:
        raise InputError(f"{path}: its columns look separated by {other!r}, not by {separator!r}: set {key.rpartition('.')[0]}."
                         f"separator to {other!r}")
    if separator:  # a separator inside a cell shifts all cells behind it
        long = [str(number) for number, row in filled if any(row[len(header):])]
        if long:
            raise InputError(f"{path}: row {some(long)}: more cells than the {len(header)} columns, separated by "
                             f"{separator!r}; put cells that hold it in quotes, and write decimals with a point")
    return Table(path, place, header, filled, separator)


def _workbook(path: Path, sheet: str) -> tuple[str, list[list[str]]]:
    """Title and rows of a sheet."""
    from openpyxl import load_workbook
    try:
        with closing(load_workbook(path, read_only=True, data_only=True)) as book:
            titles = {found.title: found for found in book.worksheets if found.sheet_state == "visible" or sheet}
            alike = [title for title in titles if sheet.strip().casefold() in ("", title.strip().casefold())]
            title = next(iter([sheet] if sheet in titles else alike), None)
            if title is None:
                raise InputError(f"{path}: there is no sheet {sheet!r}; it has {some([*titles]) or 'none'}")
            rows = list(_rows(titles[title]))
        if any(None in row for row in rows):  # an empty cell may be a formula, and only a second reading can tell
            with closing(load_workbook(path, read_only=True)) as written:
                for number, (values, formulas) in enumerate(zip(rows, _rows(written[title])), 1):
                    _check_calculated(path, title, number, values, formulas)
        return title, [[_text(cell) for cell in row] for row in rows]
    except (InputError, FileNotFoundError):
        raise
    except Exception as error:  # openpyxl raises many kinds for damaged files; each means the same to the user
        raise _unreadable(path, error) from None


def _rows(sheet) -> Iterator[tuple]:
    sheet.reset_dimensions()  # some programs write wrong ones, and rows would be cut off
    return sheet.iter_rows(values_only=True)


def _check_calculated(path: Path, title: str, number: int, values: Sequence, formulas: Sequence) -> None:
    """Raise InputError for a formula whose value the program that wrote it did not store."""
    for value, formula in zip(values, formulas):
        if value is None and isinstance(formula, str) and formula.startswith("="):
            raise InputError(f"{path}: sheet {title}, row {number}: the formula {formula!r} has no stored value; open the "
                             "workbook in a spreadsheet program and save it there")


def _csv(path: Path, separator: str) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        # strict, because a quote left open would swallow all that follows
        return [[cell.strip() for cell in row] for row in csv.reader(file, delimiter=separator, strict=True)]


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, UnicodeDecodeError):
        return InputError(f"{path}: cannot be read as a table (it holds letters that are not in UTF-8): in Excel, save it "
                          'as "CSV UTF-8" or as XLSX')
    short = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{path}: cannot be read as a table ({short}); expected CSV in UTF-8, or XLSX")


def _text(cell) -> str:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # a name such as 168
    return "" if cell is None else str(cell).strip()


def parse_number(text: str, separator: str) -> float | None:
    """A finite number, with a decimal comma too where that separates no columns; else None. 1,024 could be either of two
    numbers, and is none."""
    try:
        number = math.nan if "_" in text or re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", text) else float(text if separator == "," else text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class SpacingTable:
    """`data.reader.spacing_table`: a CSV or XLSX file in the input folder with mm per pixel of every image.

    spacing_column: of rows and columns alike, or of columns alone beside a row_spacing_column.
    """
    file: str
    name_column: str
    spacing_column: str
    row_spacing_column: str = ""
    separator: str = ","

    def __post_init__(self):
        check_inside(self.file, "data.reader.spacing_table.file")
        require(len(self.separator) == 1, "data.reader.spacing_table.separator", repr(self.separator), "one character")


def read_spacings(root: Path, table: SpacingTable, suffixes: Sequence[str]) -> dict[str, tuple[float, float] | str]:
    """Stem of an image's name -> (row, column) in mm, or a phrase that says what is wrong with its rows.

    Raises InputError for a file or column that is not there.
    """
    keys = [key for key in ("name_column", "row_spacing_column", "spacing_column") if getattr(table, key)]
    read = read_table(root, table.file, "data.reader.spacing_table.file", table.separator)
    found: dict[str, tuple[float, float] | str] = {}
    for _, (name, *cells) in read.cells({f"data.reader.spacing_table.{key}": getattr(table, key) for key in keys}):
        if not name:
            continue
        numbers = [parse_number(cell, read.separator) for cell in cells]
        bad = next((cell for cell, number in zip(cells, numbers) if number is None or number <= 0), None)
        entry = ((numbers[0], numbers[-1]) if bad is None else
                 f"has the spacing {bad!r}, expected mm per pixel above 0,")
        stem = stem_of(name, suffixes)
        if found.setdefault(stem, entry) != entry:
            found[stem] = "has two rows with different numbers"
    return found
