"""What a reader hands on: the header of a case, then the case itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CaseProblem:
    """Why a case cannot be used. `file` is relative to the input folder, or empty."""
    case: str
    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case}: {self.file + ': ' if self.file else ''}{self.reason}"


class CaseError(Exception):
    """Raised by a reader for one bad case; carries the CaseProblem."""

    def __init__(self, case: str, file: str, reason: str):
        super().__init__(case, file, reason)
        self.problem = CaseProblem(case, file, reason)


@dataclass(frozen=True)
class Geometry:
    """The native pixels of a case, and how large they are.

    shape: (frames, rows, columns). spacing_mm: (frame, row, column), None where nothing tells it: lengths are then in
    pixels. flat: a photograph, whose regions have an area; its frame distance means nothing. source: what is needed
    to write a prediction like the source file (JSON-able). turn: quarter turns (numpy.rot90) that bring a frame
    upright for the eye.
    """
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    flat: bool = False
    source: dict[str, Any] = field(default_factory=dict)
    turn: int = 0

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(frame, row, column) in `unit`."""
        return self.spacing_mm or (1.0, 1.0, 1.0)

    @property
    def unit(self) -> str:
        """Of lengths: mm or px."""
        return "mm" if self.spacing_mm else "px"

    @property
    def size_unit(self) -> str:
        """Of how large a region is: ml of a volume, mm2 of a photograph, px (pixels or voxels) without a spacing."""
        return "px" if not self.spacing_mm else "mm2" if self.flat else "ml"

    @property
    def size_metric(self) -> str:
        """The metric of how large a region is: volume_ml, area_mm2, area_px or volume_px."""
        return f"{'area' if self.flat else 'volume'}_{self.size_unit}"

    def size_of(self, mask: np.ndarray) -> float:
        """How large a bool mask (frames, rows, columns) is, in `size_unit`."""
        _, row, column = self.spacing
        each = row * column if self.flat else float(np.prod(self.spacing))
        return float(np.count_nonzero(mask) * each / (1000 if self.size_unit == "ml" else 1))


@dataclass(frozen=True)
class Header:
    """A case before its pixels are read.

    files: role -> path relative to the input folder. geometry: its native pixels. subset: train, validation or test
    where the raw data says so, else empty.
    """
    case: str
    patient: str
    files: dict[str, str]
    geometry: Geometry
    channels: int
    subset: str = ""


@dataclass
class Case:
    """frames: float32 or uint8 (channels, frames, rows, columns), native intensities.

    truth: class -> bool (frames, rows, columns), or empty. foreground: bool (frames, rows, columns) where
    intensities are normalised, or None for everywhere.
    """
    header: Header
    frames: np.ndarray
    truth: dict[str, np.ndarray]
    foreground: np.ndarray | None = None


@dataclass(frozen=True)
class Scan:
    """What a folder holds: good headers, problems, and names of entries with none of the study's files."""
    headers: list[Header]
    problems: list[CaseProblem]
    ignored: list[str]
    notes: list[str] = field(default_factory=list)  # lines for the user
