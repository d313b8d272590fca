"""Points on finished pictures: a cross for what was found, a ring for what is true, each with its name where it hides least."""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

from lib.imaging.boxes import legible, place_labels
from lib.imaging.captions import DARK, SHIFT, extent, fitted, write
from lib.imaging.painting import Colour

RADIUS_PX, RADIUS_SHARE = 4.0, 1 / 110  # of a mark: at least, and of the picture's longer side
AIR_PX = 2  # from a mark to its name


def draw_points(picture: np.ndarray, points: np.ndarray, labels: Sequence[str], colours: Sequence[Colour],
                rings: bool | Sequence[bool] = False) -> np.ndarray:
    """A copy of uint8 (h, w, 3) with points on it, and their labels; an empty one writes nothing.

    points: (n, 2) x and y in pixels of the picture, 0 at the first one's centre; those that are not finite are left out.
    rings: of all, or of each: a ring instead of a cross. One call for predictions and truths together knows all marks before
    it places a label. Raises ValueError if the numbers of things differ.
    """
    picture = np.ascontiguousarray(picture).copy()
    points, colours, labels = np.asarray(points, np.float64).reshape(-1, 2), list(colours), list(labels)
    if not len(points) == len(labels) == len(colours):
        raise ValueError(f"{len(points)} points, {len(labels)} labels and {len(colours)} colours")
    rings, radius = np.broadcast_to(rings, len(points)), max(RADIUS_PX, RADIUS_SHARE * max(picture.shape[:2]))
    shown = np.flatnonzero(np.isfinite(points).all(axis=1))
    for thickness, dark in ((3, True), (1, False)):
        for index in shown:
            _mark(picture, points[index], radius, DARK if dark else colours[index], thickness, rings[index])
    named = [index for index in shown if labels[index]]
    texts = [fitted(labels[index], picture.shape) for index in named]
    around = np.concatenate([points[named] + 0.5 - radius, points[named] + 0.5 + radius], axis=1)
    if named:
        corners = place_labels(picture, around, [np.array(extent(*text)) for text in texts], AIR_PX)
        for (text, letters), corner, index in zip(texts, corners, named):
            write(picture, text, corner, legible(colours[index]), letters, halo=True)
    return picture


def _mark(picture: np.ndarray, point: np.ndarray, radius: float, colour: Colour, thickness: int, ring: bool) -> None:
    def fixed(values) -> tuple[int, ...]:
        return tuple(int(value) for value in np.rint(np.asarray(values) * (1 << SHIFT)))

    if ring:
        cv2.circle(picture, fixed(point), fixed([radius])[0], colour, thickness, cv2.LINE_AA, SHIFT)
        return
    for along in ((radius, 0), (0, radius)):
        cv2.line(picture, fixed(point - along), fixed(point + along), colour, thickness, cv2.LINE_AA, SHIFT)
