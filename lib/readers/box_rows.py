"""Boxes as they are written, a row of a table each: matched to images, checked, and gathered by case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Sequence

import numpy as np

from lib.data.case import CaseProblem
from lib.readers.image_files import file_stem
from lib.readers.image_tree import Photo
from lib.readers.names import natural, printable, some
from lib.readers.photo_names import PhotoNames, UnclearName
from lib.readers.tables import Table, parse_number
from lib.study import Data, InputError

CORNERS = ("x_min", "y_min", "x_max", "y_max")
MOST_ROWS = 40  # of one unknown structure that a message lists
SWAPPED = 0.02  # share of the boxes that do not fit, but would with x and y exchanged, from which the columns are doubted


class RowError(Exception):
    """A box that cannot be used; the message says why."""


@dataclass(frozen=True)
class BoxRow:
    """place: where it is written, as messages name it. number: its row or line there. cells: as they are written."""
    place: str
    number: int
    cells: list[str]


@dataclass
class Matched:
    """rows: each with its image. found: how many rows (or label files) have an image. absent: of each that has none,
    the image as it is named. doubtful: cases that a bad row may mean."""
    rows: list[tuple[Photo, BoxRow]] = field(default_factory=list)
    problems: list[CaseProblem] = field(default_factory=list)
    found: int = 0
    absent: list[str] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)


class TableBoxes:
    """Rows of a table: image, structure, and corners in pixels. columns: role -> column, of file, structure and
    CORNERS in this order."""

    def __init__(self, table: Table, columns: Mapping[str, str], data: Data):
        self.place, self.columns, self.separator = table.place, columns, table.separator or ","
        self.classes, self.known = data.classes, spellings(data)
        self.titles = [columns[role] for role in ("structure", *CORNERS)]
        self.rows = [(cells[0], BoxRow(table.row(number), number, cells[1:])) for number, cells in
                     table.cells({f"data.reader.columns.{role}": column for role, column in columns.items()})]

    def match(self, photos: Sequence[Photo]) -> Matched:
        """Raises InputError for structures that the study does not know, of whatever image."""
        self._check_structures()
        names, matched = PhotoNames(photos), Matched()
        for name, row in self.rows:
            if not name:
                matched.problems.append(CaseProblem("", row.place, f"{self.columns['file']} is empty, so nobody knows whose "
                                                    "box it is; fill it in (of merged cells the first row alone has it)"))
                continue
            try:
                photo = names.find(name)
            except UnclearName as error:
                case = file_stem(name.replace("\\", "/").rpartition("/")[2]) or name
                matched.problems.append(CaseProblem(printable(case), row.place, f"{self.columns['file']} {error}"))
                matched.doubtful.update(error.cases)
                continue
            if photo is None:
                matched.absent.append(name)
            else:
                matched.rows.append((photo, row))
        matched.found = len(matched.rows)
        return matched

    def box(self, row: BoxRow, size: tuple[int, int] | None) -> tuple[str, list[float]]:
        """(class, box) of a row; `size` (rows, columns) is that of its image, if it can be read. Raises RowError."""
        titles, who = self.titles, f"{printable(row.cells[0])}: " if row.cells[0] else ""
        empty = [title for title, cell in zip(titles, row.cells) if not cell]
        if empty:
            raise RowError(f"{who}{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty")
        box = self._numbers(row)
        wrong = [f"{title} is {printable(cell)!r}" for title, cell, number in zip(titles[1:], row.cells[1:], box)
                 if number is None]
        if wrong:
            raise RowError(f"{who}{' and '.join(wrong)}, expected a number of pixels")
        for low, high in ((0, 2), (1, 3)):
            if np.float32(box[low]) >= np.float32(box[high]):
                raise RowError(f"{who}{titles[1 + low]} {box[low]:g} is not below {titles[1 + high]} {box[high]:g}")
        if size and not fits(box, size):
            raise RowError(who + beyond(box, size))
        return self.known[folded(row.cells[0])], box

    def check_axes(self, matched: Matched, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Raise InputError if the boxes fit their images much better with x and y exchanged.

        In wide images most boxes fit either way: what tells are those that fit in one way only.
        """
        swapped = straight = 0
        for photo, row in matched.rows:
            box, size = self._numbers(row), sizes.get(photo.case)
            if size and None not in box and box[0] < box[2] and box[1] < box[3]:
                exchanged = fits([box[1], box[0], box[3], box[2]], size)
                swapped += exchanged and not fits(box, size)
                straight += fits(box, size) and not exchanged
        if swapped > max(1, SWAPPED * len(matched.rows)) and straight * 10 <= swapped:
            other = {role: self.columns[("y" if role[0] == "x" else "x") + role[1:]] for role in CORNERS}
            raise InputError(f"{self.place}: x and y look swapped: {swapped} of {len(matched.rows)} boxes do not fit "
                             "their images, but would with x and y exchanged; set data.reader.columns to {"
                             + ", ".join(f"{role}: {column}" for role, column in other.items()) + "}")

    def no_match(self, absent: Sequence[str]) -> str:
        """Of rows none of which has an image."""
        return (f"{self.place}: none of its {len(absent)} rows names an image that is there "
                f"(data.reader.columns.file is {self.columns['file']!r}); it names {some(_different(absent), 5)}")

    def absent_note(self, absent: Sequence[str], images: str) -> str:
        names = _different(absent)
        are = "s that are" if len(names) > 1 else " that is"
        rows = f"{len(absent)} row{'s' * (len(absent) > 1)}"
        return f"{self.place}: {rows} of {len(names)} image{are} not in {images}/: {some(names)}"

    def _numbers(self, row: BoxRow) -> list[float | None]:
        return [parse_number(cell, self.separator) for cell in row.cells[1:]]

    def _check_structures(self) -> None:
        unknown: dict[str, list[str]] = {}
        for _, row in self.rows:
            if row.cells[0] and folded(row.cells[0]) not in self.known:
                unknown.setdefault(row.cells[0], []).append(str(row.number))
        if unknown:
            lines = [f"\n  {printable(name)!r} in row{'s' * (len(rows) > 1)} {some(rows, MOST_ROWS)}"
                     for name, rows in unknown.items()]
            first, new = self.classes[0], printable(next(iter(unknown)))
            raise InputError(f"{self.place}: structures that the study does not know:{''.join(lines)}\nIt knows "
                             f"{', '.join(self.classes)}. Add them to data.classes, as other spellings too, such as "
                             f"classes: {{{first}: [{first}, {new}]}}, or correct the rows")


def checked_boxes(source, matched: Matched,
                  sizes: Mapping[str, tuple[int, int]]) -> tuple[dict[str, dict[str, list[float]]], list[CaseProblem]]:
    """(case -> class -> [x_min, y_min, x_max, y_max] in pixels, problems) of all rows that have an image.

    source: TableBoxes or LabelFiles. sizes: case -> (rows, columns). A structure is in an image once; two copies of an
    image may say the same of it.
    """
    boxes: dict[str, dict[str, list[float]]] = {}
    first: dict[tuple[str, str], tuple[Photo, BoxRow]] = {}
    problems = []
    for photo, row in matched.rows:
        try:
            name, box = source.box(row, sizes.get(photo.case))
            before, there = first.setdefault((photo.case, name), (photo, row))
            if there is not row and (before is photo or boxes[photo.case][name] != box):
                raise RowError(f"{name}: a second box in one image; the first is in {there.place}")
            boxes.setdefault(photo.case, {})[name] = box
        except RowError as error:
            problems.append(CaseProblem(printable(photo.case), row.place, str(error)))
    return boxes, problems


def spellings(data: Data) -> dict[str, str]:
    """Folded spelling -> class: the texts that data.classes gives a class, and its own name. Raises InputError."""
    known: dict[str, str] = {}
    for name, value in data.class_values.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        if not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise InputError(f"data.classes.{name}: found {value!r}, expected a name that the table gives it, or a "
                             "list of such names, in quotes where they are numbers")
        for text in values:
            if known.setdefault(folded(text), name) != name:
                raise InputError(f"data.classes.{name}: {text!r} is a name of {known[folded(text)]} too")
    for name in data.classes:
        if known.setdefault(folded(name), name) != name and name not in data.class_values:
            raise InputError(f"data.classes.{name}: this is a name of {known[folded(name)]} too")
    return known


def folded(text: str) -> str:
    """A structure's name without regard to case and to how many blanks there are."""
    return " ".join(text.split()).casefold()


def fits(box: Sequence[float], size: tuple[float, float]) -> bool:
    """Whether a half-open box lies inside (rows, columns)."""
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[1] and box[3] <= size[0]


def beyond(box: Sequence[float], size: tuple[int, int]) -> str:
    """How far, and over which edges, a box reaches out of its image."""
    over = {"left": -box[0], "top": -box[1], "right": box[2] - size[1], "bottom": box[3] - size[0]}
    sides = " and ".join(f"{pixels:g} px beyond the {side} edge" for side, pixels in over.items() if pixels > 0)
    return f"reaches {sides} of its image, which has {size[0]} x {size[1]} pixels (rows x columns)"


def _different(names: Sequence[str]) -> list[str]:
    return sorted(set(names), key=natural)
