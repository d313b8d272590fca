"""A folder of photographs and boxes of the structures in them, from a table or from YOLO label files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from lib.data.case import Case, CaseError, CaseProblem, Header, Scan
from lib.imaging.geometry import Geometry
from lib.imaging.photographs import Facts, PhotographError, read_facts, read_image
from lib.readers.box_rows import CORNERS, Matched, TableBoxes, checked_boxes, spellings
from lib.readers.image_files import NO_PATTERN, conversion_notes
from lib.readers.image_tree import ImageTree, Photo, check_subsets, copies_note, without_copies
from lib.readers.names import check_inside, check_name, patient_of, printable, relative, some
from lib.readers.tables import WORKBOOKS, read_table
from lib.readers.yolo import LabelFiles
from lib.study import InputError, one_of, require

COLUMNS = {"file": "fname", "structure": "structure", "x_min": "w_min", "y_min": "h_min", "x_max": "w_max",
           "y_max": "h_max"}


@dataclass(frozen=True)
class ImageBoxes(ImageTree):
    """`data.reader` of a study of photographs and boxes: the keys of ImageTree, and one of

    table: CSV file (with its `separator`) or XLSX file (with its `sheet`, default the first), a row per box, half-open
    in pixels. columns: role -> name of the column, of those that differ from COLUMNS.
    yolo: folder of YOLO label files, with the sub-folders of the images.
    """
    table: str = ""
    sheet: str = ""
    separator: str = ","
    columns: dict[str, str] = field(default_factory=dict)
    yolo: str = ""

    def __post_init__(self):
        super().__post_init__()
        require(len(self.data.classes) > 0, "data.classes", "none",
                "the names of the structures, as the table has them")
        for key in ("table", "yolo"):
            check_inside(getattr(self, key), f"data.reader.{key}")
        require(bool(self.table) != bool(self.yolo), "data.reader", "table and yolo" if self.table else
                "neither table nor yolo", "one of them: where the boxes are")
        require(not self.yolo or not (self.columns or self.sheet or self.separator != ","), "data.reader",
                "columns, sheet or separator with yolo", "them with a table only")
        require(not self.sheet or self.table.lower().endswith(WORKBOOKS), "data.reader.sheet", self.sheet,
                "none with a CSV file")
        require(len(self.separator) == 1, "data.reader.separator", repr(self.separator), "one character")
        for role, name in self.columns.items():
            one_of(role, tuple(COLUMNS), "data.reader.columns")
            require(bool(name.strip()), f"data.reader.columns.{role}", "no name", "that of a column")
        names = list({**COLUMNS, **self.columns}.values())
        require(len(set(names)) == len(names), "data.reader.columns", names, "a column of its own for each role")
        spellings(self.data)  # bad ones are found here

    @property
    def expected(self) -> str:
        """What an input folder should hold."""
        boxes = f"{self.table} with a row for each box" if self.table else f"{self.yolo}/ with a label file for each"
        return f"{self.images}/ with images (PNG, JPG, TIFF or BMP), in sub-folders too, and {boxes}"

    # --- what there is -------------------------------------------------------------------------------------------

    def headers(self, root: Path, labels: bool = True, new: bool = False) -> Scan:
        """The images of `root` with their boxes in `labels`, in natural order of paths, by their first bytes.

        With `labels`, only images with a box; one with any bad row is left out, because a structure that is silently
        missing would teach that it is absent. Without, every image, and neither table nor label files are needed.
        `new` data (to be predicted) has no subsets, and `root` may be the folder of images itself.
        Raises InputError for what concerns all: a folder, table or column that is not there, unknown structures,
        x and y swapped, rows none of which names an image.
        """
        new = new or not labels
        folder, notes = self._folder(root, new), []
        source = self._source(root) if labels else None
        spacings = self._spacings(root, new, notes)
        photos, ignored = self._photos(root, folder, new)
        kept, problems, copies = without_copies(root, photos)
        matched = self._match(source, photos, notes) if source and photos else Matched()
        wanted = {photo.case for photo, _ in matched.rows}
        facts, unreadable = _read_facts(root, kept, wanted if labels else None)
        sizes = {case: found.size for case, found in facts.items()}
        boxes, bad = {}, []
        if source:
            boxes, bad = checked_boxes(source, matched, sizes)
            if bad:
                source.check_axes(matched, sizes)
            self._named[root] = wanted
        problems += [*unreadable, *matched.problems, *bad]
        unused = []
        if labels:
            unused = [CaseProblem("", printable(name), f"is named in {source.place}, but there is no such image")
                      for name in dict.fromkeys(matched.absent)]
            without = self._without_box(kept, wanted, {problem.case for problem in matched.problems})
            unused += [CaseProblem(printable(photo.case), printable(photo.file), "has no box") for photo in without]
            notes += self._without_note([photo.path for photo in without], len(photos))
        left_out = {problem.case for problem in problems} | {printable(case) for case in matched.doubtful}
        headers, kinds = [], Counter()
        for photo in kept:
            if photo.case in facts and printable(photo.case) not in left_out:
                try:
                    headers.append(self._header(root, photo, facts[photo.case], spacings, boxes.get(photo.case, {}), new))
                    kinds.update(self._conversions(facts[photo.case]))
                except CaseError as error:
                    problems.append(error.problem)
        self._check_some_match([photo.name for photo in photos], new)
        check_subsets(headers)
        notes += conversion_notes(kinds)
        if copies:
            notes.append(copies_note(copies))
        if labels and not self.patient_pattern:
            notes.append(NO_PATTERN)
        return Scan(headers, problems, ignored, notes, unused)

    def has_truth(self, root: Path, case: str) -> bool:
        """Whether a box of the case is written, usable or not, as `headers` found it last."""
        if root not in self._named:
            try:
                self.headers(root, labels=True, new=True)
            except InputError:
                return False
        return case in self._named.get(root, ())

    def find_classes(self, root: Path, headers: list[Header]) -> dict:
        """Raises InputError: boxes have names, and which of them count only the study can say."""
        raise InputError("data.classes: none given; name the structures in data.classes")

    # --- one case ------------------------------------------------------------------------------------------------

    def read(self, root: Path, header: Header, labels: bool = True) -> Case:
        """One case: frames uint8 (channels, 1, rows, columns); truth float32 (1, 4) of every class, half-open
        x_min, y_min, x_max, y_max in pixels, NaN where it is absent. Raises CaseError naming the file."""
        try:
            frames = read_image(root / header.files["image"], self.channels, header.geometry.shape[1:])
        except PhotographError as error:
            raise CaseError(header.case, header.files["image"], str(error)) from None
        absent = [np.nan] * len(CORNERS)
        truth = {name: np.array([header.labels.get(name, absent)], np.float32)
                 for name in (self.data.classes if labels else ())}
        return Case(header, frames, truth)

    def _header(self, root: Path, photo: Photo, facts: Facts, spacings: dict | None, boxes: dict,
                new: bool) -> Header:
        if relative(root, root / photo.file) != photo.file:
            check_name(photo.case, "the file")
            raise CaseError(photo.case, "", "its folder's name holds line breaks, or bytes that are not UTF-8; rename "
                                            "it")
        check_name(photo.case, "the file")
        patient = patient_of(photo.case, photo.name, self.patient_pattern, new)
        geometry = Geometry((1, *facts.size), self._spacing(photo.case, photo.file, photo.name, spacings), True,
                            {"format": "image"})
        return Header(photo.case, patient, {"image": photo.file}, geometry, self.channels, photo.subset,
                      {name: boxes[name] for name in self.data.classes if name in boxes})

    # --- boxes ---------------------------------------------------------------------------------------------------

    @cached_property
    def _named(self) -> dict[Path, set[str]]:
        """Input folder -> its cases with a box."""
        return {}

    def _apart(self, root: Path) -> set[Path]:
        return {root / name for name in (self.table, self.yolo) if name} | super()._apart(root)

    def _source(self, root: Path) -> TableBoxes | LabelFiles:
        if self.yolo:
            return LabelFiles(root, root / self.yolo, self.data)
        table = read_table(root, self.table, "data.reader.table", self.separator, self.sheet)
        return TableBoxes(table, {**COLUMNS, **self.columns}, self.data)

    def _match(self, source: TableBoxes | LabelFiles, photos: list[Photo], notes: list[str]) -> Matched:
        matched = source.match(photos)
        if not matched.found and not matched.problems:
            raise InputError(f"{source.no_match(matched.absent)}; the images are {some([p.path for p in photos], 5)}")
        if matched.absent:
            notes.append(source.absent_note(matched.absent, self.images))
        return matched

    @staticmethod
    def _without_box(kept: list[Photo], wanted: set[str], bad: set[str]) -> list[Photo]:
        return [photo for photo in kept if photo.case not in wanted and photo.case not in bad]

    def _without_note(self, without: list[str], total: int) -> list[str]:
        return [f"{len(without)} of {total} images {'have' if len(without) > 1 else 'has'} no box in "
                f"{self.table or self.yolo + '/'} and {'are' if len(without) > 1 else 'is'} left out: "
                f"{some(without)}"] if without else []


def _read_facts(root: Path, photos: list[Photo], wanted: set[str] | None) -> tuple[dict[str, Facts], list[CaseProblem]]:
    """(case -> facts, problems) of the wanted cases (None: all)."""
    facts, problems = {}, []
    for photo in photos:
        if wanted is None or photo.case in wanted:
            try:
                facts[photo.case] = read_facts(root / photo.file)
            except PhotographError as error:
                problems.append(CaseProblem(printable(photo.case), printable(photo.file), str(error)))
    return facts, problems
