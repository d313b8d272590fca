"""Batches of windows: index arithmetic on the flat stack of frames, read ahead by one background thread."""

from __future__ import annotations

import queue
import threading
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


def gather(frames: np.ndarray, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """frames (N, C, H, W) at index (B, T) -> (B, T, C, H, W), copied into `out` when given."""
    # mode="clip" lets NumPy write straight into `out`; the index is in range already
    return np.take(frames, index, axis=0, out=out, mode="clip")


def epoch_order(count: int, seed: tuple[int, ...]) -> np.ndarray:
    """A permutation of the samples that depends on nothing but the seed, so that a resumed epoch repeats it."""
    return np.random.default_rng(seed).permutation(count)


def balanced_order(present: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """As many samples as `present` (bool (S,)) has, half of them from each side; a side runs out and starts again.

    Falls back to every sample once if one side is empty.
    """
    random = np.random.default_rng(seed)
    sides = [np.flatnonzero(present), np.flatnonzero(~present)]
    if not all(map(len, sides)):
        return epoch_order(len(present), seed)
    halves = [len(present) // 2, len(present) - len(present) // 2]
    drawn = [np.concatenate([random.permutation(side) for _ in range(-(-half // len(side)))])[:half]
             for side, half in zip(sides, halves)]
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
