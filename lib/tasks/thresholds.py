"""Thresholds from validation: of probability by the Dice that they give, of size for presence by Youden's index."""

from __future__ import annotations

from typing import Callable, Iterable

import numpy as np

from lib.evaluation.metrics import overlap
from lib.evaluation.statistics import youden_threshold
from lib.tasks.scoring import largest_by_patient

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


def calibrate(task, cases: Callable[[], Iterable[tuple]]) -> dict:
    """See Segmentation.calibrate."""
    # exclusive classes have no thresholds: the most probable class wins
    dice = [() if task.exclusive else dice_by_threshold(task, prediction, truth) for prediction, truth, _ in cases()]
    if not dice:
        return {}
    chosen = {} if task.exclusive else dict(zip(task.classes, best_thresholds(np.array(dice))))
    task = task.with_calibration({"threshold": chosen})
    evidence = []
    for prediction, truth, case in cases() if task.presence else ():
        evidence.append(task.evidence(task.cut(prediction.probabilities), truth, case))
    presence = {}
    for name in task.presence:
        patients = largest_by_patient(evidence, task.classes.index(name))
        presence[name] = youden_threshold([p for p, _, _ in patients], [true > 0 for _, true, _ in patients],
                                          task.presence_default)
    return {"threshold": chosen, "presence": presence, "cases": len(dice)}


def dice_by_threshold(task, prediction, truth: np.ndarray) -> np.ndarray:
    """Dice (thresholds, classes) of one case, the parent of each class held at 0.5; NaN where truth is empty."""
    base = task.masks(prediction.probabilities, [0.5] * len(task.classes))
    table = np.full((len(THRESHOLDS), len(task.classes)), np.nan)
    for index, parent in enumerate(task.parents):
        for row, threshold in enumerate(THRESHOLDS if truth[index].any() else ()):
            mask = task.shaped(task.classes[index], prediction.probabilities[index] > threshold)
            table[row, index] = overlap(mask & base[parent] if parent >= 0 else mask, truth[index])["dice"]
    return table
