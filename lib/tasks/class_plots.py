"""Plots and tables of a classifier: ROC, precision and recall, reliability, confusion; and of the classes of a data set."""

from __future__ import annotations

from typing import Callable, Iterator, Sequence

import numpy as np

from lib.evaluation.classification import (calibration_error, confusion_matrix, pr_auc, precision_recall_curve,
                                           reliability_curve)
from lib.evaluation.plots import DECISIONS, Bars, Counts, Curves, Line, Matrix
from lib.tasks.class_scores import columns


def set_plots(task, evidence: Sequence[dict]) -> list:
    """Precision and recall, confusion, reliability: of two classes a line for all cases and one per fold, of the positive class;
    of more a line per class. Reliability has none per fold, whose bins hold a handful of cases, but one of the most likely of
    several classes."""
    shown = tuple(task.shown(name) for name in task.classes)
    lines = task.ranked(evidence)
    of = f" of {shown[1]}" if len(shown) == 2 else ""
    precisions = curves(lines, precision_recall_curve, lambda *line: f"AP {pr_auc(*line):.2f}")
    if len(shown) == 2:
        share = float(lines[0][2].mean())
        precisions[f"by chance, AP {share:.2f}"] = (np.array([0.0, 1.0]), np.array([share, share]))
    return [Curves("precision_recall", f"Precision and recall{of}", "recall", "precision", precisions, step=True,
                   section=DECISIONS, caption="Precision against recall at every threshold."),
            Matrix("confusion_matrix", "Confusion", "predicted", "truth", shown, shown, pooled_confusion(task, evidence),
                   section=DECISIONS, caption="Rows are the truth, columns the prediction; the diagonal is right."),
            Curves("reliability", f"Reliability{of}", "predicted probability", "observed share",
                   curves([*lines, *likeliest(evidence)] if len(shown) > 2 else lines[:1], reliability_curve,
                          lambda *line: f"error {calibration_error(*line):.2f}"), diagonal=True, section=DECISIONS,
                   caption="How often stated probabilities come true; on the diagonal they say what happens.")]


def by_fold(task, evidence: Sequence[dict]) -> Iterator[Line]:
    """Of two classes the lines of the figures: all cases, and of several folds each that has cases of both."""
    (scores, positive, _), = task.rankings(evidence).values()
    folds = np.array([str(one.get("fold", "")) for one in evidence])
    names = sorted(set(folds), key=lambda fold: (len(fold), fold))
    yield "all folds" if len(names) > 1 else task.shown(task.classes[1]), scores, positive
    for fold in names if len(names) > 1 else ():
        mine = folds == fold
        if len(set(positive[mine])) == 2:
            yield f"fold {fold}", scores[mine], positive[mine]


def likeliest(evidence: Sequence[dict]) -> Iterator[Line]:
    """The probability of the most likely class of each case, and whether it was right."""
    truth, _, probabilities = columns(evidence)
    yield "most likely class", probabilities.max(axis=1), probabilities.argmax(axis=1) == truth


def curves(lines: Sequence[Line], curve: Callable, area: Callable) -> dict:
    """What the legend says -> (x, y)."""
    return {f"{name}, {area(scores, positive)}": curve(scores, positive) for name, scores, positive in lines}


def pooled_confusion(task, evidence: Sequence[dict]) -> np.ndarray:
    """float (classes, classes): cases of each class (rows) by decision, each at its own model's threshold."""
    truth, predicted, _ = columns(evidence)
    return confusion_matrix(truth, predicted, len(task.classes))


def confusion_rows(task, evidence: Sequence[dict]) -> list[dict]:
    """Rows of confusion_matrix.csv: a true class, and how many of its cases were taken for each."""
    return [{"truth": name, **{f"predicted_{other}": int(count) for other, count in zip(task.classes, row)}}
            for name, row in zip(task.classes, pooled_confusion(task, evidence))]


def dataset_plots(task, truths: Sequence[np.ndarray], cases: Sequence) -> list:
    """Cases per class; patients per class where patients have several cases; frames per case where there are several."""
    indices = np.array([int(truth[0]) for truth in truths], np.int64)
    shown, numbers = [task.shown(name) for name in task.classes], np.bincount(indices, minlength=len(task.classes))
    plots = [Bars("class_frequency", f"Classes of {len(indices)} cases", "cases", dict(zip(shown, numbers.tolist())))]
    patients = [case.patient for case in cases]
    if len(set(patients)) < len(patients):
        having = [len({patient for patient, own in zip(patients, indices) if own == index}) for index in range(len(shown))]
        plots.append(Bars("patients_per_class", "Patients with cases of each class", "patients", dict(zip(shown, having)),
                          len(set(patients))))
    frames = np.array([case.geometry.shape[0] for case in cases])
    return plots + ([Counts("frames_per_case", "Frames per case", "frames", "cases", frames)] if (frames > 1).any() else [])
