"""The brain mask of a diffusion scan without one: threshold every channel, intersect, keep one solid body.

The recipe is that of dipy's `median_otsu` (Garyfallidis et al. 2014, doi:10.3389/fninf.2014.00008) on each
channel, then intersection, largest component, dilation by one voxel and filling;
`benchmarks/brainmask_agreement.py` compares the two. Every array here is (frames, rows, columns).

Patients can be masked in threads: nothing here starts one, and all but the labelling releases Python's lock.
"""

from __future__ import annotations

from typing import Callable, Sequence

import cc3d
import cv2
import numpy as np

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def brain_mask(volumes: Sequence[np.ndarray], method: str = "otsu") -> np.ndarray:
    """Brain mask of one patient from its channels (b0, b1000, ...).

    volumes: each float32 (frames, rows, columns), on one grid; zeros outside a skull-stripped brain are fine.
    method: one of METHODS, the rule for the threshold of a channel after a median filter of radius 1.
    Returns bool (frames, rows, columns): the largest body above the threshold in every channel, dilated by
    one voxel along each axis, with its holes filled. Raises ValueError for an unknown method, channels that
    don't fit together, values that are not finite, a constant volume and an empty mask.
    """
    if method not in METHODS:
        raise ValueError(f"unknown brain mask method {method!r}; known: {', '.join(METHODS)}")
    volumes = [np.ascontiguousarray(volume, np.float32) for volume in volumes]
    check_volumes(volumes)
    mask = None
    for volume in volumes:
        bright = median_above(volume, METHODS[method](separable_median(volume)))
        mask = bright if mask is None else np.logical_and(mask, bright, out=mask)
    if not mask.any():
        raise ValueError(f"the brain mask is empty: no voxel is above the {method} threshold of all channels")
    return fill_holes(dilate(largest_component(mask)))


def check_volumes(volumes: Sequence[np.ndarray]) -> None:
    """Raise ValueError, in plain words, for channels that no mask can be made from."""
    if not volumes:
        raise ValueError("a brain mask needs at least one channel; none was given")
    for number, volume in enumerate(volumes, 1):
        which = f"channel {number} of {len(volumes)}"
        if volume.ndim != 3 or volume.size == 0 or volume.shape != volumes[0].shape:
            raise ValueError(f"{which} has the shape {volume.shape}; expected (frames, rows, columns), "
                             f"the same in every channel (the first has {volumes[0].shape})")
        low, high = float(volume.min()), float(volume.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError(f"{which} has values that are not finite (NaN or infinity)")
        if low == high:
            raise ValueError(f"{which} is {'all zero' if low == 0 else f'constant (every voxel is {low:g})'}")


# ---- thresholds: a median-filtered volume -> the intensity above which a voxel may be brain

def otsu_threshold(volume: np.ndarray) -> float:
    """The intensity that best splits the histogram of `volume` (float32) in two.

    Otsu 1979, doi:10.1109/TSMC.1979.4310076, with 256 equal bins from the lowest to the highest value. As in
    dipy, a bin stands for its upper edge, and the threshold is the lower edge of the last dark bin: where
    that bin holds the zeros around a skull-stripped brain, the threshold is 0 and all of the brain is above.
    Of a constant volume it is that constant: nothing is above it.
    """
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        return low
    counts, edges = histogram(volume, low, high, 256)
    dark, bright = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]  # voxels up to, and from, each bin
    sums = counts * edges[1:]
    dark_mean = np.cumsum(sums) / dark  # the first and the last bin are never empty: no division by 0
    bright_mean = np.cumsum(sums[::-1])[::-1] / bright
    between = dark[:-1] * bright[1:] * (dark_mean[:-1] - bright_mean[1:]) ** 2
    return float(edges[np.argmax(between)])


def percentile_threshold(volume: np.ndarray, fraction: float = 0.2) -> float:
    """`fraction` of the way from the 2nd to the 98th percentile of `volume`: the robust range of FSL's BET.

    BET itself goes 10 % of the way (Smith 2002, doi:10.1002/hbm.10062) and then fits a surface; a threshold
    alone has to go 20 % to clear the noise and the scalp. Reads one voxel of four, in plane.
    """
    low, high = np.percentile(volume[:, ::2, ::2], (2, 98))
    return float(low + fraction * (high - low))


METHODS: dict[str, Callable[[np.ndarray], float]] = {
    "otsu": otsu_threshold,
    "percentile": percentile_threshold,
}


def histogram(volume: np.ndarray, low: float, high: float, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts (bins,) and edges (bins + 1,), both float64, of a float32 volume with this minimum and maximum.

    As np.histogram, at half its time.
    """
    plane = volume.reshape(-1, volume.shape[-1])
    counts = cv2.calcHist([plane], [0], None, [bins], [low, high]).ravel().astype(np.float64)
    counts[-1] += volume.size - counts.sum()  # cv2 leaves the maximum out, NumPy has it in the last bin
    return counts, np.linspace(low, high, bins + 1)


# ---- median of radius 1

def separable_median(volume: np.ndarray) -> np.ndarray:
    """Median of each 3 x 3 in plane, then of 3 frames: close to the 3 x 3 x 3 median at 1/200 of its time.

    float32 in and out, edges repeated. Good for choosing a threshold; `median_above` then applies it exactly.
    """
    plane = np.empty_like(volume)
    for source, target in zip(volume, plane):
        cv2.medianBlur(source, 3, dst=target)
    result = plane.copy()  # with edges repeated the first and the last frame are their own medians
    for before, frame, after, target in zip(plane, plane[1:], plane[2:], result[1:]):
        np.maximum(np.minimum(before, frame), np.minimum(np.maximum(before, frame), after), out=target)
    return result


def median_above(volume: np.ndarray, threshold: float) -> np.ndarray:
    """Where the 3 x 3 x 3 median of `volume` (edges repeated) is above `threshold`: exact; bool, same shape.

    A median is above a threshold where most of its voxels are (threshold decomposition; Fitch, Coyle and
    Gallagher 1984, doi:10.1109/TASSP.1984.1164468), so that counting replaces sorting.
    """
    in_plane = np.empty((len(volume) + 2, *volume.shape[1:]), np.uint8)  # 0 to 9; a frame more at each end
    for frame, target in zip(volume, in_plane[1:]):
        bright = (frame > threshold).view(np.uint8)
        cv2.boxFilter(bright, cv2.CV_8U, (3, 3), dst=target, normalize=False, borderType=cv2.BORDER_REPLICATE)
    in_plane[0], in_plane[-1] = in_plane[1], in_plane[-2]
    count = in_plane[:-2] + in_plane[1:-1]
    count += in_plane[2:]
    return count >= 14  # of 27


# ---- morphology

def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected component of `mask` (bool, 3-D), as bool of the same shape.

    Voxels are connected through faces (6-connectivity, scipy.ndimage's default): bodies that touch only at an
    edge or a corner stay apart. An empty mask has no largest component: it comes back empty. Of equally large
    ones the one found first wins, frame by frame, row by row.
    """
    mask = np.ascontiguousarray(mask, bool)
    labels = cc3d.connected_components(mask, connectivity=6)  # 6 times as fast as scipy.ndimage.label
    sizes = np.bincount(labels[mask])
    if len(sizes) == 0:
        return np.zeros(mask.shape, bool)
    return labels == np.argmax(sizes)


def dilate(mask: np.ndarray) -> np.ndarray:
    """`mask` (bool, 3-D) grown by one voxel along each axis (a 3-D cross), bool of the same shape."""
    source = np.ascontiguousarray(mask, bool).view(np.uint8)
    result = np.empty_like(source)
    for frame, target in zip(source, result):
        cv2.dilate(frame, CROSS, dst=target)
    result[1:] |= source[:-1]
    result[:-1] |= source[1:]
    return result.view(bool)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """`mask` (bool, 3-D) with holes filled in 3-D and in each frame, bool of the same shape.

    A hole is background that no path through faces (in a frame: pixel edges) joins to the array's border.
    Filling each frame is enough: a 3-D hole reaches the border nowhere, so its slices are holes of frames.
    """
    frames, rows, columns = mask.shape
    result = np.empty(mask.shape, bool)
    padded = np.zeros((rows + 2, columns + 2), np.uint8)  # with a rim of background that the corner reaches
    inner = padded[1:-1, 1:-1]
    for frame, target in zip(mask, result):
        padded[:] = 0
        inner[:] = frame
        cv2.floodFill(padded, None, (0, 0), 2)
        np.not_equal(inner, 2, out=target)
    return result
