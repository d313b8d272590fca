"""Scores of a classifier: of one case, and of a whole set; rows of predictions, and the wrong ones."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from lib.evaluation.classification import (areas, balanced_accuracy, calibration_error, confusion_matrix, counts_of, kappa,
                                           mean_over_classes, rates)
from lib.tasks.base import ALL, Metrics

PER_CLASS = ("precision", "recall", "f1", "specificity", "roc_auc", "pr_auc")  # metrics of one class against the others
LEAST = float(np.finfo(np.float32).tiny)  # probability of the truth, so that its logarithm is finite


def case_scores(classes: Sequence[str], probabilities: np.ndarray, predicted: int, truth: int) -> dict:
    """{(class, metric): value} of one case.

    accuracy: whether it is right, 0 or 1. truth_probability: of the true class, under `all` and under that class. log_loss:
    its negative natural logarithm. brier: of two classes the squared error of the probability of the second; of more the
    sum of those of all classes (Brier, Monthly Weather Review 78:1-3, 1950).
    """
    right = np.arange(len(classes)) == truth
    errors = np.square(probabilities.astype(np.float64) - right)
    of_truth = float(probabilities[truth])
    return {(ALL, "accuracy"): float(predicted == truth), (ALL, "truth_probability"): of_truth,
            (classes[truth], "truth_probability"): of_truth,
            (ALL, "brier"): float(errors[1] if len(classes) == 2 else errors.sum()),
            (ALL, "log_loss"): float(-np.log(max(of_truth, LEAST)))}


def columns(evidence: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(truth (n,), predicted (n,), probabilities float64 (n, K)) of cases."""
    truth, predicted = (np.array([one[key] for one in evidence], np.int64) for key in ("truth", "predicted"))
    return truth, predicted, np.array([one["probabilities"] for one in evidence], np.float64)


def set_metrics(classes: Sequence[str], evidence: Sequence[dict]) -> Metrics:
    """Weights (n, R) of n cases -> {(class, metric): (R,)}; see lib/evaluation/classification.py for what is undefined.

    Two classes: PER_CLASS of the second class, the positive one, under `all`, and how well its probability is calibrated.
    More: PER_CLASS of each class against the others, and under `all` their mean over the classes where they are defined;
    calibration is that of the most likely class. balanced_accuracy and kappa (Cohen's) are of all classes at once. Means over
    classes are undefined in draws without any case of a class that the set has: they would be of other classes.
    """
    truth, predicted, probabilities = columns(evidence)
    held, several = np.unique(truth), len(classes) > 2
    judged = {name: index for index, name in enumerate(classes) if several or index == 1}
    likeliest = probabilities.argmax(axis=1) if several else np.ones_like(truth)
    confident = probabilities[np.arange(len(truth)), likeliest]

    def metrics(weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        confusion = confusion_matrix(truth, predicted, len(classes), weights)
        lacking = (confusion[held].sum(axis=1) == 0).any(axis=0)
        of_class = {}
        for name, index in judged.items():
            roc, mean_precision = areas(probabilities[:, index], truth == index, weights)
            of_class[name] = rates(counts_of(confusion, index)) | {"roc_auc": roc, "pr_auc": mean_precision}
        rows = {(ALL, "balanced_accuracy"): np.where(lacking, np.nan, balanced_accuracy(confusion)),
                (ALL, "kappa"): kappa(confusion)}
        for metric in PER_CLASS:
            mean = mean_over_classes([values[metric] for values in of_class.values()])
            rows[ALL, metric] = np.where(lacking, np.nan, mean) if several else mean
        rows[ALL, "calibration_error"] = calibration_error(confident, likeliest == truth, weights)
        return rows | {(name, metric): values[metric] for name, values in of_class.items() for metric in PER_CLASS if several}

    return metrics


def rankings(classes: Sequence[str], evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, list[str]]]:
    """What each `roc_auc` ranks: scores, positives, patients."""
    truth, _, probabilities = columns(evidence)
    patients = [one["patient"] for one in evidence]
    judged = {ALL: 1} if len(classes) == 2 else {name: index for index, name in enumerate(classes)}
    return {(name, "roc_auc"): (probabilities[:, index], truth == index, patients) for name, index in judged.items()}


def set_facts(classes: Sequence[str], evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
    """The threshold, of two classes and one model: it is part of that model's result."""
    thresholds = {one["threshold"] for one in evidence}
    return {(ALL, "threshold"): thresholds.pop()} if len(classes) == 2 and len(thresholds) == 1 else {}


def prediction_row(classes: Sequence[str], prediction, truth: int | None) -> dict:
    """Row of predictions.csv: truth (empty if unknown), predicted, of two classes the threshold, the probabilities."""
    row = {"truth": "" if truth is None else classes[truth], "predicted": classes[prediction.predicted]}
    if prediction.threshold is not None:
        row["threshold"] = prediction.threshold
    return row | {f"p_{name}": float(value) for name, value in zip(classes, prediction.probabilities)}


def wrong_rows(classes: Sequence[str], records: Sequence[dict]) -> list[dict] | None:
    """Of rows of predictions.csv those with another truth, the surest first: with `kind`, of two classes false_positives or
    false_negatives, of more <truth>_as_<predicted>, and `confidence`, the probability of the predicted class; of two classes
    how far that is on its side of the threshold, 0..1, because a decision at 0.35 is no doubt where 0.3 is the threshold.
    None if no row has a truth."""
    if not any(row["truth"] for row in records):
        return None
    wrong = []
    for row in records:
        truth, predicted = row["truth"], row["predicted"]
        if truth and truth != predicted:
            kind = f"{truth}_as_{predicted}"
            confidence = row[f"p_{predicted}"]
            if len(classes) == 2:
                kind = "false_positives" if predicted == classes[1] else "false_negatives"
                least = row["threshold"] if predicted == classes[1] else 1 - row["threshold"]
                confidence = (confidence - least) / (1 - least) if least < 1 else 1.0
            wrong.append({**row, "kind": kind, "confidence": confidence})
    return sorted(wrong, key=lambda row: -row["confidence"])
