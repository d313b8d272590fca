"""YOLO label files: a file per image, a line per box, in shares of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Sequence

import yaml

from lib.data.case import CaseProblem
from lib.readers.box_rows import beyond, fits, found_boxes
from lib.readers.image_files import file_stem
from lib.readers.image_tree import Photo, walk
from lib.readers.names import folded, printable, some, spellings
from lib.readers.photo_rows import Found, Matched, Row
from lib.readers.tables import RowError, parse_number
from lib.study import Data, InputError

ROUNDING = 1e-6  # by which the rounded numbers of a label file may leave 0..1


class LabelFiles:
    """YOLO label files: lines `class centre_x centre_y width height`, in shares of the image; class counts from 0."""
    missing = "no box"

    def __init__(self, root: Path, folder: Path, data: Data):
        self.root, self.folder, self.classes = root, folder, data.classes
        self.place = f"{printable(folder.relative_to(root).as_posix())}/"
        if not folder.is_dir():
            raise InputError(f"input folder {root}: there is no folder {self.place} (data.reader.yolo)")
        texts, others = walk(folder, suffixes=(".txt",))
        orders = [folder / path for path in [*texts, *others] if path.rpartition("/")[2].lower() in ORDERS]
        self.files = [path for path in texts if folder / path not in orders]
        # programs that write labels write the order of the classes beside them
        for path in [*orders, *(place / name for place in {root, folder.parent} for name in ORDERS)]:
            if path.is_file():
                read = ORDERS[path.name.lower()]
                self._check_order(path, read(path), spellings(data))

    def match(self, photos: Sequence[Photo]) -> Matched:
        by_path = {file_stem(photo.path): photo for photo in reversed(photos)}
        matched = Matched()
        for file in self.files:
            photo = by_path.get(file[:-len(".txt")])
            if photo is None:
                matched.absent.append(file)
                continue
            matched.found += 1
            place = printable((self.folder / file).relative_to(self.root).as_posix())
            try:
                lines = (self.folder / file).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError):
                matched.problems.append(CaseProblem(photo.case, place, "cannot be read as text"))
                continue
            matched.rows += [(photo, Row(f"{place}, line {number}", number, line.split()))
                             for number, line in enumerate(lines, 1) if line.strip()]
        return matched

    def found(self, matched: Matched, sizes: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Found], list[CaseProblem]]:
        return found_boxes(self, matched, sizes)

    def box(self, row: Row, size: tuple[int, int] | None) -> tuple[str, list[float]]:
        """(class, box) of a line; `size` (rows, columns) is that of its image, if it can be read. Raises RowError."""
        if len(row.cells) != 5:
            more = {6: " (a sixth is a confidence: these are predictions, no truth)"}.get(len(row.cells), "")
            raise RowError(f"{len(row.cells)} numbers{more}; expected class, centre x, centre y, width, height")
        numbers = [parse_number(cell, ",") for cell in row.cells]
        wrong = [printable(cell) for cell, number in zip(row.cells, numbers) if number is None]
        if wrong:
            raise RowError(f"{' and '.join(map(repr, wrong))}: expected numbers")
        index, x, y, width, height = numbers
        if not index.is_integer() or not 0 <= index < len(self.classes):
            raise RowError(f"class {printable(row.cells[0])}; expected 0 to {len(self.classes) - 1}, the place in "
                           "data.classes")
        name = self.classes[int(index)]
        if min(width, height) <= 0:
            raise RowError(f"{name}: {'width' if width <= 0 else 'height'} {min(width, height):g}, expected above 0")
        shares = [_clipped(v) for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
        rows, columns = size or (1, 1)
        box = [share * side for share, side in zip(shares, (columns, rows) * 2)]
        if not fits(shares, (1, 1)):
            raise RowError(f"{name}: " + (beyond(box, size) if size else "leaves its image"))
        return name, box

    def check_axes(self, matched: Matched, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Shares of rows and of columns look alike."""

    def no_match(self, absent: Sequence[str]) -> str:
        held = f"none of its {len(absent)} label files is named as an image; it holds {some(absent, 5)}"
        return f"{self.place} (data.reader.yolo): {held if absent else 'holds no label file'}"

    def absent_note(self, absent: Sequence[str], images: str) -> str:
        files = f"{len(absent)} label file{'s' * (len(absent) > 1)}"
        return f"{self.place}: {files} without an image in {images}/: {some(absent)}"

    def absent_reason(self) -> str:
        return f"is named in {self.place}, but there is no such image"

    def _check_order(self, path: Path, names: Sequence[str], known: Mapping[str, str]) -> None:
        """Raise InputError if `path`, beside the labels, has the classes in another order: the labels number them."""
        if tuple(known.get(folded(name)) for name in names) != self.classes:
            raise InputError(f"{path}: lists {some(names, 20)}, but data.classes {', '.join(self.classes)}; name "
                             "them there in this order, because label files number them")


def _lines(path: Path) -> list[str]:
    """Names of the classes in a classes.txt."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _yaml_names(path: Path) -> list[str]:
    """Names of the classes in a data.yaml: a list, or number: name. Raises InputError."""
    try:
        names = yaml.safe_load(path.read_text(encoding="utf-8-sig", errors="replace"))["names"]
        return [str(names[number]) for number in (sorted(names) if isinstance(names, dict) else range(len(names)))]
    except (yaml.YAMLError, KeyError, TypeError):
        raise InputError(f"{path}: holds no `names` of classes that could be read; correct or remove it") from None


ORDERS = {"classes.txt": _lines, "obj.names": _lines, "data.yaml": _yaml_names}  # files with the order of the classes


def _clipped(share: float) -> float:
    return min(max(share, 0.0), 1.0) if -ROUNDING <= share <= 1 + ROUNDING else share
