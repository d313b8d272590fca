"""What the readers share: file names, masks and patients by them, values that mean a class, tables of spacings."""

from __future__ import annotations

import csv
import math
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Sequence
from zipfile import BadZipFile

from lib.data.case import CaseError
from lib.study import Data, InputError, require


LONGEST_NAME = 200  # bytes; file systems take 255, and what is written for a case adds to its name


def natural(name: str) -> tuple:
    """Patient_2 before Patient_10; names that differ in case or leading zeros alone keep a fixed order too."""
    parts = re.split(r"(\d+)", name)  # text and digits in turn
    return [(int(part), "") if odd % 2 else (0, part.lower()) for odd, part in enumerate(parts)], name


def printable(name: str) -> str:
    """A file's name as one line of UTF-8; what is neither (bytes of old archives' encodings) becomes `?`."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", name.encode("utf-8", "replace").decode())


def relative(root: Path, path: Path) -> str:
    """A path in the input folder as it is shown."""
    return printable(path.relative_to(root).as_posix())


def check_inside(name: str, key: str) -> None:
    """Raise InputError for a path that would leave the input folder."""
    path = Path(name)
    require(not path.is_absolute() and ".." not in path.parts, key, repr(name), "a path inside the input folder")


def stem_of(name: str, suffixes: Sequence[str]) -> str:
    """The name without its suffix, if that is one of `suffixes` (lower case)."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in suffixes else name


def listing(folder: Path) -> list[str]:
    """Names of all entries of a folder, in natural order. Raises InputError if it cannot be read."""
    try:
        return sorted(os.listdir(folder), key=natural)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None


def sorted_out(folder: Path, suffixes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the files with a known suffix, and of all other entries: folders, hidden and other files."""
    names = listing(folder)
    known = [n for n in names if stem_of(n, suffixes) != n and n[0] != "." and not (folder / n).is_dir()]
    return known, sorted(set(names) - set(known), key=natural)


class Masks:
    """The files of a folder as the masks of `images` (names), which may be in the same folder.

    pattern: of a mask's name; {name} is that of its image, {stem} that without suffix.
    """

    def __init__(self, folder: Path, pattern: str, images: Sequence[str], suffixes: Sequence[str], together: bool):
        self.folder, self.pattern, self.images, self.suffixes = folder, pattern, images, suffixes
        self.together = together  # in the images' folder
        names, self.other = sorted_out(folder, suffixes)
        self._names = dict.fromkeys(names)  # in order
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            self._by_stem.setdefault(stem_of(name, suffixes), []).append(name)

    def expected(self, image: str) -> str:
        return mask_name(self.pattern, image, self.suffixes)

    def of(self, image: str) -> list[str]:
        """The mask of that very name, else those with the same stem and another suffix."""
        exact = self.expected(image)
        found = [exact] if exact in self._names else self._by_stem.get(stem_of(exact, self.suffixes), [])
        return [name for name in found if not (self.together and name == image)]

    @cached_property
    def taken(self) -> set[str]:
        """Masks that have an image."""
        return {mask for image in self.images for mask in self.of(image)}

    @property
    def strays(self) -> list[str]:
        """Masks that have none."""
        return [] if self.together else [name for name in self._names if name not in self.taken]


def mask_name(pattern: str, image: str, suffixes: Sequence[str]) -> str:
    """The pattern with {name} and {stem} of an image filled in."""
    parts = {"{name}": image, "{stem}": stem_of(image, suffixes)}
    return "".join(parts.get(part, part) for part in re.split(r"(\{name\}|\{stem\})", pattern))


def check_name(name: str, what: str) -> None:
    """Raise CaseError for a name that tables could not hold; `what` bears it."""
    case = printable(name)
    if case != name:
        raise CaseError(case, "", f"{what}'s name holds line breaks, or bytes that are not UTF-8; rename it")
    if case != case.strip():
        raise CaseError(case.strip(), "", f"{what}'s name begins or ends with a blank; rename it")
    if len(case.encode()) > LONGEST_NAME:
        raise CaseError(case[:40] + "...", "", f"{what}'s name is longer than {LONGEST_NAME} bytes; shorten it, so that "
                                               "results can bear it")


def check_pattern(pattern: str) -> None:
    """Raise InputError if `data.reader.patient_pattern` is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"data.reader.patient_pattern: not a regular expression ({error})") from None


def patient_of(case: str, name: str, pattern: str) -> str:
    """The pattern's first group (or whole match) in `name`; the case itself without a pattern. Raises CaseError."""
    if not pattern:
        return case
    match = re.search(pattern, name)
    if match is None:
        raise CaseError(case, "", f"its name does not match data.reader.patient_pattern {pattern!r}")
    patient = match.group(1) if match.groups() else match.group(0)
    if not patient:
        raise CaseError(case, "", f"data.reader.patient_pattern {pattern!r} finds no patient in its name")
    return patient


def class_numbers(data: Data, low: int | None = None, high: int | None = None) -> dict[str, tuple[int, ...]]:
    """Class -> the numbers in a mask that mean it, of the classes that name any. Raises InputError."""
    numbers = {}
    for name, value in data.class_values.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        fine = len(values) > 0 and all(type(v) is int for v in values)
        if not fine or (low is not None and min(values) < low) or (high is not None and max(values) > high):
            bounds = "" if high is None else f" of {low} to {high}"
            raise InputError(f"data.classes.{name}: found {value!r}, expected the mask value that means it, a whole "
                             f"number{bounds}, or a list of such numbers")
        numbers[name] = tuple(values)
    return numbers


def class_colours(data: Data) -> dict[str, tuple[tuple[int, int, int], ...]]:
    """Class -> the (r, g, b) in a mask that mean it, of the classes that name any. Raises InputError."""
    colours = {}
    for name, value in data.class_values.items():
        several = isinstance(value, (list, tuple)) and len(value) > 0 and not isinstance(value[0], int)
        colours[name] = tuple(_colour(v) for v in (value if several else [value]))
        if None in colours[name]:
            raise InputError(f"data.classes.{name}: found {value!r}, expected a colour, [r, g, b] of 0 to 255 or "
                             '"#rrggbb" in quotes, or a list of colours')
    return colours


def _colour(value) -> tuple[int, int, int] | None:
    """(r, g, b) of "#rrggbb" or [r, g, b], else None."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return tuple(value)
    return None


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


def read_spacings(path: Path, table: SpacingTable, suffixes: Sequence[str]) -> dict[str, tuple[float, float] | str]:
    """Stem of an image's name -> (row, column) in mm, or a phrase that says what is wrong with its rows.

    Raises InputError for a file or column that is not there.
    """
    header, *rows = _rows(path, table.separator) or [[]]
    columns = [table.name_column, table.row_spacing_column or table.spacing_column, table.spacing_column]
    for column in columns:
        if column not in header:
            raise InputError(f"{path}: there is no column {column!r} (data.reader.spacing_table); it has "
                             f"{', '.join(filter(None, header)) or 'none'}, separated by {table.separator!r}")
    where = [header.index(column) for column in columns]
    found: dict[str, tuple[float, float] | str] = {}
    for row in rows:
        name, *cells = [row[index] if index < len(row) else "" for index in where]
        if not name:
            continue
        numbers = tuple(_number(cell, table.separator) for cell in cells)
        bad = next((cell for cell, number in zip(cells, numbers) if number is None), None)
        entry = numbers if bad is None else f"has the spacing {bad!r}, expected mm per pixel above 0,"
        stem = stem_of(name, suffixes)
        if found.setdefault(stem, entry) != entry:
            found[stem] = "has two rows with different numbers"
    return found


def _rows(path: Path, separator: str) -> list[list[str]]:
    """Cells of a CSV file, or of the first sheet of an XLSX file, as text without blanks around it."""
    try:
        if path.suffix.lower() == ".xlsx":
            from openpyxl import load_workbook
            sheet = load_workbook(path, read_only=True, data_only=True).worksheets[0]
            rows = [["" if cell is None else str(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.reader(file, delimiter=separator))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file (data.reader.spacing_table.file)") from None
    except (OSError, UnicodeDecodeError, csv.Error, BadZipFile, KeyError, ValueError) as error:
        short = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: cannot be read as a table ({short}); expected CSV in UTF-8, or XLSX") from None
    return [[cell.strip() for cell in row] for row in rows]


def _number(text: str, separator: str) -> float | None:
    """A finite number above 0, with a decimal comma too where that separates no columns; else None."""
    try:
        number = math.nan if "_" in text else float(text if separator == "," else text.replace(",", "."))
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
