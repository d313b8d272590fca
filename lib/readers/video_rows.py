"""Videos in any sub-folders, the cases that they are, and the rows of a table that name them."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Iterable, Mapping, Sequence

from lib.data.case import CaseProblem
from lib.imaging.loops import SUFFIXES, is_dicom
from lib.readers.image_files import SUBSETS
from lib.readers.image_tree import walk
from lib.readers.names import natural, printable, some, stem_of
from lib.readers.tables import RowError, Table, parse_number
from lib.study import InputError


@dataclass(frozen=True)
class VideoRow:
    """What a table says of a video. place: where. patient, subset: empty where it has no such column."""
    place: str
    score: float
    patient: str
    subset: str

    @property
    def said(self) -> tuple:
        return self.score, self.patient, self.subset


@dataclass
class Rows:
    """found: path in the input folder -> its row. named: all paths of which there is a row, usable or not. twice: of which
    there are several that say the same."""
    found: dict[str, VideoRow]
    problems: list[CaseProblem]
    named: set[str]
    twice: list[str]


def find_videos(root: Path, apart: Iterable[Path]) -> tuple[list[str], list[str]]:
    """Paths in `root` of its videos, and of what else is there, in natural order, those of sub-folders last.

    A file is a video by its suffix, or if it has none (the numbers of a UID are none) and begins as DICOM does.
    """
    known, others = walk(root, tuple(apart), SUFFIXES)
    bare = [path for path in others if _is_bare_dicom(root / path)]
    if bare:
        known = sorted([*known, *bare], key=lambda path: (path.count("/"), natural(path)))
    return known, [printable(path) for path in others if path not in set(bare)]


def case_names(files: Sequence[str]) -> dict[str, str]:
    """Path -> case: the name without suffix; where several have it, the path with _ for /, and its suffix if need be."""
    levels = {file: 0 for file in files}

    def name(file: str) -> str:
        stem = stem_of(file, SUFFIXES)
        return (stem.rpartition("/")[2], stem.replace("/", "_"), file.replace("/", "_"))[levels[file]]

    while True:
        counts = Counter(map(name, files))
        clashing = [file for file in files if counts[name(file)] > 1 and levels[file] < 2]
        if not clashing:
            return {file: name(file) for file in files}
        for file in clashing:
            levels[file] += 1


def read_rows(root: Path, table: Table, folder: Path, columns: Mapping[str, str], files: Sequence[str],
              cases: Mapping[str, str], new: bool = False) -> Rows:
    """The rows of a table, by the video that they name.

    folder: in `root`, where their paths begin. columns: role -> column, of `video` and `score` and, where they are used,
    `patient` and `subset`. Raises InputError if a column is missing, or no row names a video that is there.
    """
    places, rows, problems, absent, count = _Places(root, folder, files), {}, [], [], 0
    begin = f"paths begin at {folder.name if folder != root else 'the input folder'}"
    for number, cells in table.cells({f"data.reader.columns.{role}": name for role, name in columns.items()}):
        said, place = dict(zip(columns, cells)), table.row(number)
        count += 1
        if not said["video"]:
            problems.append(CaseProblem("", place, f"{columns['video']} is empty, so nobody knows whose row it is; fill it in"))
            continue
        case = printable(stem_of(said["video"].replace("\\", "/").rpartition("/")[2], SUFFIXES) or said["video"])
        try:
            file = places.find(said["video"])
        except RowError as error:
            problems.append(CaseProblem(case, place, f"{columns['video']} {error}"))
            continue
        if file is None:
            absent.append(said["video"])
            problems.append(CaseProblem(case, place, f"{columns['video']} is {printable(said['video'])!r}, which is not there "
                                                     f"({begin})"))
            continue
        try:
            rows.setdefault(file, []).append(_row(place, said, columns, table.separator, new))
        except RowError as error:
            problems.append(CaseProblem(printable(cases.get(file, case)), place, str(error)))
            rows.setdefault(file, []).append(None)
    if absent and not rows:
        raise InputError(f"{table.place}: none of its {count} rows names a video that is there (data.reader.columns.video is "
                         f"{columns['video']!r}; {begin}); it names "
                         f"{some(absent, 5)}" + (f", and the videos are {some(files, 5)}" if files else ""))
    found, twice = {}, []
    for file, several in rows.items():
        other = next((row for row in several[1:] if None not in several and row.said != several[0].said), None)
        if other is not None:
            problems.append(CaseProblem(printable(cases.get(file, file)), other.place, f"says other things than "
                                        f"{several[0].place} of {printable(file)}; delete one of the rows"))
        elif None not in several:
            found[file] = several[0]
            twice += [file] if len(several) > 1 else []
    return Rows(found, problems, set(rows), twice)


def _row(place: str, said: Mapping[str, str], columns: Mapping[str, str], separator: str, new: bool) -> VideoRow:
    score = parse_number(said["score"], separator)
    if score is None:
        raise RowError(f"{columns['score']} is {printable(said['score'])!r}, expected a number" if said["score"] else
                       f"{columns['score']} is empty, expected a number")
    if "patient" in said and not said["patient"] and not new:
        raise RowError(f"{columns['patient']} is empty, so nobody knows whose video it is; fill it in in every row, or take "
                       "the column away")
    subset = said.get("subset", "")
    if "subset" in said and subset.casefold() not in SUBSETS:
        raise RowError(f"{columns['subset']} is {printable(subset)!r}, expected one of {', '.join(SUBSETS)}")
    return VideoRow(place, score, said.get("patient", ""), SUBSETS.get(subset.casefold(), ""))


class _Places:
    """Where the paths of a table lead."""

    def __init__(self, root: Path, folder: Path, files: Sequence[str]):
        self.root, self.real = root, Path(os.path.realpath(root))
        self.base = folder.relative_to(root).as_posix()
        self._stems: dict[str, list[str]] = {}
        self._folded: dict[str, list[str]] = {}
        for file in files:
            self._stems.setdefault(stem_of(file, SUFFIXES), []).append(file)
            for name in {file, stem_of(file, SUFFIXES)}:
                self._folded.setdefault(_folded(name), []).append(file)

    def find(self, name: str) -> str | None:
        """Path in the input folder of what a row names, None if it is not there: exactly, else without its suffix, else
        without regard to case. Raises RowError for a path that leaves the input folder, or may mean several files."""
        parts = name.replace("\\", "/")
        path = posixpath.normpath(posixpath.join(self.base, parts))
        outside = parts.startswith("/") or PureWindowsPath(name).drive or path.split("/")[0] == ".."
        if outside:
            raise RowError(f"is {printable(name)!r}, which leaves the input folder; expected a path inside it")
        try:
            exact = (self.root / path).is_file()
        except (OSError, ValueError):  # too long for a file system, or with a zero byte
            exact = False
        found = [path] if exact else self._stems.get(path) or self._folded.get(_folded(path), [])
        if len(found) > 1:
            raise RowError(f"is {printable(name)!r}, which may mean {some(found)}; write its whole name")
        if found and not stays_inside(self.real, self.root / found[0]):
            raise RowError(f"is {printable(name)!r}, a link that leaves the input folder; put the file itself there")
        return found[0] if found else None


def stays_inside(real_root: Path, path: Path) -> bool:
    """Whether a path, its links followed, is in the folder whose true path is given."""
    return Path(os.path.realpath(path)).is_relative_to(real_root)


def _is_bare_dicom(path: Path) -> bool:
    suffix = path.suffix[1:]
    try:
        return not path.name.startswith(".") and (not suffix or suffix.isdigit()) and path.is_file() and is_dicom(path)
    except OSError:
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
