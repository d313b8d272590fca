"""Arithmetic of points: how far they lie from where they should, the place that several models agree on, ellipses on diameters.

Points are (..., 2) arrays of x and y in pixels; spacing is the (row, column) size of a pixel in any unit, (1, 1) for pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.evaluation.calipers import Ellipse, Segment


def radial_error(a: np.ndarray, b: np.ndarray, spacing: Sequence[float] = (1.0, 1.0)) -> np.ndarray:
    """Distances (...) of points (..., 2) that broadcast together, in the spacing's unit; NaN where either is."""
    apart = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    row, column = spacing
    return np.hypot(apart[..., 0] * column, apart[..., 1] * row)


def fuse_points(points: np.ndarray, weights: np.ndarray, reach: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The place that several models' points of one landmark in one image stand for.

    points: (m, 2) finite; weights: (m,), 0 or more; reach: (x, y), half-axes of the ellipse about a point within which
    others agree with it. Of each point the weights of all that agree with it are added up; the greatest sum wins (of equals
    the greater weight of its own, then the first), and the place is the weighted mean of that group: a model that mistakes one
    end of a diameter for the other is outvoted, instead of drawing the mean between them.
    Returns the place (2,) float64, and which points are of the group, bool (m,). Raises ValueError for no point, or numbers
    that are not finite or weights below 0.
    """
    points, weights = np.asarray(points, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or weights.shape != points.shape[:1]:
        raise ValueError(f"needed: points (m, 2) and weights (m,), m at least 1; got {points.shape} and {weights.shape}")
    if not np.isfinite(points).all() or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("points must be finite, and weights finite and not negative")
    near = (((points[:, None] - points) / reach) ** 2).sum(axis=-1) <= 1
    backing = near @ (weights if weights.any() else np.ones(len(weights)))
    best = max(range(len(points)), key=lambda index: (backing[index], weights[index]))
    group = near[best]
    shares = weights[group] if weights[group].any() else np.ones(group.sum())
    return shares @ points[group] / shares.sum(), group


def ellipse_of_diameters(first: Segment, second: Segment, spacing: Sequence[float]) -> Ellipse:
    """The ellipse whose axes are as long as two diameters: the first where it lies, the second turned to a right angle with it
    (in the spacing's unit), its centre amid the four ends.

    So a head is measured from its occipito-frontal and its biparietal diameter, which readers draw nearly, not exactly, at a
    right angle: only their lengths count.
    """
    spacing = np.asarray(spacing, dtype=np.float64)
    along, length = (first.points[1] - first.points[0]) * spacing, first.length(spacing)
    along = along / length if length else np.array([0.0, 1.0])
    across = np.array([along[1], -along[0]])
    matrix = np.stack([along * length, across * second.length(spacing)], axis=1) / 2
    return Ellipse(np.concatenate([first.points, second.points]).mean(axis=0), matrix / spacing[:, None])
