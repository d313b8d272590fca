"""A folder of photographs and boxes of the structures in them, from a table or from YOLO label files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Mapping

import numpy as np

from lib.data.case import Case, Header
from lib.readers.box_rows import CORNERS, TableBoxes
from lib.readers.labelled_tree import LabelledTree
from lib.readers.names import check_inside, spellings
from lib.readers.yolo import LabelFiles
from lib.study import InputError, require


@dataclass(frozen=True)
class ImageBoxes(LabelledTree):
    """`data.reader` of a study of photographs and boxes: the keys of LabelledTree, whose table has a row per box, half-open
    in pixels, or instead of a table

    yolo: folder of YOLO label files, with the sub-folders of the images.
    """
    yolo: str = ""

    COLUMNS: ClassVar[dict[str, str]] = {"file": "fname", "structure": "structure", "x_min": "w_min", "y_min": "h_min",
                                         "x_max": "w_max", "y_max": "h_max"}
    apart: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        require(len(self.data.classes) > 0, "data.classes", "none",
                "the names of the structures, as the table has them")
        check_inside(self.yolo, "data.reader.yolo")
        require(bool(self.table) != bool(self.yolo), "data.reader", "table and yolo" if self.table else
                "neither table nor yolo", "one of them: where the boxes are")
        self._check_table("yolo" if self.yolo else "")
        spellings(self.data)  # bad ones are found here

    @property
    def expected(self) -> str:
        """What an input folder should hold."""
        boxes = f"{self.table} with a row for each box" if self.table else f"{self.yolo}/ with a label file for each"
        return f"{self.images}/ with images (PNG, JPG, TIFF or BMP), in sub-folders too, and {boxes}"

    def find_classes(self, root: Path, headers: list[Header]) -> dict:
        """Raises InputError: boxes have names, and which of them count only the study can say."""
        raise InputError("data.classes: none given; name the structures in data.classes")

    def read(self, root: Path, header: Header, labels: bool = True) -> Case:
        """One case: frames uint8 (channels, 1, rows, columns); truth float32 (1, 4) of every class, half-open
        x_min, y_min, x_max, y_max in pixels, NaN where it is absent. Raises CaseError naming the file."""
        absent = [np.nan] * len(CORNERS)
        truth = {name: np.array([header.labels.get(name, absent)], np.float32)
                 for name in (self.data.classes if labels else ())}
        return Case(header, self._frames(root, header), truth)

    @property
    def _where(self) -> str:
        return self.table or f"{self.yolo}/"

    def _apart(self, root: Path) -> set[Path]:
        return ({root / self.yolo} if self.yolo else set()) | super()._apart(root)

    def _source(self, root: Path, folders: Mapping[str, Path], new: bool) -> TableBoxes | LabelFiles:
        if self.yolo:
            return LabelFiles(root, root / self.yolo, self.data)
        return TableBoxes(self._tables(root), self._titles, self.data)
