"""Write a prediction in the format that its case was read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.imaging import nifti, photographs


def write_prediction(folder: Path, name: str, volume: np.ndarray, source: dict) -> None:
    """`volume` as the task gives it: uint8 label map (frames, rows, columns), or 0/1 with regions on a last axis."""
    folder.mkdir(parents=True, exist_ok=True)
    if source.get("format") == "image":
        photographs.write_prediction(folder, name, volume, source)
    else:
        nifti.write_like(folder / f"{name}.nii.gz", volume, source)


def write_shares(folder: Path, name: str, shares: np.ndarray, source: dict) -> None:
    """How many models agree: float32 (frames, rows, columns, regions), 0..1."""
    folder.mkdir(parents=True, exist_ok=True)
    if source.get("format") == "image":
        photographs.write_shares(folder, name, shares, source)
    else:
        nifti.write_like(folder / f"{name}.nii.gz", shares, source)
