"""Scores of a detector that need the whole set: average precision by COCO's rules, F1 at the confidence, presence."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from lib.evaluation.average_precision import RECALL_LEVELS, average_precision, counts_at, f1_curve
from lib.evaluation.plots import Curves
from lib.evaluation.statistics import binary_agreement, mean_of_defined
from lib.tasks.base import ALL

MEAN = {"ap@0.5": "map@0.5", "ap@[.5:.95]": "map@[.5:.95]", "ar@[.5:.95]": "mar@[.5:.95]"}


def lists_of(evidence: Sequence[dict], index: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """(truths (n, 4), boxes (m, 4), scores (m,)) of every image, for one class; a frame is an image."""
    truths, boxes, scores = [], [], []
    for one in evidence:
        for frame in range(len(one["truth"])):
            there, *box = one["truth"][frame, index]
            truths.append(np.array([box] if there else np.empty((0, 4))))
            boxes.append(one["boxes"][frame, [index]])
            scores.append(one["scores"][frame, [index]])
    return truths, boxes, scores


def set_scores(classes: Sequence[str], evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
    """{(class, metric): value}.

    A structure that no image has, has no AP, AR or recall (NaN), and is left out of their means. F1, precision, recall and
    the IoU of true positives are at each model's own confidence, a hit being a box with IoU of at least 0.5; over all
    structures (`all`) they are of the summed counts. Presence asks only whether a structure is there at all.
    """
    rows: dict[tuple[str, str], float] = {}
    every = np.zeros(3)
    overlaps: list[np.ndarray] = []
    for index, name in enumerate(classes):
        lists = lists_of(evidence, index)
        found = average_precision(*lists)
        rows[name, "ap@0.5"], rows[name, "ap@[.5:.95]"] = float(found.ap[0]), float(found.ap.mean())
        rows[name, "ar@[.5:.95]"] = float(found.recall.mean())
        counts, hits = counts_by_confidence(evidence, lists)
        rows |= {(name, metric): value for metric, value in rates(*counts).items()}
        rows[name, "iou_of_true_positives"] = mean_of_defined(hits)
        every, overlaps = every + counts, [*overlaps, hits]
        rows |= {(name, metric): value for metric, value in presence(evidence, index).items()}
    for metric, overall in MEAN.items():
        rows[ALL, overall] = mean_of_defined([rows[name, metric] for name in classes])
    rows |= {(ALL, metric): value for metric, value in rates(*every).items()}
    rows[ALL, "iou_of_true_positives"] = mean_of_defined(np.concatenate(overlaps))
    rows[ALL, "presence_roc_auc"] = mean_of_defined([rows[name, "presence_roc_auc"] for name in classes])
    confidences = {one["confidence"] for one in evidence}
    if len(confidences) == 1:  # one model: the confidence is part of its result
        rows[ALL, "confidence"] = confidences.pop()
    return rows


def counts_by_confidence(evidence: Sequence[dict], lists: tuple) -> tuple[np.ndarray, np.ndarray]:
    """(true positives, false positives, false negatives), each image judged at its model's confidence, and the IoU of
    the true positives."""
    of = np.concatenate([np.full(len(one["truth"]), one["confidence"]) for one in evidence])
    total, hits = np.zeros(3), []
    for confidence in np.unique(of):
        mine = np.flatnonzero(of == confidence)
        *counts, overlaps = counts_at(*([values[i] for i in mine] for values in lists), confidence)
        total, hits = total + counts, [*hits, overlaps]
    return total, np.concatenate(hits)


def rates(tp: float, fp: float, fn: float) -> dict[str, float]:
    """NaN where there is nothing to count."""
    return {"f1": ratio(2 * tp, 2 * tp + fp + fn), "precision": ratio(tp, tp + fp), "recall": ratio(tp, tp + fn)}


def ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def presence(evidence: Sequence[dict], index: int) -> dict[str, float]:
    """How well scores tell whether the structure is in an image, wherever it is, and how many images have it."""
    scores = np.concatenate([one["scores"][:, index] for one in evidence])
    there = np.concatenate([one["truth"][:, index, 0] > 0 for one in evidence])
    decided = np.concatenate([one["scores"][:, index].astype(np.float64) >= one["confidence"] for one in evidence])
    agreement = binary_agreement(scores, decided, there)
    return {"presence_roc_auc": agreement["roc_auc"], "presence_sensitivity": agreement["sensitivity"],
            "presence_specificity": agreement["specificity"], "images_with_it": float(there.sum())}


def precision_recall(task, evidence: Sequence[dict]) -> list[Curves]:
    """Precision against recall at IoU 0.5 (COCO's interpolation), and F1 against confidence, a line per structure."""
    precisions, f1 = {}, {}
    for index, name in enumerate(task.classes):
        lists = lists_of(evidence, index)
        shown = task.shown(name)
        found = average_precision(*lists)
        if not np.isnan(found.ap[0]):
            precisions[f"{shown}, AP {found.ap[0]:.2f}"] = (RECALL_LEVELS, found.precision[0])
        curve = f1_curve(*lists)
        if len(curve.confidences):  # each F1 holds down to the next lower score, the last one down to 0
            f1[shown] = (np.concatenate([[0], curve.confidences[::-1], [1]]),
                         np.concatenate([curve.f1[-1:], curve.f1[::-1], [0]]))
    return [Curves("precision_recall", "Precision and recall at IoU 0.5", "recall", "precision", precisions),
            Curves("f1_confidence", "F1 at IoU 0.5", "confidence", "F1", f1, step=True)]
