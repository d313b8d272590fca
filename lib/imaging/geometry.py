"""The native pixels of a case, and how its frames fit into the study's grid: scaled, padded, never cropped; and restored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Sequence

import cv2
import numpy as np


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """(rows, columns) of a resized frame or grid: rounded, at least 1 each."""
    rows, columns = size
    return max(1, round(rows * scale)), max(1, round(columns * scale))


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
class Fit:
    """Where a native frame lies in the grid: resized to `scaled` pixels and placed with its corner at `corner`.

    native, scaled, grid: (rows, columns); corner: (top, left), all in pixels.
    """
    native: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]
    grid: tuple[int, int]

    @classmethod
    def of(cls, native: tuple[int, int], grid: tuple[int, int], spacing_mm: tuple[float, float] = (1.0, 1.0)) -> Fit:
        """The largest fit that keeps proportions in mm; frames smaller than the grid are enlarged to fill it."""
        extent = (native[0] * spacing_mm[0], native[1] * spacing_mm[1])
        scale = min(grid[0] / extent[0], grid[1] / extent[1])
        scaled = tuple(min(g, max(1, round(e * scale))) for e, g in zip(extent, grid))
        corner = tuple((g - s) // 2 for g, s in zip(grid, scaled))
        return cls(tuple(native), scaled, corner, tuple(grid))

    @property
    def inner(self) -> tuple[slice, slice]:
        (top, left), (rows, columns) = self.corner, self.scaled
        return slice(top, top + rows), slice(left, left + columns)

    def fit(self, frames: np.ndarray, outside: float = 0.0) -> np.ndarray:
        """(..., *native) float32 -> (..., *grid) float32; linear, area-averaged when shrinking; padded with `outside`."""
        # OpenCV averages areas only if no axis grows, so an axis that does waits for the second, linear step
        return self._place(frames, cv2.INTER_LINEAR, outside)

    def fit_labels(self, labels: np.ndarray) -> np.ndarray:
        """(..., *native) uint8 or bool -> (..., *grid) uint8; nearest neighbour, padded with 0."""
        return self._place(labels.astype(np.uint8, copy=False), cv2.INTER_NEAREST_EXACT, 0)

    def restore(self, frames: np.ndarray) -> np.ndarray:
        """(..., *grid) float32 -> (..., *native) float32; linear."""
        return self._take(frames, cv2.INTER_LINEAR)

    def restore_labels(self, labels: np.ndarray) -> np.ndarray:
        """(..., *grid) uint8 -> (..., *native) uint8; nearest neighbour."""
        return self._take(labels.astype(np.uint8, copy=False), cv2.INTER_NEAREST_EXACT)

    def fit_points(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) x and y in native pixels, 0 at the first pixel's edge -> x and y in pixels of the grid."""
        return points * self._zoom + self.corner[::-1]

    def restore_points(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) x and y in pixels of the grid -> x and y in native pixels."""
        return (points - self.corner[::-1]) / self._zoom

    @property
    def _zoom(self) -> np.ndarray:
        """Grid pixels per native pixel, along x and along y."""
        return np.array(self.scaled[::-1]) / np.array(self.native[::-1])

    def _place(self, frames: np.ndarray, interpolation: int, outside: float) -> np.ndarray:
        flat = frames.reshape(-1, *self.native)
        placed = np.full((len(flat), *self.grid), outside, frames.dtype)
        for source, target in zip(flat, placed):
            if interpolation == cv2.INTER_LINEAR:
                source = self._resize(source, tuple(map(min, self.scaled, self.native)), cv2.INTER_AREA)
            target[self.inner] = self._resize(source, self.scaled, interpolation)
        return placed.reshape(*frames.shape[:-2], *self.grid)

    def _take(self, frames: np.ndarray, interpolation: int) -> np.ndarray:
        flat = frames.reshape(-1, *self.grid)
        taken = np.empty((len(flat), *self.native), frames.dtype)
        for source, target in zip(flat, taken):
            target[:] = self._resize(np.ascontiguousarray(source[self.inner]), self.native, interpolation)
        return taken.reshape(*frames.shape[:-2], *self.native)

    @staticmethod
    def _resize(frame: np.ndarray, shape: tuple[int, int], interpolation: int) -> np.ndarray:
        if frame.shape == tuple(shape):
            return frame
        return cv2.resize(frame, (shape[1], shape[0]), interpolation=interpolation)
