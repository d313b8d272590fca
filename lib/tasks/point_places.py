"""From heat maps to places, in NumPy: the peak of each map, read between the pixels, and how much of the map lies about it."""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

REACH = 3.0  # standard deviations of the wanted Gaussian: what lies so near belongs to the same peak


def softmax_maps(logits: np.ndarray) -> np.ndarray:
    """Heat logits (..., H, W) -> float32 shares of the same shape; each map sums to 1."""
    logits = logits.astype(np.float32, copy=False)
    shares = np.exp(logits - logits.max(axis=(-2, -1), keepdims=True))
    return shares / shares.sum(axis=(-2, -1), keepdims=True, dtype=np.float64).astype(np.float32)


def presence(logits: np.ndarray) -> np.ndarray:
    """Heat logits (..., H, W) -> float32 (...), 0..1: the sigmoid of `point_losses.presence_logits`."""
    logits = logits.astype(np.float64)
    highest = logits.max(axis=(-2, -1))
    means = np.log(np.exp(logits - highest[..., None, None]).mean(axis=(-2, -1))) + highest
    return (1 / (1 + np.exp(-np.clip(means, -60, 60)))).astype(np.float32)


def read_maps(logits: np.ndarray, sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Places float64 (..., 2), x and y in pixels of the grid, 0 at the first one's edge, and the mass (...), 0..1, near each.

    logits: (..., H, W), of a network that was taught Gaussians of standard deviation `sigma_px`.
    """
    shares = softmax_maps(logits)
    read = [read_map(share, sigma_px) for share in shares.reshape(-1, *shares.shape[-2:])]
    places, masses = (np.array(values, dtype=np.float64) for values in zip(*read))
    return places.reshape(*shares.shape[:-2], 2), masses.reshape(shares.shape[:-2])


def read_map(share: np.ndarray, sigma_px: float) -> tuple[tuple[float, float], float]:
    """((x, y), mass) of one map (H, W) that sums to 1.

    The hill is where a Gaussian filter of the map is highest, so that a broad one wins over a lonely pixel; its peak is the
    highest pixel near there, since at a border the filter sees one side only. The place is the mean under the map near the
    peak: that of the whole map would lie between two hills. Towards a border what is near is cut on both sides alike, or the
    mean would be drawn inwards. mass: of all that is near. Near is within REACH * sigma_px.
    """
    hills = cv2.GaussianBlur(share, (0, 0), REACH * sigma_px, borderType=cv2.BORDER_REFLECT)
    reach = int(np.ceil(REACH * sigma_px))
    rows, columns = around(np.unravel_index(int(hills.argmax()), share.shape), (reach, reach), share.shape)
    top = np.unravel_index(int(share[rows, columns].argmax()), share[rows, columns].shape)
    peak = (rows.start + int(top[0]), columns.start + int(top[1]))
    mass = float(share[around(peak, (reach, reach), share.shape)].sum(dtype=np.float64))
    rows, columns = around(peak, [min(reach, p, size - 1 - p) for p, size in zip(peak, share.shape)], share.shape)
    part = share[rows, columns].astype(np.float64)
    total = part.sum()
    if not total > 0:  # of a map that is not a number
        return (peak[1] + 0.5, peak[0] + 0.5), 0.0
    x, y = part.sum(axis=0) @ np.arange(columns.start, columns.stop), part.sum(axis=1) @ np.arange(rows.start, rows.stop)
    return (x / total + 0.5, y / total + 0.5), mass


def around(place: Sequence[int], reach: Sequence[int], shape: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns within `reach` of a pixel, as far as there are any."""
    rows, columns = (slice(int(max(0, p - r)), int(min(size, p + r + 1))) for p, r, size in zip(place, reach, shape))
    return rows, columns
