"""A case as it is stored: normalised, fitted to the study's grid, and recognised by its content."""

from __future__ import annotations

import hashlib

import numpy as np

from lib.data.case import Case, CaseError
from lib.imaging.geometry import Fit
from lib.imaging.intensity import zscore, zscore_parameters
from lib.study import Study


def to_grid(case: Case, fit: Fit, study: Study, out: np.ndarray) -> None:
    """Write a case as it is stored, normalised and fitted, into `out` (frames, channels, rows, columns). Raises CaseError for
    one without any contrast."""
    data = study.data
    middle = case.frames[:, case.frames.shape[1] // 2]
    if middle.min() == middle.max() and case.frames.min() == case.frames.max():  # all are looked at only if one is flat
        raise CaseError(case.header.case, "", f"all its pixels are {case.frames.flat[0]:g}: there is nothing to see; --skip-bad "
                                              "leaves it out")
    for index, native in enumerate(case.frames):
        air = 0.0
        if data.intensity == "zscore":
            native = native.astype(np.float32, copy=False)
            try:
                mean, deviation = zscore_parameters(native, case.foreground)
            except ValueError as error:
                raise CaseError(case.header.case, "", f"channel {index + 1}: {error}"
                                f"{'' if case.foreground is None else ' inside the brain mask'}, so there is no z-score; "
                                "--skip-bad leaves it out") from None
            native = zscore(native, mean, deviation, data.clip)
            air = float(zscore(0.0, mean, deviation, data.clip))  # the margin gets what air has, not the brain's mean
        grid = fit.fit(native, outside=air)
        rounded = data.store == "uint8" and grid.dtype != np.uint8
        out[:, index] = np.clip(np.rint(grid), 0, 255) if rounded else grid


def content_hash(case: Case) -> str:
    """Of the decoded voxels: the same scan under another name or compression has the same hash."""
    return hashlib.blake2b(case.frames, digest_size=16).hexdigest()
