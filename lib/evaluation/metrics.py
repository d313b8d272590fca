"""Metrics of one case: overlap of two binary masks on the native grid, and distances between their surfaces.

Positive means `True`; TP, FP, FN and TN count voxels. What is undefined is NaN and is left out of every mean:

| metric      | formula                 | NaN when                  |
|-------------|-------------------------|---------------------------|
| dice        | 2 TP / (2 TP + FP + FN) | the truth is empty        |
| iou         | TP / (TP + FP + FN)     | the truth is empty        |
| recall      | TP / (TP + FN)          | the truth is empty        |
| precision   | TP / (TP + FP)          | nothing is predicted      |
| specificity | TN / (TN + FP)          | the truth is all positive |
| accuracy    | (TP + TN) / all         | there are no voxels       |
| hd95        | see `hd95`              | either mask is empty      |

An empty truth counts neither as 0 nor as 1: what is predicted there is false-positive volume (or area), and its
precision is 0. Truth that is missed altogether has dice, iou and recall 0.
Definitions: Taha & Hanbury, BMC Medical Imaging 15:29 (2015); empty references: Maier-Hein, Reinke et al.,
"Metrics reloaded", Nature Methods 21:195-212 (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A nearest-neighbour search costs about as much as 16 voxels of a distance transform (measured): with more
# searches than this share of the box, as on the noise of an untrained network, the transform is faster.
_DENSE = 1 / 16


class Confusion(NamedTuple):
    """Voxel counts of a prediction against the truth."""

    tp: int
    fp: int
    fn: int
    tn: int


def confusion(prediction: np.ndarray, truth: np.ndarray) -> Confusion:
    """Counts of true and false positives and negatives.

    prediction, truth: bool arrays of one shape, any number of axes.
    Raises ValueError for other dtypes (threshold a probability or label map first) or unlike shapes.
    """
    prediction, truth = _pair(prediction, truth)
    tp = np.count_nonzero(prediction & truth)
    fp = np.count_nonzero(prediction) - tp
    fn = np.count_nonzero(truth) - tp
    return Confusion(int(tp), int(fp), int(fn), int(prediction.size - tp - fp - fn))


def overlap(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice, IoU, precision, recall, specificity and accuracy (0..1 or NaN, see the table above).

    prediction, truth: bool arrays of one shape. Raises ValueError as `confusion` does.
    """
    tp, fp, fn, tn = confusion(prediction, truth)
    if tp + fn:
        dice, iou, recall = 2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn), tp / (tp + fn)
    else:
        dice = iou = recall = float("nan")
    return {"dice": dice, "iou": iou, "precision": _ratio(tp, tp + fp), "recall": recall,
            "specificity": _ratio(tn, tn + fp), "accuracy": _ratio(tp + tn, tp + fp + fn + tn)}


def hd95(there: np.ndarray, back: np.ndarray) -> float:
    """95th-percentile Hausdorff distance of two masks from their `surface_distances`; NaN when either is empty.

    It is the greater of the two directed 95th percentiles (linear interpolation), as in MONAI's
    `compute_hausdorff_distance` and in Metrics Reloaded (Maier-Hein et al. 2024), not the percentile of both
    directions pooled as in medpy. After Huttenlocher et al., IEEE TPAMI 15:850-863 (1993).
    """
    if not len(there) or not len(back):
        return float("nan")
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def surface_distances(prediction: np.ndarray, truth: np.ndarray,
                      spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each surface voxel of the prediction to the truth's surface, and the other way.

    prediction, truth: bool arrays of one shape, (frames, rows, columns) or any other number of axes.
    spacing: voxel size along each axis, in any unit; the distances have the same.
    Surface voxels are those of the mask with a face neighbour outside it; beyond the border is outside.
    An axis of length one has no neighbours and makes no surface: a single image has its outline as surface.
    Returns two float64 vectors. An empty mask has no surface: its own vector is empty, and the other's distances
    are infinite.
    Raises ValueError for other dtypes, unlike shapes, or unless there is one positive spacing per axis.
    """
    prediction, truth = _pair(prediction, truth)
    spacing = _spacing(spacing, prediction.ndim)
    if not prediction.any() and not truth.any():
        return np.empty(0), np.empty(0)
    box = _bounding_box(prediction | truth)
    single = tuple(axis for axis, length in enumerate(prediction.shape) if length == 1)
    prediction, truth = (_surface(mask[box].squeeze(single)) for mask in (prediction, truth))
    spacing = np.delete(spacing, single)
    return _directed(prediction, truth, spacing), _directed(truth, prediction, spacing)


def _directed(source: np.ndarray, target: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance of every True of `source` to the nearest True of `target`, in C order; infinite if there is none."""
    distances = np.zeros(np.count_nonzero(source))
    if not target.any():
        return distances + np.inf
    apart = ~target[source]  # surfaces often coincide: those voxels are at 0 without a search
    searches = np.count_nonzero(apart)
    if searches > _DENSE * source.size:
        from scipy.ndimage import distance_transform_edt

        return distance_transform_edt(~target, sampling=spacing)[source]
    if searches:
        from scipy.spatial import KDTree

        # Voxel centres fill space evenly, so a tree split at midpoints is built faster and is as good.
        tree = KDTree(np.argwhere(target) * spacing, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(np.argwhere(source)[apart] * spacing)[0]
    return distances


def _surface(mask: np.ndarray) -> np.ndarray:
    """The mask minus its erosion with face connectivity (6 in 3-D)."""
    inside = mask.copy()  # by slices, as scipy's binary_erosion takes ten times as long
    for axis in range(mask.ndim):
        voxels, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        kept[1:] &= voxels[:-1]
        kept[:-1] &= voxels[1:]
        kept[[0, -1]] = False
    return mask & ~inside


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest slices that hold every True of a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        box.append(slice(filled[0], filled[-1] + 1))
    return tuple(box)


def _mask(mask: np.ndarray, name: str) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.dtype != np.bool_:
        raise ValueError(f"{name} must be a bool array, not {mask.dtype}: threshold it first")
    return mask


def _pair(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prediction, truth = _mask(prediction, "prediction"), _mask(truth, "truth")
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} must have the same shape")
    return prediction, truth


def _spacing(spacing: Sequence[float], axes: int) -> np.ndarray:
    sizes = np.asarray(spacing, dtype=np.float64)
    if sizes.shape != (axes,) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"spacing must be {axes} positive numbers, one per axis, not {spacing!r}")
    return sizes


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
