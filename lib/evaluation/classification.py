"""Metrics of a classifier, or of any yes or no, over a set of cases.

Of K classes, one is right for each case. Metrics of one class take it as positive and all others as negative. What is
undefined is NaN and is left out of every mean:

| metric            | formula                            | NaN when                                                  |
|-------------------|------------------------------------|-----------------------------------------------------------|
| recall            | TP / (TP + FN)                     | no case has the class                                     |
| specificity       | TN / (TN + FP)                     | every case has it                                         |
| precision         | TP / (TP + FP)                     | no case has it and none is taken for it; 0 if only none   |
|                   |                                    | is taken for it                                           |
| f1                | 2 TP / (2 TP + FP + FN)            | no case has it and none is taken for it                   |
| roc_auc           | area under the ROC curve           | no case has it, or every case                             |
| pr_auc            | average precision                  | no case has it, or every case                             |
| balanced_accuracy | mean recall of the classes         | there are no cases; classes without any are left out      |
| kappa             | Cohen's                            | truths and decisions are all of one class                 |
| calibration_error | expected calibration error         | there are no cases                                        |

Every metric takes `weights`, how often each case counts: (n, R) for R resamples at once, which give (R,) values; without
weights each case counts once, and the value is one number. They are scikit-learn's numbers with `sample_weight`. Scores that
are equal are one point of a curve: what is taken for positive never depends on the order of the cases.

ROC: Hanley & McNeil, Radiology 143:29-36 (1982). Average precision: Davis & Goadrich, ICML 2006, without interpolation.
Kappa: Cohen, Educ. Psychol. Meas. 20:37-46 (1960). Choice of metrics: Maier-Hein, Reinke et al., "Metrics reloaded",
Nature Methods 21:195-212 (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lib.evaluation.statistics import ratio

BINS = 10  # of equal width, of a reliability curve


class Counts(NamedTuple):
    """True and false positives and negatives of one class, each (R,)."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray


# --- decisions ---------------------------------------------------------------------------------------------------


def confusion_matrix(truth: Sequence[int], predicted: Sequence[int], classes: int,
                     weights: np.ndarray | None = None) -> np.ndarray:
    """(K, K), or (K, K, R) with weights: how many cases of each class (rows) were taken for each (columns).

    truth, predicted: (n,) whole numbers from 0 to classes - 1; ValueError for others.
    """
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    if len(truth) != len(predicted) or any(len(v) and not 0 <= v.min() <= v.max() < classes for v in (truth, predicted)):
        raise ValueError(f"needed: a truth and a decision of every case, each from 0 to {classes - 1}")
    cells = np.eye(classes * classes)[truth * classes + predicted]
    return cells.sum(axis=0).reshape(classes, classes) if weights is None else (cells.T @ weights).reshape(classes, classes, -1)


def counts_of(confusion: np.ndarray, index: int) -> Counts:
    """Of class `index` against the others, from a confusion matrix (K, K, ...)."""
    tp, truths, decisions = confusion[index, index], confusion[index].sum(axis=0), confusion[:, index].sum(axis=0)
    return Counts(tp, decisions - tp, truths - tp, confusion.sum(axis=(0, 1)) - truths - decisions + tp)


def rates(counts: Counts) -> dict[str, np.ndarray]:
    """precision, recall, f1 and specificity, each (R,)."""
    tp, fp, fn, tn = counts
    precision = np.where((tp + fp == 0) & (fn > 0), 0.0, ratio(tp, tp + fp))
    return {"precision": precision, "recall": ratio(tp, tp + fn), "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "specificity": ratio(tn, tn + fp)}


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """(R,) of a confusion matrix (K, K, ...): the mean recall of the classes that have cases."""
    return mean_over_classes([rates(counts_of(confusion, index))["recall"] for index in range(len(confusion))])


def kappa(confusion: np.ndarray) -> np.ndarray:
    """(R,) of a confusion matrix (K, K, ...): Cohen's kappa, agreement beyond chance."""
    total, agreed = confusion.sum(axis=(0, 1)), np.trace(confusion)
    chance = (confusion.sum(axis=0) * confusion.sum(axis=1)).sum(axis=0)  # of counts, so that 1 - 1 is exactly 0
    return ratio(agreed * total - chance, total * total - chance)


def yes_or_no(scores: Sequence[float], decisions: Sequence[bool], truths: Sequence[bool],
              weights: np.ndarray) -> dict[str, np.ndarray]:
    """roc_auc of the scores, and kappa, sensitivity, specificity and accuracy of the decisions, each (R,).

    scores: (n,) finite, greater means more likely yes; decisions, truths: bool (n,); weights: (n, R). Accuracy is NaN without
    cases. Raises ValueError as `confusion_matrix` and `roc_auc` do.
    """
    confusion = confusion_matrix(truths, decisions, 2, weights)
    found = rates(counts_of(confusion, 1))
    return {"roc_auc": roc_auc(scores, truths, weights), "kappa": kappa(confusion), "sensitivity": found["recall"],
            "specificity": found["specificity"], "accuracy": ratio(np.trace(confusion), confusion.sum(axis=(0, 1)))}


def mean_over_classes(values: Sequence[np.ndarray], held: Sequence[bool] | None = None) -> np.ndarray:
    """(R,) macro mean of the classes (K of (R,)) where they are defined, NaN where none is.

    held: of each class whether it is defined in the whole set. A draw in which such a class is undefined has no mean then: it
    would be one of other classes.
    """
    stacked = np.asarray(values, np.float64)
    known = ~np.isnan(stacked)
    mean = ratio(np.where(known, stacked, 0).sum(axis=0), known.sum(axis=0))
    return mean if held is None else np.where(known[np.asarray(held, bool)].all(axis=0), mean, np.nan)


# --- scores ------------------------------------------------------------------------------------------------------


def areas(scores: Sequence[float], positive: Sequence[bool],
          weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(roc_auc, pr_auc) of scores (n,), greater meaning more likely positive, and positive, bool (n,).

    The area under the ROC curve is the chance that a positive case scores higher than a negative one, half of it for equal
    scores. Average precision is the mean precision over the positive cases, each judged at its own score.
    """
    pos, neg = _by_score(scores, positive, weights)[1:]
    all_pos, all_neg = pos.sum(axis=0), neg.sum(axis=0)
    below = np.cumsum(neg, axis=0)
    tp = all_pos - np.cumsum(pos, axis=0) + pos
    taken = tp + all_neg - below + neg
    precision = np.divide(tp, taken, out=np.zeros_like(tp), where=taken > 0)
    mean_precision = np.where(all_pos * all_neg > 0, ratio((pos * precision).sum(axis=0), all_pos), np.nan)
    return _plain(_pairs_in_order(pos, neg, below), weights), _plain(mean_precision, weights)


def roc_auc(scores: Sequence[float], positive: Sequence[bool], weights: np.ndarray | None = None) -> np.ndarray:
    """See `areas`."""
    pos, neg = _by_score(scores, positive, weights)[1:]
    return _plain(_pairs_in_order(pos, neg, np.cumsum(neg, axis=0)), weights)


def pr_auc(scores: Sequence[float], positive: Sequence[bool], weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision; see `areas`."""
    return areas(scores, positive, weights)[1]


def calibration_error(probabilities: Sequence[float], positive: Sequence[bool],
                      weights: np.ndarray | None = None) -> np.ndarray:
    """Expected calibration error: how far the share of positive cases is from their mean probability (0..1), in each of
    BINS bins of equal width, weighted by their cases.

    Naeini, Cooper & Hauskrecht, AAAI 2015; of the most likely of several classes (positive: whether it was right), Guo et
    al., ICML 2017, arXiv:1706.04599. A bin reaches up to its right edge, and the first one holds 0 too.
    """
    probabilities, positive = np.asarray(probabilities, np.float64), np.asarray(positive, np.float64)
    gaps = np.eye(BINS)[_bins(probabilities)] * (probabilities - positive)[:, None]
    counts = np.ones((len(probabilities), 1)) if weights is None else weights
    return _plain(ratio(np.abs(gaps.T @ counts).sum(axis=0), counts.sum(axis=0)), weights)


# --- curves ------------------------------------------------------------------------------------------------------


def roc_curve(scores: Sequence[float], positive: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """(false positive rate, true positive rate) from the highest score to the lowest, (0, 0) first; NaN without positive or
    without negative cases."""
    fp, tp = _falling(scores, positive)
    return ratio(fp, fp[-1]), ratio(tp, tp[-1])


def precision_recall_curve(scores: Sequence[float], positive: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) from the highest score to the lowest: each precision holds from the recall before it up to its
    own, so that the area is `pr_auc`. The first point is at recall 0, with the precision of the second."""
    fp, tp = _falling(scores, positive)
    precision = tp[1:] / (tp + fp)[1:]
    return ratio(tp, tp[-1]), np.concatenate([precision[:1], precision]) if len(precision) else np.array([np.nan])


def reliability_curve(probabilities: Sequence[float], positive: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """(mean probability, share of positive cases) of each of BINS bins of equal width that has cases."""
    probabilities, positive = np.asarray(probabilities, np.float64), np.asarray(positive, np.float64)
    bins = _bins(probabilities)
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, values, BINS)[counts > 0] for values in (probabilities, positive)]
    return sums[0] / counts[counts > 0], sums[1] / counts[counts > 0]


# --- what they share ---------------------------------------------------------------------------------------------


def _by_score(scores: Sequence[float], positive: Sequence[bool],
              weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores (g,), rising, and the positive and the negative cases that have each, both (g, R)."""
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if len(scores) != len(positive) or not np.isfinite(scores).all():
        raise ValueError(f"needed: a finite score for each of {len(positive)} cases, not {len(scores)} with "
                         f"{np.count_nonzero(~np.isfinite(scores))} that are not finite")
    order = np.argsort(scores, kind="stable")
    ranked, right = scores[order], positive[order][:, None]
    counts = np.ones((len(scores), 1)) if weights is None else weights[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])[:len(ranked)])
    of_positive = counts * right
    if len(starts) == len(ranked):
        return ranked, of_positive, counts - of_positive
    if not len(starts):
        return ranked, of_positive, of_positive
    return ranked[starts], np.add.reduceat(of_positive, starts), np.add.reduceat(counts - of_positive, starts)


def _pairs_in_order(pos: np.ndarray, neg: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The area under the ROC curve, (R,): positive and negative cases by rising score, and the sums of the latter, all (g, R)."""
    return ratio(np.einsum("gr,gr->r", pos, below) - np.einsum("gr,gr->r", pos, neg) / 2, pos.sum(axis=0) * neg.sum(axis=0))


def _falling(scores: Sequence[float], positive: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """False and true positives (g + 1,) if the cases with the highest score count, and those with the next, ...; 0 first."""
    _, pos, neg = _by_score(scores, positive, None)
    return tuple(np.append(0.0, np.cumsum(values[::-1, 0])) for values in (neg, pos))


def _bins(probabilities: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probabilities)


def _plain(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray | float:
    return float(values[0]) if weights is None else values
