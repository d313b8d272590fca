"""Rows of tables that name an image each: matched to the images, and gathered where an image has one row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

from lib.data.case import CaseProblem
from lib.readers.image_files import file_stem
from lib.readers.image_tree import Photo, subset_of
from lib.readers.names import natural, printable, some
from lib.readers.photo_names import PhotoNames, UnclearName
from lib.readers.tables import RowError, Table
from lib.study import InputError

SWAPPED = 0.02  # share of places that do not fit, but would with x and y exchanged, from which the columns are doubted


@dataclass(frozen=True)
class Row:
    """place: where it is written, as messages name it. number: its row or line there. cells: as they are written.
    patient, subset: the cells of these columns, None in studies without."""
    place: str
    number: int
    cells: list[str]
    patient: str | None = None
    subset: str | None = None


@dataclass
class Matched:
    """rows: each with its image. found: how many rows (or label files) have an image. absent: of each that has none,
    the image as it is named. doubtful: cases that a bad row may mean."""
    rows: list[tuple[Photo, Row]] = field(default_factory=list)
    problems: list[CaseProblem] = field(default_factory=list)
    found: int = 0
    absent: list[str] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Found:
    """What is written of a case. labels: as in its header. place: where. patient, subset: empty where it does not say.
    files: role -> path in the input folder, beside the image."""
    labels: dict[str, Any]
    place: str = ""
    patient: str = ""
    subset: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def said(self) -> dict[str, Any]:
        return {**self.labels, **{key: getattr(self, key) for key in ("patient", "subset") if getattr(self, key)}}


class ImageRows:
    """Rows of one table, or of one in each of several folders, whose first column names an image.

    place: the tables, as messages name them. missing: what an image without a row lacks.
    """
    missing = "no row"
    nameless = "whose row it is; fill it in"

    def __init__(self, tables: Mapping[str, Table], columns: Mapping[str, str]):
        """tables: folder of its images, with / behind it (empty: any) -> table. columns: role -> column, of the image's
        name first; those of `patient` and `subset` go into these of a Row. Raises InputError."""
        self.columns, self.role = columns, next(iter(columns))
        self.place = " and ".join(table.place for table in tables.values())
        self.separator = next(iter(tables.values())).separator  # none in a workbook, where a comma is a decimal one
        self.rows = [(folder, *row) for folder, table in tables.items() for row in self._rows(table)]

    def _rows(self, table: Table) -> list[tuple[str, Row]]:
        """(name of the image, row) of every row with anything in it."""
        roles, rows = [*self.columns], []
        for number, cells in table.cells({f"data.reader.columns.{role}": self.columns[role] for role in roles}):
            said = {role: cell for role, cell in zip(roles, cells) if role in ("patient", "subset")}
            name, *rest = [cell for role, cell in zip(roles, cells) if role not in said]
            rows.append((name, Row(table.row(number), number, rest, **said)))
        return rows

    def match(self, photos: Sequence[Photo]) -> Matched:
        """Raises InputError for what no row can have."""
        self.check()
        names = {folder: PhotoNames(photos, folder) for folder in {folder for folder, _, _ in self.rows}}
        matched, column = Matched(), self.columns[self.role]
        for folder, name, row in self.rows:
            if not name:
                matched.problems.append(CaseProblem("", row.place, f"{column} is empty, so nobody knows {self.nameless}"))
                continue
            try:
                photo = names[folder].find(name)
            except UnclearName as error:
                case = file_stem(name.replace("\\", "/").rpartition("/")[2]) or name
                matched.problems.append(CaseProblem(printable(case), row.place, f"{column} {error}"))
                matched.doubtful.update(error.cases)
                continue
            if photo is None:
                matched.absent.append(name)
            else:
                matched.rows.append((photo, row))
        matched.found = len(matched.rows)
        return matched

    def check(self) -> None:
        """Raise InputError for what concerns all rows, those of images that are not there too."""

    def no_match(self, absent: Sequence[str]) -> str:
        """Of rows none of which has an image."""
        return (f"{self.place}: none of its {len(absent)} rows names an image that is there "
                f"(data.reader.columns.{self.role} is {self.columns[self.role]!r}); it names {some(_different(absent), 5)}")

    def absent_note(self, absent: Sequence[str], images: str) -> str:
        names = _different(absent)
        are = "s that are" if len(names) > 1 else " that is"
        rows = f"{len(absent)} row{'s' * (len(absent) > 1)}"
        return f"{self.place}: {rows} of {len(names)} image{are} not in {images}/: {some(names)}"

    def absent_reason(self) -> str:
        return f"is named in {self.place}, but there is no such image"

    def patient_and_subset(self, row: Row) -> dict[str, str]:
        """What the row's cells of these say. Raises RowError."""
        said = {key: getattr(row, key) for key in ("patient", "subset") if getattr(row, key) is not None}
        for key, cell in said.items():
            if not cell:
                raise RowError(f"{self.columns[key]} is empty")
        if said.get("patient", "") != printable(said.get("patient", "")):
            raise RowError(f"{self.columns['patient']} {printable(said['patient'])!r} holds line breaks or the like")
        if "subset" in said:
            subset = subset_of(said["subset"])
            if not subset:
                raise RowError(f"{self.columns['subset']} is {printable(said['subset'])!r}, expected train, val or test")
            said["subset"] = subset
        return said


def one_each(matched: Matched, found_in: Callable[[Photo, Row], Found],
             again: str = "a second row of one image") -> tuple[dict[str, Found], list[CaseProblem]]:
    """(case -> what is written of it, problems) where an image has one row, or several that say the same.

    found_in: what a row says; it may raise RowError.
    """
    first: dict[str, Found] = {}
    problems = []
    for photo, row in matched.rows:
        try:
            found = found_in(photo, row)
            before = first.setdefault(photo.case, found)
            if found.said != before.said:
                differing = [key for key in {**before.said, **found.said} if before.said.get(key) != found.said.get(key)]
                here, there = (", ".join(f"{key} {_shown(one.said.get(key))}" for key in differing) for one in (found, before))
                raise RowError(f"{again} says something else: {here}, but {there} in {before.place}")
        except RowError as error:
            problems.append(CaseProblem(printable(photo.case), row.place, str(error)))
    return first, problems


def check_axes(place: str, swapped: int, straight: int, total: int, what: str, remedy: str) -> None:
    """Raise InputError if far more of the `what` fit with x and y exchanged (`swapped`, and not as they are) than fit as
    they are alone (`straight`); most of the `total` may fit either way."""
    if swapped > max(1, SWAPPED * total) and straight * 10 <= swapped:
        raise InputError(f"{place}: x and y look swapped: {swapped} of {total} {what} do not fit their images, but would "
                         f"with x and y exchanged; set data.reader.columns to {remedy}")


def _different(names: Sequence[str]) -> list[str]:
    return sorted(set(names), key=natural)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
