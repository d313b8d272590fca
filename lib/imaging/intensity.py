"""Bring intensities of one case to a common scale."""

from __future__ import annotations

import numpy as np


def zscore_parameters(frames: np.ndarray, inside: np.ndarray | None) -> tuple[float, float]:
    """Mean and standard deviation of `frames` (float32) where `inside` (bool, same shape), or everywhere.

    Raises ValueError if the voxels are constant.
    """
    values = frames if inside is None else frames[inside]
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if not deviation > 0:
        raise ValueError("every voxel has the same value")
    return mean, deviation


def zscore(values: np.ndarray | float, mean: float, deviation: float, clip: float) -> np.ndarray:
    """(values - mean) / deviation, clipped to +-clip."""
    return np.clip((values - np.float32(mean)) / np.float32(deviation), -clip, clip)
