"""Boxes as they are written, a row of a table each: checked, and gathered by case."""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from lib.data.case import CaseProblem
from lib.readers.image_tree import Photo
from lib.readers.names import folded, printable, some, spellings
from lib.readers.photo_rows import Found, ImageRows, Matched, Row, check_axes
from lib.readers.tables import RowError, Table, parse_number
from lib.study import Data, InputError

CORNERS = ("x_min", "y_min", "x_max", "y_max")
MOST_ROWS = 40  # of one unknown structure that a message lists


class TableBoxes(ImageRows):
    """Rows of a table: image, structure, and corners in pixels. columns: role -> column, of file, structure and
    CORNERS in this order."""
    missing = "no box"
    nameless = "whose box it is; fill it in (of merged cells the first row alone has it)"

    def __init__(self, tables: Mapping[str, Table], columns: Mapping[str, str], data: Data):
        super().__init__(tables, columns)
        self.classes, self.known = data.classes, spellings(data)
        self.titles = [columns[role] for role in ("structure", *CORNERS)]

    def found(self, matched: Matched, sizes: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Found], list[CaseProblem]]:
        return found_boxes(self, matched, sizes)

    def box(self, row: Row, size: tuple[int, int] | None) -> tuple[str, list[float]]:
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
        other = {role: self.columns[("y" if role[0] == "x" else "x") + role[1:]] for role in CORNERS}
        remedy = f"{{{', '.join(f'{role}: {column}' for role, column in other.items())}}}"
        check_axes(self.place, swapped, straight, len(matched.rows), "boxes", remedy)

    def _numbers(self, row: Row) -> list[float | None]:
        return [parse_number(cell, self.separator) for cell in row.cells[1:]]

    def check(self) -> None:
        """Raise InputError for structures that the study does not know, of whatever image."""
        unknown: dict[str, list[str]] = {}
        for _, _, row in self.rows:
            if row.cells[0] and folded(row.cells[0]) not in self.known:
                unknown.setdefault(row.cells[0], []).append(str(row.number))
        if unknown:
            lines = [f"\n  {printable(name)!r} in row{'s' * (len(rows) > 1)} {some(rows, MOST_ROWS)}"
                     for name, rows in unknown.items()]
            first, new = self.classes[0], printable(next(iter(unknown)))
            raise InputError(f"{self.place}: structures that the study does not know:{''.join(lines)}\nIt knows "
                             f"{', '.join(self.classes)}. Add them to data.classes, as other spellings too, such as "
                             f"classes: {{{first}: [{first}, {new}]}}, or correct the rows")


def found_boxes(source, matched: Matched, sizes: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Found], list[CaseProblem]]:
    """(case -> class -> [x_min, y_min, x_max, y_max] in pixels, problems) of all rows that have an image; the classes are
    labels, in the order of the study.

    source: TableBoxes or LabelFiles. sizes: case -> (rows, columns). A structure is in an image once; two copies of an
    image may say the same of it. Raises InputError if x and y look swapped.
    """
    boxes: dict[str, dict[str, list[float]]] = {}
    first: dict[tuple[str, str], tuple[Photo, Row]] = {}
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
    if problems:
        source.check_axes(matched, sizes)
    return {case: Found({name: of[name] for name in source.classes if name in of}) for case, of in boxes.items()}, problems


def fits(box: Sequence[float], size: tuple[float, float]) -> bool:
    """Whether a half-open box lies inside (rows, columns)."""
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[1] and box[3] <= size[0]


def beyond(box: Sequence[float], size: tuple[int, int]) -> str:
    """How far, and over which edges, a box reaches out of its image."""
    over = {"left": -box[0], "top": -box[1], "right": box[2] - size[1], "bottom": box[3] - size[0]}
    sides = " and ".join(f"{pixels:g} px beyond the {side} edge" for side, pixels in over.items() if pixels > 0)
    return f"reaches {sides} of its image, which has {size[0]} x {size[1]} pixels (rows x columns)"

