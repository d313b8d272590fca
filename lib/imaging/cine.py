"""What is known of a cine loop before its pixels are read, and how large one may be."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

MEMORY_SHARE = 0.25  # of the machine's memory that a decoded loop may take: two are read at once, and there is more to hold
MEMORY_BYTES = 4 * 2**30  # the bound where the system does not say how much memory it has
HIGHEST_RATE = 1000.0  # frames per second; no scanner has more, but files that do not know their rate may say so


class CineError(Exception):
    """A file that is no usable loop; the message says why, without the file's name."""


@dataclass(frozen=True)
class CineFacts:
    """What a file says of its loop. colour: stored with colours. deep: other than 8 bits per value. coding: of its pixels, in
    words. frame_rate (1/s) and heart_rate (1/min) are 0 where nothing tells them. spacing_mm: (row, column) or None."""
    frames: int
    rows: int
    columns: int
    colour: bool
    deep: bool = False
    coding: str = ""
    frame_rate: float = 0.0
    heart_rate: float = 0.0
    spacing_mm: tuple[float, float] | None = None
    patient_id: str = field(default="", repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.frames, self.rows, self.columns


def check_memory(shape: tuple[int, ...], channels: int = 1) -> None:
    """Raise CineError if a decoded loop (frames, rows, columns: Python integers) is more than a share of the memory."""
    needed, most = math.prod((channels, *shape)), memory_limit()
    if needed > most:
        frames, rows, columns = shape
        raise CineError(f"claims {frames} frames of {rows} x {columns} pixels: {needed / 2**30:.1f} GiB decoded, more than the "
                        f"{most / 2**30:.1f} GiB that one video may take (a quarter of this machine's memory); cut it into "
                        "shorter videos, or check its header")


def memory_limit() -> int:
    """Bytes that a decoded loop may take."""
    try:
        return int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return MEMORY_BYTES


def plausible_rate(value: float) -> float:
    """Frames per second, or 0.0 for what is none."""
    return float(value) if 0 < value <= HIGHEST_RATE else 0.0
