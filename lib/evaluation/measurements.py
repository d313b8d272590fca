"""Clinical read-outs of a segmentation: small functions by name, applied to prediction and truth alike.

In a study:

    measurements:
      visible_share: {kind: share, part: flair_visible, whole: stroke}

A measurement is called with the masks by class (bool (frames, rows, columns)) and the spacing (mm), and returns
{class: value}; NaN where it is not defined.
"""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from lib.study import InputError, build, one_of

Measurement = Callable[[dict[str, np.ndarray], Sequence[float]], dict[str, float]]


def share(part: str, whole: str, classes: Sequence[str]) -> Measurement:
    """Volume of `part` as a share (0..1) of the volume of `whole`; NaN where `whole` is empty."""
    one_of(part, classes, "measurements: part")
    one_of(whole, classes, "measurements: whole")

    def measure(masks, spacing_mm):
        total = np.count_nonzero(masks[whole])
        return {part: np.count_nonzero(masks[part]) / total if total else float("nan")}
    return measure


MEASUREMENTS = {
    "share": share,
}


def make_measurements(options: dict[str, dict], classes: Sequence[str]) -> list[tuple[str, Measurement]]:
    """(name, function) of each entry of `measurements:`. Raises InputError for an unknown kind, key or class."""
    made = []
    for name, keys in options.items():
        keys = dict(keys)
        kind = keys.pop("kind", None)
        if kind is None:
            raise InputError(f"measurements.{name}: missing key kind; known: {', '.join(MEASUREMENTS)}")
        one_of(kind, tuple(MEASUREMENTS), f"measurements.{name}.kind")
        made.append((name, build(MEASUREMENTS[kind], keys, f"measurements.{name}", classes=classes)))
    return made
