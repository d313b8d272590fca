"""Scores of a segmentation: rows of one case, and those that need the whole set."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from lib.evaluation.classification import yes_or_no
from lib.evaluation.metrics import hd95, overlap, surface_distances
from lib.evaluation.statistics import mean_of_defined, numbered
from lib.evaluation.tolerance import DILATED, ERODED, ORIGINAL, surface_dice, tolerant_overlap
from lib.imaging.geometry import Geometry
from lib.tasks.base import ALL, Metrics

TRUTHS = {ERODED: -1.0, ORIGINAL: 0.0, DILATED: 1.0}  # how a row says which truth was scored with a tolerance


def score_case(masks: dict[str, np.ndarray], truths: dict[str, np.ndarray], geometry: Geometry, distances: bool,
               tolerance: float) -> dict[tuple[str, str], float]:
    """{(class, metric): value}; masks, truths: class -> bool (frames, rows, columns). Overlaps, distances and those
    with a tolerance (whose truth is chosen for each class of the case) have a mean over classes too; `distances` False leaves
    out what is slow."""
    rows: dict[tuple[str, str], float] = {}
    averaged: set[str] = set()
    for name, mask in masks.items():
        true = truths[name]
        scores = overlap(mask, true)
        if distances:
            scores |= distance_scores(mask, true, geometry, tolerance)
        averaged |= set(scores)
        rows |= {(name, metric): value for metric, value in scores.items()}
        if distances and tolerance:
            tolerant, chosen = tolerant_overlap(mask, true, geometry.spacing, tolerance)
            rows |= {(name, f"{metric}_tolerant"): value for metric, value in tolerant.items()}
            rows[name, "tolerance_truth"] = TRUTHS[chosen]
            averaged |= {f"{metric}_tolerant" for metric in tolerant}
        rows[name, geometry.size_metric] = geometry.size_of(mask)
        rows[name, f"{geometry.size_metric}_true"] = geometry.size_of(true)
        rows[name, f"false_positive_{geometry.size_unit}"] = geometry.size_of(mask & ~true)
    for metric in [m for (name, m) in rows if name == next(iter(masks)) and m in averaged]:
        rows[ALL, metric] = mean_of_defined([rows[name, metric] for name in masks])
    return rows


def distance_scores(mask: np.ndarray, true: np.ndarray, geometry: Geometry, tolerance: float) -> dict[str, float]:
    """Hausdorff distance, and with a tolerance the Normalised Surface Dice, from one search of distances."""
    there, back = surface_distances(mask, true, geometry.spacing)
    scores = {f"hd95_{geometry.unit}": hd95(there, back)}
    if tolerance:
        scores["nsd"] = surface_dice(there, back, tolerance)
    return scores


def presence_metrics(classes: Sequence[str], judged: Sequence[str], evidence: Sequence[dict]) -> Metrics:
    """Weights (n, R) of n cases -> how well the size of each class in `judged` tells its presence in a patient: ROC AUC, kappa,
    sensitivity, specificity, accuracy. A patient counts as often as his or her first case does: in a draw of patients, all of a
    patient's cases count alike."""
    first, sizes = np.unique(numbered([one["patient"] for one in evidence]), return_index=True)[1], {}
    for name in judged:
        patients = largest_by_patient(evidence, classes.index(name))
        sizes[name] = (np.array([p for p, _, _ in patients]), np.array([p > e["presence"][name] for p, _, e in patients]),
                       np.array([true > 0 for _, true, _ in patients]))

    def metrics(weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        return {(name, f"presence_{metric}"): values for name, columns in sizes.items()
                for metric, values in yes_or_no(*columns, weights[first]).items()}

    return metrics


def presence_rankings(classes: Sequence[str], judged: Sequence[str],
                      evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, list[str]]]:
    """What each `presence_roc_auc` ranks: the size that each patient has of it by the model, whether there is any, patients."""
    patients = list(dict.fromkeys(one["patient"] for one in evidence))
    found = {name: largest_by_patient(evidence, classes.index(name)) for name in judged}
    return {(name, "presence_roc_auc"): (np.array([p for p, _, _ in ones]), np.array([true > 0 for _, true, _ in ones]), patients)
            for name, ones in found.items()}


def set_facts(classes: Sequence[str], judged: Sequence[str], evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
    """Cases, and those with an empty truth; of the classes in `judged` the patients, those who have it, and of one model the
    size from which it counts as present."""
    rows: dict[tuple[str, str], float] = {}
    for index, name in enumerate(classes):
        rows[name, "cases"] = float(len(evidence))
        rows[name, "empty_truth_cases"] = float(sum(one["true"][index] == 0 for one in evidence))
    for name in judged:
        patients = largest_by_patient(evidence, classes.index(name))
        rows[name, "presence_n"] = float(len(patients))
        rows[name, "presence_positives"] = float(sum(true > 0 for _, true, _ in patients))
        used = {(one["presence"][name], one["unit"]) for one in evidence}
        if len(used) == 1:  # one model: the threshold is part of its result
            threshold, unit = used.pop()
            rows[name, f"presence_threshold_{unit}"] = threshold
    return rows


def largest_by_patient(evidence: Sequence[dict], index: int) -> list[tuple[float, float, dict]]:
    """Per patient the largest predicted and the largest true size of class `index` over his or her cases, and one
    piece of evidence: presence is judged of a patient, not of a scan."""
    patients: dict[str, list[dict]] = {}
    for one in evidence:
        patients.setdefault(one["patient"], []).append(one)
    return [(max(e["predicted"][index] for e in ones), max(e["true"][index] for e in ones), ones[0])
            for ones in patients.values()]


def worksheet_row(scores: dict[tuple[str, str], float], classes: Sequence[str]) -> dict[str, float | str]:
    """Scores by the titles that a worksheet's reader expects: overall ones first, then Dice per class, then the rest."""
    def overall(metric: str) -> float:
        return scores.get((ALL, metric), float("nan"))

    row = {"Dice": overall("dice"), "IoU": overall("iou"), "accuracy": overall("accuracy"),
           "precision": overall("precision"), "sensitivity": overall("recall"), "specificity": overall("specificity"),
           "FPR": 1 - overall("specificity"), "FNR": 1 - overall("recall")}
    row |= {f"Dice {name}": scores.get((name, "dice"), float("nan")) for name in classes}
    if (ALL, "dice_tolerant") in scores:
        row |= {"Dice, with tolerance": overall("dice_tolerant"), "IoU, with tolerance": overall("iou_tolerant")}
    names = {value: text for text, value in TRUTHS.items()}
    for name in classes:
        if (name, "dice_tolerant") in scores:
            row[f"Dice {name}, with tolerance"] = scores[name, "dice_tolerant"]
            row[f"truth used, {name}"] = names[scores[name, "tolerance_truth"]]
    for (name, metric), value in scores.items():
        if not _overlap_metric(metric):
            row[f"{metric} {name}"] = value
    return row


def _overlap_metric(metric: str) -> bool:
    return metric.removesuffix("_tolerant") in ("dice", "iou", "accuracy", "precision", "recall", "specificity",
                                                "tolerance_truth")
