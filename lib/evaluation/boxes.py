"""Arithmetic of boxes: areas, overlap, distance of centres, and the one box that several models agree on.

A box is x_min, y_min, x_max, y_max: a half-open interval of pixels along each axis, so that its width is x_max - x_min
and the box of a single pixel is one wide. Boxes are (..., 4) arrays of numbers; everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (...) of boxes (..., 4), in square pixels; 0 where the maximum is not greater than the minimum."""
    boxes = np.asarray(boxes, dtype=np.float64)
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (...), 0..1, of boxes (..., 4) that broadcast together.

    It is 0 when either box has no area, is NaN or is infinite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    with np.errstate(all="ignore"):
        shared = np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], axis=-1)
        intersection = areas(shared)
        return np.nan_to_num(intersection / (areas(a) + areas(b) - intersection), nan=0.0)


def centre_distance(a: np.ndarray, b: np.ndarray, spacing: Sequence[float] = (1.0, 1.0)) -> np.ndarray:
    """Distances (...) of the centres of boxes (..., 4) that broadcast together.

    spacing: (row, column) size of a pixel; the distances have its unit, pixels for (1, 1).
    """
    apart = (np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)) / 2
    row, column = spacing
    return np.hypot((apart[..., 0] + apart[..., 2]) * column, (apart[..., 1] + apart[..., 3]) * row)


def fuse_boxes(boxes: np.ndarray, scores: np.ndarray, overlap: float = 0.55) -> tuple[np.ndarray, np.ndarray]:
    """The box that several models' boxes of one structure in one image stand for, by weighted boxes fusion.

    boxes: (m, 4). scores: (m,), 0 or more. The structure occurs at most once in the image, so there is one answer.
    The boxes are taken from the highest score to the lowest, of equals the first. Each joins the cluster whose box
    overlaps it best, if the IoU is above `overlap`, and founds a cluster otherwise; a cluster's box is the
    score-weighted mean of its members, renewed whenever one joins (their plain mean where all their scores are 0).
    The cluster with the greatest sum of scores wins: of equals the one whose best score is higher, then the first.
    After Solovyev, Wang & Gabruseva, Image and Vision Computing 107:104117 (2021), arXiv:1910.13302, which keeps all
    clusters.
    Returns the winner's box (4,) float64, and which boxes are its members, bool (m,).
    Raises ValueError unless there is a box, one score per box, all boxes finite and no score negative or NaN.
    """
    boxes, scores = np.asarray(boxes, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) or scores.shape != boxes.shape[:1]:
        raise ValueError(f"needed: boxes (m, 4) and scores (m,), m at least 1; got {boxes.shape} and {scores.shape}")
    if not np.isfinite(boxes).all() or not (np.isfinite(scores) & (scores >= 0)).all():
        raise ValueError("boxes must be finite, and scores finite and not negative")
    clusters: list[list[int]] = []
    means = np.empty_like(boxes)  # row i: the box of cluster i
    for index in np.argsort(-scores, kind="stable"):
        ious = iou(boxes[index], means[:len(clusters)])
        nearest = int(ious.argmax()) if clusters else -1
        if clusters and ious[nearest] > overlap:
            clusters[nearest].append(index)
        else:
            nearest = len(clusters)
            clusters.append([index])
        means[nearest] = _weighted_mean(boxes[clusters[nearest]], scores[clusters[nearest]])
    # Founders come in order of score, so the first of equal sums has the higher best score too.
    winner = int(np.argmax([scores[members].sum() for members in clusters]))
    chosen = np.zeros(len(boxes), dtype=bool)
    chosen[clusters[winner]] = True
    return means[winner], chosen


def _weighted_mean(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if len(boxes) == 1:
        return boxes[0]  # box * score / score need not be the box to the last bit
    total = scores.sum()
    return scores @ boxes / total if total else boxes.mean(axis=0)
