"""Write a prediction in the format that its case was read from."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np

from lib.imaging import nifti, photographs


def write_prediction(folder: Path, name: str, volume: np.ndarray, source: dict) -> None:
    """`volume` as the task gives it: uint8 label map (frames, rows, columns), or 0/1 with regions on a last axis."""
    _write(photographs.write_prediction, folder, name, volume, source)


def write_shares(folder: Path, name: str, shares: np.ndarray, source: dict) -> None:
    """How many models agree: float32 (frames, rows, columns, regions), 0..1."""
    _write(photographs.write_shares, folder, name, shares, source)


def is_photograph(source: dict) -> bool:
    return source.get("format") == "image"


def is_volume(source: dict) -> bool:
    return source.get("format") not in ("image", "video")


def _write(as_photograph: Callable, folder: Path, name: str, values: np.ndarray, source: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if is_photograph(source):
        as_photograph(folder, name, values, source)
    else:
        nifti.write_like(folder / f"{name}.nii.gz", values, source)
