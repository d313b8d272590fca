"""Batches of windows: index arithmetic on the flat stack of frames, read ahead by one background thread."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from typing import Callable, Iterable, Iterator

import numpy as np

from lib.data.store import Samples
from lib.study import Window


def window_offsets(window: Window) -> np.ndarray:
    """Frame offsets of a window around its centre: 7 frames at stride 1 -> -3..3."""
    return (np.arange(window.frames) - window.frames // 2) * window.stride


def window_index(samples: Samples, window: Window) -> np.ndarray:
    """(S, T) rows of frames.npy; a window is clamped to its own series, so it never reaches another patient."""
    index = samples.frame[:, None] + window_offsets(window)
    return np.clip(index, samples.start[:, None], samples.stop[:, None] - 1)


def even_frames(start: int, stop: int, window: Window) -> np.ndarray:
    """int64 (W,): centres of `window.test_windows` windows spread evenly over the series, from the first that fits to the
    last; of a series that is no longer than a window, one."""
    spare = max(0, stop - start - window.span)
    shifts = np.linspace(0, spare, window.test_windows) if window.test_windows > 1 else np.array([spare / 2])
    return start + np.unique(np.rint(shifts).astype(np.int64)) - window_offsets(window)[0]


def spread_windows(samples: Samples, window: Window) -> Samples:
    """Whole series as their evenly spread windows, one sample each; samples of single frames as they are."""
    if not samples.whole:
        return samples
    centres = [even_frames(start, stop, window) for start, stop in zip(samples.start, samples.stop)]
    spread = samples.take(np.repeat(np.arange(len(samples)), [len(of_one) for of_one in centres]))
    return replace(spread, frame=np.concatenate([*centres, np.empty(0, np.int64)]))


def random_windows(samples: Samples, window: Window, seed: tuple[int, ...]) -> Samples:
    """Whole series, each with a window drawn from all that fit; samples of single frames as they are."""
    if not samples.whole:
        return samples
    spare = np.maximum(0, samples.stop - samples.start - window.span)
    shifts = np.random.default_rng(seed).integers(0, spare + 1)
    return replace(samples, frame=samples.start + shifts - window_offsets(window)[0])


def gather(frames: np.ndarray, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """frames (N, C, H, W) at index (B, T) -> (B, T, C, H, W), copied into `out` when given."""
    # mode="clip" lets NumPy write straight into `out`; the index is in range already
    return np.take(frames, index, axis=0, out=out, mode="clip")


def epoch_order(count: int, seed: tuple[int, ...]) -> np.ndarray:
    """A permutation of the samples that depends on nothing but the seed, so that a resumed epoch repeats it."""
    return np.random.default_rng(seed).permutation(count)


def balanced_order(groups: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """As many samples as `groups` (bool or int (S,)) has, equally many of each value; a group runs out and starts again.

    Every sample once if there is but one group.
    """
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == value) for value in np.unique(groups)[::-1]]
    if len(members) < 2:
        return epoch_order(len(groups), seed)
    cuts = len(groups) * np.arange(len(members) + 1) // len(members)
    drawn = [np.concatenate([random.permutation(group) for _ in range(-(-share // len(group)))])[:share]
             for group, share in zip(members, np.diff(cuts)) if share]
    return random.permutation(np.concatenate(drawn))


def batches(samples: Samples, order: np.ndarray, batch_size: int) -> Iterator[Samples]:
    for first in range(0, len(order), batch_size):
        yield samples.take(order[first:first + batch_size])


def training_batches(samples: Samples, order: np.ndarray, batch_size: int) -> Iterator[Samples]:
    """As `batches`, but no batch of one where it can be helped: batch normalisation of a 1 x 1 map needs two."""
    cuts = list(range(batch_size, len(order), batch_size))
    if len(order) % batch_size == 1 and batch_size > 2 and cuts:
        cuts[-1] -= 1
    for part in np.split(order, cuts):
        yield samples.take(part)


def read_ahead(items: Iterable, load: Callable, depth: int = 1) -> Iterator:
    """`load(item)` for each item in order, computed `depth` items ahead in a thread. An exception is passed on."""
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if stopped.is_set():
                    return
                _put(ready, (load(item), None), stopped)
            _put(ready, None, stopped)
        except BaseException as error:  # handed to the consumer: a worker must not die in silence
            _put(ready, (None, error), stopped)

    thread = threading.Thread(target=work, name="read_ahead", daemon=True)
    thread.start()
    try:
        while (loaded := ready.get()) is not None:
            value, error = loaded
            if error is not None:
                raise error
            yield value
    finally:
        stopped.set()
        thread.join()


def _put(ready: queue.Queue, item, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue
