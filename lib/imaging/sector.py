"""The ultrasound sector of a loop: what moves. Around it are logos, scales and the patient's name, which do not."""

from __future__ import annotations

import cv2
import numpy as np

TOLERANCES = (2, 4, 8, 16)  # grey levels that a pixel which stands still may change by: compression, or an analogue cable
RESTLESS = 0.5  # share of the frame's rim that changes, from which a tolerance is too small
RIM = 0.02  # width of the rim, of the frame's shorter side
COARSE = 128  # cells along the shorter side in which changing pixels are counted
BLOCK = 9  # cells along the square whose share of changing pixels counts
DENSE = 0.3  # that share; a line of an ECG, or changing digits, fill less of it
THICK = 17  # cells; what is thinner and sticks out by as much, such as an ECG that touches the sector, is no part of it
SMALLEST = 0.05  # of the frame; what moves in less of it is no sector
CONVEX = 0.85  # share of its convex hull that a sector fills; two side by side fill less


class Extent:
    """The least and the largest value of every pixel of a loop, gathered frame by frame."""

    def __init__(self):
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        """frame: uint8 (..., rows, columns)."""
        if self.low is None:
            self.low, self.high = frame.copy(), frame.copy()
        else:
            np.minimum(self.low, frame, out=self.low)
            np.maximum(self.high, frame, out=self.high)

    @property
    def change(self) -> np.ndarray:
        """uint8 (rows, columns): by how much each pixel changes, the most of its channels."""
        change = self.high - self.low
        return change.reshape(-1, *change.shape[-2:]).max(axis=0)


def find_sector(change: np.ndarray) -> np.ndarray | None:
    """bool (rows, columns): the sector of a loop whose pixels change by uint8 (rows, columns); None if too little moves.

    It is the largest region that is dense with changing pixels, and all that its convex hull holds: dark cavities and
    shadows within it stand still too.
    """
    changing = _changing(change)
    region = _largest(changing)
    ends = _ends(region & changing)  # cells reach beyond the last changing pixel, where text may stand
    if not len(ends):
        return None
    hull = cv2.fillConvexPoly(np.zeros_like(region), cv2.convexHull(ends), 1)
    filled = region & hull
    sector = hull if np.count_nonzero(filled) >= CONVEX * np.count_nonzero(hull) else filled
    return sector > 0 if np.count_nonzero(sector) >= SMALLEST * sector.size else None


def _changing(change: np.ndarray) -> np.ndarray:
    """uint8 (rows, columns), 1 where a pixel changes by more than the least tolerance at which the frame's rim rests."""
    width = max(1, round(RIM * min(change.shape)))
    rim = np.ones(change.shape, bool)
    rim[width:-width, width:-width] = False
    for tolerance in TOLERANCES:
        if np.count_nonzero(change[rim] > tolerance) <= RESTLESS * np.count_nonzero(rim):
            return (change > tolerance).astype(np.uint8)
    return (change > TOLERANCES[0]).astype(np.uint8)  # all of the frame moves: a loop that was cut to its sector


def _largest(changing: np.ndarray) -> np.ndarray:
    """uint8 (rows, columns): the largest region that is dense with changing pixels, without holes and thin parts."""
    rows, columns = changing.shape
    cell = max(1, min(rows, columns) // COARSE)
    share = cv2.resize(changing * np.uint8(255), (max(1, columns // cell), max(1, rows // cell)), interpolation=cv2.INTER_AREA)
    share = cv2.boxFilter(share, -1, (BLOCK, BLOCK), borderType=cv2.BORDER_REPLICATE)
    region = _without_holes(_biggest((share > DENSE * 255).astype(np.uint8)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (THICK, THICK))
    thick = _biggest(cv2.morphologyEx(region, cv2.MORPH_OPEN, disc))
    if thick.any():
        region &= cv2.dilate(thick, disc)
    return cv2.resize(region, (columns, rows), interpolation=cv2.INTER_NEAREST)


def _ends(region: np.ndarray) -> np.ndarray:
    """int32 (points, 2): x, y of the first and the last pixel of every row, which have the hull of all."""
    rows = np.flatnonzero(region.any(axis=1))
    first, last = region[rows].argmax(axis=1), region.shape[1] - 1 - region[rows, ::-1].argmax(axis=1)
    return np.concatenate([np.stack([first, rows], 1), np.stack([last, rows], 1)]).astype(np.int32)


def _biggest(regions: np.ndarray) -> np.ndarray:
    """uint8 (rows, columns): the largest of several regions, if there is one."""
    count, numbers, facts, _ = cv2.connectedComponentsWithStats(regions, connectivity=8)
    return (numbers == 1 + facts[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8) if count > 1 else regions


def _without_holes(region: np.ndarray) -> np.ndarray:
    """uint8 (rows, columns): a region with what it encloses."""
    outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(region), outlines, -1, 1, cv2.FILLED)
