"""Two runs on the same cases: differences (B minus A) with intervals, and tests that respect which cases are of one patient.

Everything is paired: a case counts where both runs have a value. A difference is B minus A, whatever is better for the metric.

- Estimates and differences are means over cases. Intervals are 95 % percentile bootstrap intervals: patients are drawn with
  replacement, each with all of his or her cases and with both runs, so that a number over a whole set (AUC, mAP) is made of the
  same draw in A and in B.
- A metric of single cases is tested with Wilcoxon's signed-rank test on the mean difference of each patient. Patients without
  a difference are left out, as Wilcoxon does; of metrics that are 0 or 1 (accuracy), with one case per patient, it is then
  McNemar's exact test, of any number of patients. Other p are exact up to EXACT patients with a difference, and beyond the
  normal approximation.
- The area under a ROC curve with one score per patient is tested as DeLong, DeLong & Clarke-Pearson do; every other number
  over a set by the share of the draws on the other side of 0, twice the smaller one. Such a p is approximate (too small where
  few patients make the difference) and never below 2 / (RESAMPLES + 1).
- p_holm is adjusted over the classes of one metric (Holm, Scand. J. Stat. 6:65-70, 1979). `all` stands alone, and nothing is
  adjusted over metrics. What could not be tested does not count.

A pooled AUC of folds ranks the scores of several models as if they were on one scale: so does its test.

Wilcoxon, Biometrics Bull. 1:80-83 (1945). DeLong et al., Biometrics 44:837-845 (1988), in the fast form of Sun & Xu, IEEE
Signal Process. Lett. 21:1389-1393 (2014). Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 15.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lib.evaluation.statistics import AT_ONCE, RESAMPLES, Key, mean_intervals, numbered, patient_weights, percentile_interval
from lib.tasks.base import ALL, Metrics

COLUMNS = ("class", "metric", "level", "cases", "patients", "left_out", "only_a", "only_b", "estimate_a", "estimate_b",
           "difference_b_minus_a", "ci_low", "ci_high", "p", "p_holm", "test")
EXACT = 200  # patients with a difference up to which every way of giving signs to the ranks is counted
FEWEST = 10  # patients from which a bootstrap says how likely a difference is
FEWEST_OF_A_KIND = 5  # positive and negative patients that DeLong's variance needs; fewer are missing in > 0.5 % of the draws
UNDEFINED = 0.01  # share of the draws without a value from which there is no p
DIGITS = 9  # of the larger value, to which differences are told apart: the rest is rounding
NO_DIFFERENCE, ONE_PATIENT, FEW = "none: no difference", "none: one patient", "none: too few patients"


class Ranking(NamedTuple):
    """What a ROC AUC is made of. scores: (m,), greater means more likely positive; positive: bool (m,); patients: m of them."""
    scores: np.ndarray
    positive: np.ndarray
    patients: Sequence[Hashable]


# --- tables ------------------------------------------------------------------------------------------------------


def compare_cases(a: Mapping[Key, np.ndarray], b: Mapping[Key, np.ndarray], patients: Sequence[Hashable]) -> list[dict]:
    """Rows of COLUMNS for the metrics of single cases that both runs have. a, b: (class, metric) -> (n,) values of the same n
    cases, NaN where there is none; patients: of each case."""
    patient = numbered(patients)
    keys = [key for key in a if key in b]
    both = {key: ~(np.isnan(a[key]) | np.isnan(b[key])) for key in keys}
    intervals = paired_intervals({key: np.where(both[key], b[key] - a[key], np.nan) for key in keys}, patient)
    rows = []
    for key in keys:
        known, of_a, of_b = both[key], a[key][both[key]], b[key][both[key]]
        row = {"class": key[0], "metric": key[1], "level": "case", "cases": int(known.sum()),
               "patients": len(np.unique(patient[known])), "left_out": int((~known).sum()),
               "only_a": int((~np.isnan(a[key]) & np.isnan(b[key])).sum()),
               "only_b": int((np.isnan(a[key]) & ~np.isnan(b[key])).sum()),
               "estimate_a": mean(of_a), "estimate_b": mean(of_b), "difference_b_minus_a": mean(of_b - of_a)}
        row |= dict(zip(("ci_low", "ci_high"), intervals[key]))
        rows.append(row | dict(zip(("p", "test"), signed_rank(*patient_means(of_a, of_b, patient[known])))))
    return with_holm(rows)


def compare_sets(a: Metrics, b: Metrics, patients: Sequence[Hashable], rankings: Mapping[Key, tuple[Ranking, Ranking]] = {},
                 progress: Callable[..., Iterable] | None = None) -> list[dict]:
    """Rows of COLUMNS for the numbers over a set of the same n cases that both runs have. a, b: see Metrics; patients: of each
    case; rankings: (class, metric) of ROC AUCs -> what they are made of in A and in B."""
    whole = np.ones((len(patients), 1))
    of_a, of_b = ({key: float(values[0]) for key, values in metrics(whole).items()} for metrics in (a, b))
    keys = [key for key in of_a if key in of_b and not (math.isnan(of_a[key]) and math.isnan(of_b[key]))]
    drawn: dict[Key, list[np.ndarray]] = {key: [] for key in keys}
    parts = patient_weights(patients, RESAMPLES)
    for weights in progress(parts, -(-RESAMPLES // max(1, AT_ONCE // len(patients))), "resamples") if progress else parts:
        in_a, in_b = a(weights), b(weights)
        for key in keys:
            drawn[key].append(in_b[key] - in_a[key])
    rows = []
    for key in keys:
        draws, count = np.concatenate(drawn[key]), len(set(patients))
        row = {"class": key[0], "metric": key[1], "level": "set", "cases": len(patients), "patients": count, "left_out": 0,
               "only_a": 0, "only_b": 0, "estimate_a": of_a[key], "estimate_b": of_b[key],
               "difference_b_minus_a": of_b[key] - of_a[key]}
        row |= dict(zip(("ci_low", "ci_high"), percentile_interval(draws if count > 1 else draws[:0])))
        tested = delong(*rankings[key]) if key in rankings and one_each(*rankings[key]) else \
            bootstrap_p(row["difference_b_minus_a"], draws, count)
        rows.append(row | dict(zip(("p", "test"), tested)))
    return with_holm(rows)


def with_holm(rows: list[dict]) -> list[dict]:
    """The rows with p_holm, over the classes of each metric."""
    families: dict[str, list[dict]] = {}
    for row in rows:
        families.setdefault(f"{row['metric']}/{ALL}" if row["class"] == ALL else row["metric"], []).append(row)
    for family in families.values():
        for row, adjusted in zip(family, holm([row["p"] for row in family])):
            row["p_holm"] = adjusted
    return rows


# --- differences of cases ----------------------------------------------------------------------------------------


def paired_intervals(differences: Mapping[Key, np.ndarray], patient: np.ndarray) -> dict[Key, tuple[float, float]]:
    """key -> 95 % interval of the mean of its differences (n,), NaN left out; two NaN with fewer than two patients. patient:
    (n,) whole numbers from 0."""
    known = {key: ~np.isnan(values) for key, values in differences.items()}
    origins = np.array([values[known[key]][0] if known[key].any() else 0.0 for key, values in differences.items()])
    gaps = [np.where(known[key], values - origin, 0) for (key, values), origin in zip(differences.items(), origins)]
    size = int(patient.max(initial=-1)) + 1  # sums are those of what differs from the first: equal values have no width at all
    sums = np.array([np.bincount(patient, row, size) for row in gaps]).reshape(-1, size)
    low, high = mean_intervals(sums, np.array([np.bincount(patient, row, size) for row in known.values()]).reshape(-1, size))
    return dict(zip(differences, zip((origins + low).tolist(), (origins + high).tolist())))


def patient_means(a: np.ndarray, b: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, float]:
    """(mean difference b - a of each patient, the unit in which differences are told apart). a, b: (n,) without NaN."""
    number = np.unique(patient, return_inverse=True)[1]
    largest = float(np.abs([a, b]).max(initial=0))
    unit = 10.0 ** (math.floor(math.log10(largest)) + 1 - DIGITS) if largest > 0 else 1.0
    return np.bincount(number, b - a) / np.maximum(np.bincount(number), 1), unit


def signed_rank(differences: np.ndarray, unit: float = 0.0) -> tuple[float, str]:
    """(two-sided p, how it was tested) of Wilcoxon's signed-rank test that differences (n,) are symmetric around 0.

    unit: differences are rounded to multiples of it, so that rounding errors neither break ties nor make a difference. Zeros
    are left out; equal ones share their mean rank. Up to EXACT patients p is exact, given the ranks, ties or not. Beyond, it is
    so where all differences are equally large (McNemar's exact test), and else SciPy's normal approximation, corrected for ties
    but not for continuity. p is NaN for one patient, and where all differences are 0.
    """
    if len(differences) < 2:
        return float("nan"), ONE_PATIENT if len(differences) else "none: no cases"
    rounded = np.rint(differences / unit) if unit else np.asarray(differences, np.float64)
    rounded = rounded[rounded != 0]
    if not len(rounded):
        return float("nan"), NO_DIFFERENCE
    from scipy import stats
    if len(rounded) > EXACT and np.ptp(np.abs(rounded)) == 0:  # all ranks are alike: only the number of each sign counts
        return float(stats.binomtest(int((rounded > 0).sum()), len(rounded)).pvalue), "Wilcoxon signed-rank, exact"
    if len(rounded) > EXACT:
        return float(stats.wilcoxon(rounded, method="asymptotic").pvalue), "Wilcoxon signed-rank, normal"
    doubled = np.rint(2 * stats.rankdata(np.abs(rounded))).astype(np.int64)  # mean ranks are halves
    chances = np.ones(1)  # of each sum of (doubled) positive ranks, if either sign is as likely
    for rank in doubled:
        chances = (np.append(chances, np.zeros(rank)) + np.append(np.zeros(rank), chances)) / 2
    found = int(doubled[rounded > 0].sum())
    tail = min(chances[:found + 1].sum(), chances[found:].sum())
    return float(min(1.0, 2 * tail)), "Wilcoxon signed-rank, exact"


# --- numbers over a set ------------------------------------------------------------------------------------------


def bootstrap_p(difference: float, draws: np.ndarray, patients: int) -> tuple[float, str]:
    """(two-sided p, how it was tested) that a difference is 0, from its draws (R,), NaN where it is undefined: twice the share
    of those on the other side of 0, themselves counted as one draw. NaN where there are too few patients, of all or of a kind
    that the metric needs (more than UNDEFINED of the draws lack it)."""
    known = draws[~np.isnan(draws)]
    if patients < 2:
        return float("nan"), ONE_PATIENT
    if math.isnan(difference):
        return float("nan"), "none: undefined"
    if difference == 0 and not known.any():
        return float("nan"), NO_DIFFERENCE
    if patients < FEWEST or len(draws) - len(known) > UNDEFINED * len(draws):
        return float("nan"), FEW
    smaller = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return min(1.0, 2 * (smaller + 1) / (len(known) + 1)), "bootstrap"


def delong(a: Ranking, b: Ranking) -> tuple[float, str]:
    """(two-sided p, how it was tested) that two areas under ROC curves of the same patients are equal.

    NaN with fewer than FEWEST_OF_A_KIND positive or negative patients, and where the placements of all positive patients move by
    the same, and those of all negative ones (by none at all: no difference): then the variance is 0.
    """
    positive = np.asarray(a.positive, bool)
    if np.array_equal(a.scores, b.scores):
        return float("nan"), NO_DIFFERENCE
    if min(positive.sum(), (~positive).sum()) < FEWEST_OF_A_KIND:
        return float("nan"), FEW
    difference, variance = delong_difference(a.scores, b.scores, positive)
    if variance <= 0:
        return float("nan"), NO_DIFFERENCE if difference == 0 else "none: no variance"
    return math.erfc(abs(difference) / math.sqrt(2 * variance)), "DeLong"


def delong_difference(a: np.ndarray, b: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """(ROC AUC of scores b minus that of a, its variance by DeLong), of the same patients; two or more of each kind.

    The variance of a difference is that of the differences of the placements, of positive and of negative patients. They are
    divided last: of numbers, which are exact, the variance is exactly 0 where all are equal.
    """
    (pos_a, neg_a), (pos_b, neg_b) = placements(a, positive), placements(b, positive)
    pos, neg = pos_b - pos_a, neg_b - neg_a
    pairs = len(pos) * len(neg)
    return float(pos.sum() / pairs), float((pos.var(ddof=1) / len(neg) + neg.var(ddof=1) / len(pos)) / pairs)


def placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(of each positive score the number of negative ones below it, of each negative one the number of positive ones above it),
    equal ones counted half: whole or half numbers, without rounding. The sum of either, over all pairs, is the ROC AUC."""
    from scipy.stats import rankdata
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    among_all, pos, neg = rankdata(scores), rankdata(scores[positive]), rankdata(scores[~positive])
    return among_all[positive] - pos, len(pos) - (among_all[~positive] - neg)


def one_each(a: Ranking, b: Ranking) -> bool:
    """Whether both rank the same patients, each with one score."""
    return (list(a.patients) == list(b.patients) and len(set(a.patients)) == len(a.patients)
            and np.array_equal(a.positive, b.positive) and bool(np.isfinite([a.scores, b.scores]).all()))


# --- what they share ---------------------------------------------------------------------------------------------


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given; NaN stays NaN and does not count as a test."""
    values = np.asarray(values, np.float64)
    order = [index for index in np.argsort(values, kind="stable") if not math.isnan(values[index])]
    adjusted, worst = np.full(len(values), np.nan), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * values[index]))
        adjusted[index] = worst
    return adjusted.tolist()


def mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
