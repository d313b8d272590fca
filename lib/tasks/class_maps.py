"""Class-activation maps of the windows of a series, spread over its frames."""

from __future__ import annotations

import numpy as np

from lib.data.batches import even_frames, window_offsets
from lib.study import Window


def spread_maps(maps: np.ndarray, frames: int, window: Window) -> np.ndarray:
    """float32 (classes, frames, h, w): the maps of each frame of a series.

    maps: (W, classes, t, h, w) of the clips, or (W, classes, h, w) of the images (which hold for all frames of their
    window), that a network saw of the evenly spread windows of the series. A clip's t maps lie evenly over its frames and
    are linear in between, also over the frames that a stride leaves out; where windows overlap the mean counts, and a frame
    that no window covers has the maps of the nearest one. Raises ValueError for another number of windows.
    """
    centres = even_frames(0, frames, window)
    maps = maps[:, :, None] if maps.ndim == 4 else maps
    if len(maps) != len(centres):
        raise ValueError(f"maps of {len(maps)} windows, but a series of {frames} frames has {len(centres)}")
    shares = [window_shares(centre, frames, window, maps.shape[2]) for centre in centres]
    covered = sum((share.sum(axis=1) > 0).astype(np.float64) for share in shares)
    known = np.flatnonzero(covered)
    nearest = known[np.abs(np.arange(frames)[:, None] - known).argmin(axis=1)]  # of equally near ones the earlier
    weights = (np.concatenate(shares, axis=1) / np.maximum(covered, 1)[:, None])[nearest].astype(np.float32)
    of_window = np.moveaxis(maps, 2, 1)  # (W, t, classes, h, w)
    spread = weights @ of_window.reshape(weights.shape[1], -1).astype(np.float32, copy=False)
    return np.moveaxis(spread.reshape(frames, *of_window.shape[2:]), 1, 0)


def window_shares(centre: int, frames: int, window: Window, maps: int) -> np.ndarray:
    """float64 (frames, maps): how much each map of a window counts for each frame of the series; rows of frames outside of
    the window are 0, the others add up to 1."""
    seen = np.clip(centre + window_offsets(window), 0, frames - 1)
    middles = (np.arange(maps) + 0.5) * len(seen) / maps - 0.5  # of the maps, in frames of the window
    of_seen = linear(np.arange(len(seen)), middles)
    distinct, which = np.unique(seen, return_inverse=True)  # a clamped window sees its first and last frame several times
    of_distinct = np.stack([of_seen[which == index].mean(axis=0) for index in range(len(distinct))])
    shares = np.zeros((frames, maps))
    inside = slice(distinct[0], distinct[-1] + 1)
    shares[inside] = linear(np.arange(distinct[0], distinct[-1] + 1), distinct) @ of_distinct
    return shares


def linear(places: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(places, known): the shares of values at `known` places, rising, in a linear interpolation; held beyond the ends."""
    return np.stack([np.interp(places, known, one) for one in np.eye(len(known))], axis=1)
