"""Scores of a detector that need the whole set: average precision by COCO's rules, F1 at the confidence, presence."""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from lib.evaluation.average_precision import RECALL_LEVELS, average_precision, counts_at, f1_curve, weighted_precision
from lib.evaluation.classification import Counts, mean_over_classes, rates, yes_or_no
from lib.evaluation.plots import DECISIONS, Curves
from lib.evaluation.statistics import ratio
from lib.tasks.base import ALL, Metrics

MEAN = {"ap@0.5": "map@0.5", "ap@[.5:.95]": "map@[.5:.95]", "ar@[.5:.95]": "mar@[.5:.95]"}
PRESENCE = ("roc_auc", "sensitivity", "specificity")


def lists_of(evidence: Sequence[dict], index: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """(truths (n, 4), boxes (m, 4), scores (m,)) of every image, for one class; a frame is an image."""
    rows = np.concatenate([one["truth"][:, index] for one in evidence])
    truths = [row[None, 1:] if row[0] else row[None, 1:][:0] for row in rows]
    boxes, scores = (np.concatenate([one[key][:, [index]] for one in evidence]) for key in ("boxes", "scores"))
    return truths, list(boxes), list(scores)


def images_of(evidence: Sequence[dict]) -> np.ndarray:
    """int (images,): the case that each image is of; a frame is an image."""
    return np.repeat(np.arange(len(evidence)), [len(one["truth"]) for one in evidence])


def set_metrics(classes: Sequence[str], evidence: Sequence[dict]) -> Metrics:
    """Weights (n, R) of n cases -> {(class, metric): (R,)}.

    A structure that no image has, has no AP, AR or recall (NaN), and is left out of their means. F1, precision, recall and
    the IoU of true positives are at each model's own confidence, a hit being a box with IoU of at least 0.5; over all
    structures (`all`) they are of the summed counts. Presence asks only whether a structure is there at all.
    """
    of_case, lists = images_of(evidence), [lists_of(evidence, index) for index in range(len(classes))]
    confidence = np.array([one["confidence"] for one in evidence])[of_case]
    precise = [weighted_precision(*of_class, of_case) for of_class in lists]
    counts = np.array([[np.bincount(of_case, values, len(evidence)) for values in counts_at(*of_class, confidence)]
                       for of_class in lists])  # (classes, 4, n)
    held = counts[:, [0, 2]].any(axis=(1, 2))
    presence = presence_metrics(classes, evidence, ("roc_auc",))

    def metrics(weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        rows: dict[tuple[str, str], np.ndarray] = {}
        totals = counts @ weights  # (classes, 4, R)
        for name, of_class, total in zip(classes, precise, totals):
            ap, recall = of_class(weights)
            rows |= {(name, "ap@0.5"): ap[0], (name, "ap@[.5:.95]"): ap.mean(axis=0), (name, "ar@[.5:.95]"): recall.mean(axis=0)}
            rows |= {(name, metric): values for metric, values in hit_rates(*total).items()}
        rows |= {(ALL, overall): mean_over_classes([rows[name, metric] for name in classes], held)
                 for metric, overall in MEAN.items()}
        rows |= {(ALL, metric): values for metric, values in hit_rates(*totals.sum(axis=0)).items()}
        return rows | presence(weights)

    return metrics


def hit_rates(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, overlap: np.ndarray) -> dict[str, np.ndarray]:
    """f1, precision, recall and the mean IoU of true positives, each (R,), of counts and the sum of that IoU."""
    found = rates(Counts(tp, fp, fn, np.zeros_like(tp)))
    return {**{metric: found[metric] for metric in ("f1", "precision", "recall")}, "iou_of_true_positives": ratio(overlap, tp)}


def set_facts(classes: Sequence[str], evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
    """How many images have each structure; of one model the confidence, which is part of its result."""
    confidences = {one["confidence"] for one in evidence}
    return presence_facts(classes, evidence) | ({(ALL, "confidence"): confidences.pop()} if len(confidences) == 1 else {})


def presence_metrics(classes: Sequence[str], evidence: Sequence[dict], averaged: Sequence[str],
                     counts_if: Callable = np.greater_equal) -> Metrics:
    """Weights (n, R) of n cases -> how well scores tell whether a structure is in an image, wherever it is: PRESENCE of each
    class, and of all those in `averaged`. evidence: scores (frames, classes), truth (frames, classes, 1 or more), whose first
    column says whether it is there, and the confidence; counts_if(score, confidence): whether it counts."""
    of_case = images_of(evidence)
    scores, there = (np.concatenate([one[key] for one in evidence]) for key in ("scores", "truth"))
    scores, there = scores.astype(np.float64), there[..., 0] > 0
    decided = counts_if(scores, np.array([one["confidence"] for one in evidence])[of_case, None])
    some, lacking = there.any(axis=0), ~there.all(axis=0)
    held = {"roc_auc": some & lacking, "sensitivity": some, "specificity": lacking}

    def metrics(weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        of_image = weights if len(of_case) == len(weights) else weights[of_case]
        found = [yes_or_no(*columns, of_image) for columns in zip(scores.T, decided.T, there.T)]
        rows = {(name, f"presence_{metric}"): values[metric] for name, values in zip(classes, found) for metric in PRESENCE}
        return rows | {(ALL, f"presence_{metric}"): mean_over_classes([values[metric] for values in found], held[metric])
                       for metric in averaged}

    return metrics


def presence_rankings(classes: Sequence[str],
                      evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, list[str]]]:
    """What each `presence_roc_auc` ranks: scores, whether the structure is there, patients; one of each image."""
    scores, there = (np.concatenate([one[key] for one in evidence]) for key in ("scores", "truth"))
    patients = [evidence[index]["patient"] for index in images_of(evidence)]
    return {(name, "presence_roc_auc"): (scores[:, index], there[:, index, 0] > 0, patients)
            for index, name in enumerate(classes)}


def presence_facts(classes: Sequence[str], evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
    """How many images have each structure."""
    there = sum((one["truth"][..., 0] > 0).sum(axis=0) for one in evidence)
    return {(name, "images_with_it"): float(count) for name, count in zip(classes, there)}


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
    return [Curves("precision_recall", "Precision and recall at IoU 0.5", "recall", "precision", precisions, section=DECISIONS,
                   caption="Precision against recall at every threshold."),
            Curves("f1_confidence", "F1 at IoU 0.5", "confidence", "F1", f1, step=True, section=DECISIONS,
                   caption="F1 if only answers at least so sure counted.")]
