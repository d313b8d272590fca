"""What readers of labelled photographs share: the table's keys, and headers from images and what is written of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Mapping

import numpy as np

from lib.data.case import CaseError, CaseProblem, Header, Scan
from lib.data.folds import EXTERNAL
from lib.imaging.geometry import Geometry
from lib.imaging.photographs import Facts, PhotographError, read_facts, read_image
from lib.progress import READING, bar
from lib.readers.conversions import OF_IMAGES, conversion_notes, converted
from lib.readers.copies import copies_note, told_apart, without_copies
from lib.readers.image_files import NO_PATTERN
from lib.readers.image_tree import ImageTree, Photo, check_subsets, lonely_subsets, subset_folders
from lib.readers.names import check_name, patient_of, printable, relative, some
from lib.readers.photo_rows import Found, ImageRows, Matched
from lib.readers.tables import Table, WrittenCases, check_keys, read_table
from lib.study import InputError, require


@dataclass(frozen=True)
class LabelledTree(WrittenCases, ImageTree):
    """Keys of `data.reader` in studies of photographs with a table: those of ImageTree, and

    table: CSV file (with its `separator`) or XLSX file (with its `sheet`, default the first), in the input folder, or
    one in each of its train, val and test folders. columns: role -> name of the column, of those that differ from COLUMNS
    or are in OPTIONAL.

    A source is what is written of the images: `match(photos) -> Matched`, `found(matched, sizes) -> (case -> Found,
    problems)`, sentences for what has no partner, and `place` and `missing` for those of the reader.
    """
    table: str = ""
    sheet: str = ""
    separator: str = ","
    columns: dict[str, str] = field(default_factory=dict)

    COLUMNS: ClassVar[dict[str, str]] = {}
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    apart: ClassVar[bool] = True  # images of one name and other content are cases of their own

    def _check_table(self, instead: str) -> None:
        """Raise InputError for keys that could never work. instead: the key that says where labels are, if no table."""
        require(not instead or not (self.columns or self.sheet or self.separator != ","), "data.reader",
                f"columns, sheet or separator with {instead}", "them with a table only")
        check_keys(self.table, self.sheet, self.separator, self.columns, self.COLUMNS, self.OPTIONAL)
        require(not (self.columns.get("patient") and self.patient_pattern), "data.reader",
                "patient_pattern and columns.patient", "only one of them")

    @property
    def _titles(self) -> dict[str, str]:
        """Role -> column."""
        return {**self.COLUMNS, **self.columns}

    # --- what there is -------------------------------------------------------------------------------------------

    def headers(self, root: Path, labels: bool = True, new: bool = False) -> Scan:
        """The images of `root` with what is written of them in `labels`, in natural order of paths, by their first bytes.

        With `labels`, only images of which something is written; one with any bad row is left out, because what is
        silently missing would teach that it is absent. Without, every image, and neither table nor label files are needed.
        Whose they are is read from a table that tells it, labels or not: a patient who is known must be known again.
        `new` data (to be predicted) has no subsets, and `root` may be the folder of images itself.
        Raises InputError for what concerns all: a folder, table or column that is not there, names that the study does not
        know, x and y swapped, rows none of which names an image.
        """
        new = new or not labels
        folders, notes = self._folders(root, new), []
        source = self._source(root, folders, new) if labels else None
        notes += [] if new or self.data.folds.pool or set(folders) != {""} else lonely_subsets(folders[""], self.test_folders)
        spacings = self._spacings(root, new, notes)
        photos, ignored = self._photos(root, folders, new)
        photos = told_apart(root, photos) if self.apart else photos
        kept, problems, copies = without_copies(root, photos)
        matched = self._match(source, photos, notes) if source and photos else Matched()
        wanted = {photo.case for photo, _ in matched.rows}
        facts, unreadable = _read_facts(root, kept, wanted if labels else None)
        found: dict[str, Found] = {} if labels else self._patients(root, photos)
        bad, unused = [], []
        if source:
            found, bad = source.found(matched, {case: fact.size for case, fact in facts.items()})
            self._named[root] = wanted
        problems += [*unreadable, *matched.problems, *bad]
        if source:
            unused = [CaseProblem("", printable(name), source.absent_reason()) for name in dict.fromkeys(matched.absent)]
            doubted = {problem.case for problem in matched.problems}
            without = [photo for photo in kept if photo.case not in wanted and photo.case not in doubted]
            unused += [CaseProblem(printable(photo.case), printable(photo.file), f"has {source.missing}") for photo in without]
            notes += _without_note([photo.path for photo in without], len(photos), source.missing, self._where)
        left_out = {problem.case for problem in problems} | {printable(case) for case in matched.doubtful}
        headers = []
        for photo in kept:
            if photo.case in facts and printable(photo.case) not in left_out:
                try:
                    headers.append(self._header(root, photo, facts[photo.case], spacings, found.get(photo.case), new))
                except CaseError as error:
                    problems.append(error.problem)
        self._check_some_match([photo.name for photo in photos], new)
        check_subsets(headers)
        notes += [*(self._notes(headers) if labels else ()), *conversion_notes(OF_IMAGES, headers, "image")]
        if copies:
            notes.append(copies_note(copies))
        known = bool(self.patient_pattern or self.columns.get("patient"))
        if labels and not known:
            notes.append(NO_PATTERN)
        return Scan(headers, problems, ignored, notes, unused, known)

    def _header(self, root: Path, photo: Photo, facts: Facts, spacings: dict | None, found: Found | None,
                new: bool) -> Header:
        check_name(photo.case, "the file")
        if relative(root, root / photo.file) != photo.file:
            raise CaseError(photo.case, "", "its folder's name holds line breaks, or bytes that are not UTF-8; rename "
                                            "it")
        found = found or Found({})
        subset = found.subset or photo.subset
        if photo.subset == EXTERNAL:
            subset = EXTERNAL
        elif found.subset and photo.subset not in ("", found.subset):
            raise CaseError(photo.case, found.place, f"says {found.subset}, but {photo.file} is in {photo.subset}")
        patient = found.patient or patient_of(photo.case, photo.name, self.patient_pattern, new)
        geometry = Geometry((1, *facts.size), self._spacing(photo.case, photo.file, photo.name, spacings), True,
                            {"format": "image"})
        return Header(photo.case, patient, {"image": photo.file, **found.files}, geometry, self.channels, subset,
                      found.labels, converted(OF_IMAGES, facts, self.channels))

    def _frames(self, root: Path, header: Header) -> np.ndarray:
        """uint8 (channels, 1, rows, columns) of a case. Raises CaseError naming the file."""
        try:
            return read_image(root / header.files["image"], self.channels, header.geometry.shape[1:])
        except PhotographError as error:
            raise CaseError(header.case, header.files["image"], str(error)) from None

    def _notes(self, headers: list[Header]) -> list[str]:
        """What else a user should know of the labels."""
        return []

    # --- tables and other sources --------------------------------------------------------------------------------

    def _source(self, root: Path, folders: Mapping[str, Path], new: bool):
        raise NotImplementedError

    @property
    def _where(self) -> str:
        """The table or folder with the labels, as the study names it."""
        return self.table

    def _apart(self, root: Path) -> set[Path]:
        return {root / file for file in self._files(root).values()} | super()._apart(root)

    def _files(self, root: Path) -> dict[str, str]:
        """Folder of the images that it names, with / behind (empty: any) -> the table's file: in the input folder, or else
        in those of train, val and test folders that have one."""
        if not self.table or (root / self.table).is_file():
            return {"": self.table} if self.table else {}
        places = {Path(top, name) for top in (".", self.images) if (root / top).is_dir() for name in subset_folders(root / top)}
        found = {f"{place.as_posix()}/": (place / self.table).as_posix() for place in sorted(places)
                 if (root / place / self.table).is_file()}
        return found or {"": self.table}

    def _tables(self, root: Path) -> dict[str, Table]:
        return {folder: read_table(root, file, "data.reader.table", self.separator, self.sheet)
                for folder, file in self._files(root).items()}

    def _rows_of(self, tables: Mapping[str, Table], new: bool) -> dict[str, str]:
        """The roles that are read: subsets mean nothing in a pool and in `new` data, which may lack patients too."""
        titles = self._titles
        if new or self.data.folds.pool:
            titles.pop("subset", None)
        if new and not all(table.has(titles.get("patient", "")) for table in tables.values()):
            titles.pop("patient", None)
        return titles

    def _patients(self, root: Path, photos: list[Photo]) -> dict[str, Found]:
        """case -> whose it is, of new data, as far as a table tells; it may be missing, or lack everything else."""
        image, *_ = self.COLUMNS
        roles = {role: self._titles[role] for role in (image, "patient") if role in self._titles}
        try:
            tables = {folder: table for folder, table in self._tables(root).items() if all(map(table.has, roles.values()))}
        except InputError:
            return {}
        if "patient" not in roles or not tables:
            return {}
        rows = ImageRows(tables, roles).match(photos).rows
        return {photo.case: Found({}, patient=printable(row.patient)) for photo, row in rows if row.patient}

    def _match(self, source, photos: list[Photo], notes: list[str]) -> Matched:
        matched = source.match(photos)
        if not matched.found and not matched.problems:
            raise InputError(f"{source.no_match(matched.absent)}; the images are {some([p.path for p in photos], 5)}")
        if matched.absent:
            notes.append(source.absent_note(matched.absent, self.images))
        return matched


def _without_note(without: list[str], total: int, missing: str, where: str) -> list[str]:
    several = len(without) > 1
    return [f"{len(without)} of {total} images {'have' if several else 'has'} {missing} in {where} and "
            f"{'are' if several else 'is'} left out: {some(without)}"] if without else []


def _read_facts(root: Path, photos: list[Photo], wanted: set[str] | None) -> tuple[dict[str, Facts], list[CaseProblem]]:
    """(case -> facts, problems) of the wanted cases (None: all)."""
    facts, problems = {}, []
    for photo in bar(photos, len(photos), READING, unit="image"):
        if wanted is None or photo.case in wanted:
            try:
                facts[photo.case] = read_facts(root / photo.file)
            except PhotographError as error:
                problems.append(CaseProblem(printable(photo.case), printable(photo.file), str(error)))
    return facts, problems
