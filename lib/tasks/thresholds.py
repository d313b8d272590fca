"""Choose probability thresholds by the Dice that they give on validation."""

from __future__ import annotations

import numpy as np

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))


def best_thresholds(dice: np.ndarray) -> list[float]:
    """Threshold per class: the nearest to 0.5 whose Dice is within one standard error of the best mean Dice.

    dice: (cases, thresholds, classes), NaN for cases whose truth lacks the class; a class that no case has keeps
    0.5. The error is that of the paired difference over cases, so that a handful of validation cases does not
    push a threshold to an extreme (the one-standard-error rule of Breiman et al. 1984, chapter 3).
    """
    return [best_threshold(table[~np.isnan(table).any(axis=1)]) for table in np.moveaxis(dice, 2, 0)]


def best_threshold(dice: np.ndarray) -> float:
    """The rule for one class: dice (cases, thresholds) without NaN."""
    if not len(dice):
        return 0.5
    best = dice.mean(axis=0).argmax()
    behind = dice[:, [best]] - dice
    error = behind.std(axis=0, ddof=1) / np.sqrt(len(dice)) if len(dice) > 1 else np.zeros(len(THRESHOLDS))
    as_good = np.flatnonzero(behind.mean(axis=0) <= error + 1e-6)
    return THRESHOLDS[min(as_good, key=lambda row: abs(THRESHOLDS[row] - 0.5))]
