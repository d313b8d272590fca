"""What a reader hands on: the header of a case, then the case itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.imaging.geometry import Geometry


@dataclass(frozen=True)
class CaseProblem:
    """Why a case cannot be used. `file` is relative to the input folder, or empty. `case` is empty where nobody knows which
    case it is: such a problem cannot be left out."""
    case: str
    file: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.case, self.file, self.reason) if part)


class CaseError(Exception):
    """Raised by a reader for one bad case; carries the CaseProblem."""

    def __init__(self, case: str, file: str, reason: str):
        super().__init__(case, file, reason)
        self.problem = CaseProblem(case, file, reason)


@dataclass(frozen=True)
class Header:
    """A case before its pixels are read.

    files: role -> path relative to the input folder. geometry: its native pixels. subset: train, validation or test
    or external (tested by all folds together) where the raw data says so, else empty. labels: what a table says of the
    case, JSON-able; it is part of the fingerprint. about: further columns of cases.csv, such as a loop's frame rate.
    """
    case: str
    patient: str
    files: dict[str, str]
    geometry: Geometry
    channels: int
    subset: str = ""
    labels: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Case:
    """frames: float32 or uint8 (channels, frames, rows, columns), native intensities.

    truth: empty, or class -> bool (frames, rows, columns) of a mask; or float32 (frames, 4) of a box: x_min, y_min, x_max,
    y_max in native pixels, half-open, NaN where there is none; or float32 (frames, 2) of a point: x, y in native pixels, 0
    at the centre of the first, NaN where there is none; or bool (1,): whether the case is of the class. foreground: bool
    (frames, rows, columns) where intensities are normalised, or None for everywhere.
    """
    header: Header
    frames: np.ndarray
    truth: dict[str, np.ndarray]
    foreground: np.ndarray | None = None


@dataclass(frozen=True)
class Scan:
    """What a folder holds: good headers, problems, names of entries with none of the study's files, and names that a table
    or a folder has alone, such as rows without an image."""
    headers: list[Header]
    problems: list[CaseProblem]
    ignored: list[str]
    notes: list[str] = field(default_factory=list)  # lines for the user
    unused: list[CaseProblem] = field(default_factory=list)
    patients_known: bool = True  # False where some cases count as patients of their own because nothing says whose they are
