"""A folder of photographs and the coordinates of points in them, from a table with a row per image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Mapping, Sequence

import numpy as np

from lib.data.case import Case, CaseProblem, Header
from lib.readers.image_tree import Photo
from lib.readers.labelled_tree import LabelledTree
from lib.readers.names import printable, some
from lib.readers.photo_rows import Found, ImageRows, Matched, Row, check_axes, one_each
from lib.readers.tables import RowError, Table, parse_number
from lib.study import InputError, require

POINT = "{point}"


@dataclass(frozen=True)
class ImagePoints(LabelledTree):
    """`data.reader` of a study of photographs and points in them: the keys of LabelledTree, whose table has a row per image.

    columns: `image`; `x` and `y`, in which {point} is a class of data.classes or how the study says it is spelt, in pixels,
    0 at the centre of the first; and as there are `patient` and `subset` (train, val or test).
    """
    COLUMNS: ClassVar[dict[str, str]] = {"image": "image", "x": "{point}_x", "y": "{point}_y"}
    OPTIONAL: ClassVar[tuple[str, ...]] = ("patient", "subset")

    def __post_init__(self):
        super().__post_init__()
        require(bool(self.table), "data.reader.table", "none", "the table with the points of each image")
        self._check_table("")
        for role in ("x", "y"):
            require(self._titles[role].count(POINT) == 1, f"data.reader.columns.{role}", repr(self._titles[role]),
                    f"the name of a column with {POINT} in it, such as {self.COLUMNS[role]}")
        for name, value in self.data.class_values.items():
            require(isinstance(value, str) and bool(value.strip()), f"data.classes.{name}", repr(value),
                    "what the table's columns call it, in quotes where that is a number")
        spelt = [self._spelt(name).casefold() for name in self.data.classes]
        require(len(set(spelt)) == len(spelt), "data.classes", spelt, "columns of its own for each point")

    @property
    def expected(self) -> str:
        """What an input folder should hold."""
        return (f"{self.images}/ with images (PNG, JPG, TIFF or BMP), in sub-folders too, and {self.table} with a row for "
                f"each, in columns {', '.join(self._titles.values())}")

    def find_classes(self, root: Path, headers: list[Header]) -> dict:
        """point -> None of all pairs of columns, in the order of the table."""
        return dict.fromkeys(self._points(self._tables(root)))

    def read(self, root: Path, header: Header, labels: bool = True) -> Case:
        """One case: frames uint8 (channels, 1, rows, columns); truth float32 (1, 2) of every point, x and y in pixels, 0 at
        the centre of the first, NaN where it is absent. Raises CaseError naming the file."""
        absent = [np.nan, np.nan]
        truth = {name: np.array([header.labels.get(name, absent)], np.float32)
                 for name in (self.data.classes if labels else ())}
        return Case(header, self._frames(root, header), truth)

    def _spelt(self, name: str) -> str:
        return self.data.class_values.get(name, name).strip()

    def _points(self, tables: Mapping[str, Table]) -> tuple[str, ...]:
        """data.classes, or else the points that both columns of are there. Raises InputError if there are none."""
        if self.data.classes:
            return self.data.classes
        table, titles = next(iter(tables.values())), self._titles
        patterns = [re.compile("(.+)".join(map(re.escape, titles[role].strip().split(POINT))), re.IGNORECASE)
                    for role in ("x", "y")]
        matches = [[match[1] for match in map(pattern.fullmatch, table.header) if match] for pattern in patterns]
        found = [name for name in matches[0] if name.casefold() in {other.casefold() for other in matches[1]}]
        if not found:
            raise InputError(f"data.classes: none given, and {table.path} has no pair of columns {titles['x']} and "
                             f"{titles['y']}; it has {some([name for name in table.header if name], 20)}")
        return tuple(found)

    def _source(self, root: Path, folders: Mapping[str, Path], new: bool) -> TablePoints:
        tables = self._tables(root)
        roles = self._rows_of(tables, new)
        templates = {role: roles.pop(role) for role in ("x", "y")}
        names = self._points(tables)
        for name in names:
            roles |= {f"{role} of {name}": title.replace(POINT, self._spelt(name)) for role, title in templates.items()}
        return TablePoints(tables, roles, names, templates)

    def _notes(self, headers: list[Header]) -> list[str]:
        without = [header.case for header in headers if not header.labels]
        images = f"{len(without)} image{'s' * (len(without) > 1)}"
        return [f"{images} without any point, kept as such: {some(without)}"] if without else []


class TablePoints(ImageRows):
    """Rows of a table: image, and x and y of every point."""
    nameless = "whose points these are; fill it in"

    def __init__(self, tables: Mapping[str, Table], columns: Mapping[str, str], names: Sequence[str],
                 templates: Mapping[str, str]):
        """columns: role -> column: the image's name, others, and x and y of each of the `names`. templates: x and y as the
        study has them."""
        super().__init__(tables, columns)
        self.names, self.templates = names, templates
        self.titles = [(columns[f"x of {name}"], columns[f"y of {name}"]) for name in names]

    def found(self, matched: Matched, sizes: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Found], list[CaseProblem]]:
        """(case -> point -> [x, y] in pixels, problems) of all rows that have an image. sizes: case -> (rows, columns).
        Raises InputError if x and y look swapped."""
        found, problems = one_each(matched, lambda photo, row: self._found(photo, row, sizes))
        if problems:
            self._check_axes(matched, sizes)
        return found, problems

    def _found(self, photo: Photo, row: Row, sizes: Mapping[str, tuple[int, int]]) -> Found:
        points, wrong, size = {}, [], sizes.get(photo.case)
        for name, titles, cells, place in self._places(row):
            empty = [title for title, cell in zip(titles, cells) if not cell]
            bad = [f"{title} is {printable(cell)!r}" for title, cell, number in zip(titles, cells, place)
                   if cell and number is None]
            if bad:
                wrong.append(f"{' and '.join(bad)}, expected a number of pixels")
            elif len(empty) == 1:
                wrong.append(f"{empty[0]} is empty, but {titles[titles[0] in empty]} is not; both are where a point is absent")
            elif not empty and size and not inside(place, size):
                wrong.append(f"{name} ({place[0]:g}, {place[1]:g}) is outside of its image, which has {size[0]} x {size[1]} "
                             "pixels (rows x columns)")
            elif not empty and not any(place):
                wrong.append(f"{name} is 0, 0, the corner of the image, as if it were absent; then leave both cells empty")
            elif not empty:
                points[name] = place
        if wrong:
            raise RowError("; ".join(wrong))
        return Found(points, row.place, **self.patient_and_subset(row))

    def _places(self, row: Row) -> list[tuple[str, tuple[str, str], list[str], list[float | None]]]:
        """(point, titles, cells, numbers) of the points of a row."""
        pairs = [row.cells[at:at + 2] for at in range(0, len(row.cells), 2)]
        return [(name, titles, cells, [parse_number(cell, self.separator) for cell in cells])
                for name, titles, cells in zip(self.names, self.titles, pairs)]

    def _check_axes(self, matched: Matched, sizes: Mapping[str, tuple[int, int]]) -> None:
        swapped = straight = total = 0
        for photo, row in matched.rows:
            size = sizes.get(photo.case)
            for _, _, _, place in self._places(row):
                if size and None not in place:
                    total += 1
                    swapped += inside(place[::-1], size) and not inside(place, size)
                    straight += inside(place, size) and not inside(place[::-1], size)
        remedy = f'{{x: "{self.templates["y"]}", y: "{self.templates["x"]}"}}'
        check_axes(self.place, swapped, straight, total, "points", remedy)


def inside(place: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether x, y is on a pixel of an image of (rows, columns)."""
    return -0.5 <= place[0] <= size[1] - 0.5 and -0.5 <= place[1] <= size[0] - 0.5
