"""Statistics over cases and patients: bootstrap intervals, percentiles with weights, decision threshold.

What is undefined is NaN, an empty cell in tables. It is left out of every mean and interval, and never counted as 0 or 1. The
same holds for all tasks:

| what                           | then                                                                                         |
|--------------------------------|----------------------------------------------------------------------------------------------|
| a case has an empty truth      | Dice, IoU, recall, NSD, surface and radial distances of that class are NaN there; what is    |
| (the class is absent)          | predicted all the same shows as precision 0, false-positive size, `spurious` and specificity |
| a case has a truth, and        | Dice, IoU, recall, NSD and success rates are 0: an error is not made small by giving no      |
| nothing is predicted           | answer. Precision and distances to what is not there are NaN; measurements count as `missed` |
| a set has a class, and nothing | precision, recall and F1 of that class are 0 (so that a class that is never found lowers the |
| is predicted as it             | mean over classes), average precision is 0                                                   |
| a set lacks a class            | its recall, ROC AUC, average precision and the like are NaN; specificity is not              |
| every case has it              | specificity, ROC AUC and `pr_auc` are NaN, and kappa if all are taken for it                 |
| a mean over classes            | is that of the classes where it is defined; NaN where it is so in none                       |
| a fold lacks a class           | that fold's cell is empty; `folds` counts those with a value, mean and SD are over these     |
| one fold                       | the mean is its value, the SD is empty                                                       |
| no fold has a value            | `folds` is 0, mean, SD and estimate are empty                                                |
| one patient                    | estimates have no interval                                                                   |
| a draw lacks a class           | it is left out of the intervals of what is undefined there, and of all means over classes:   |
|                                | they would be of other classes                                                               |
| few draws are left             | no interval where less than a tenth of them are defined (a class that hardly a patient has)  |

Intervals are those of the percentile bootstrap over patients: Efron & Tibshirani, An Introduction to the Bootstrap (1993),
chapter 13; patients are drawn, not cases, because the cases of a patient are alike: Davison & Hinkley, Bootstrap Methods and
their Application (1997), section 3.8.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

RESAMPLES = 2000
AT_ONCE = 1_000_000  # weights (cases x resamples) held in memory at a time
# Percentile intervals of fewer are too narrow to go unmentioned (Hesterberg, The American Statistician 69:371-386, 2015).
FEW_PATIENTS = 30
LEAST_DEFINED = 0.1  # share of the draws in which a number must be defined to have an interval
Key = tuple[str, str]  # class, metric


def mean_of_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if none is."""
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """float64 part / whole, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


# --- intervals ---------------------------------------------------------------------------------------------------


def numbered(patients: Sequence[Hashable]) -> np.ndarray:
    """int64 (n,): the number of each case's patient, 0, 1, ... in the order first seen."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(patient, len(numbers)) for patient in patients], np.int64)


def patient_weights(patients: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each case counts in `resamples` draws of the patients with replacement: float64 (n, R), a part of the draws
    at a time. Patients are drawn, not cases; a patient brings all of them. The same seed gives the same draws."""
    of_case = numbered(patients)
    count = int(of_case.max(initial=-1)) + 1
    random, at_once = np.random.default_rng(seed), max(1, AT_ONCE // max(1, len(of_case)))
    for first in range(0, resamples, at_once):
        draws = min(at_once, resamples - first)
        drawn = random.integers(count, size=(draws, count)) * draws + np.arange(draws)[:, None]
        times = np.bincount(drawn.ravel(), minlength=draws * count).reshape(count, draws).astype(np.float64)
        yield times if len(of_case) == count else times[of_case]


def bootstrap_intervals(metrics: Callable[[np.ndarray], dict], patients: Sequence[Hashable], resamples: int = RESAMPLES,
                        seed: int = 0, level: float = 0.95) -> dict[Hashable, tuple[float, float]]:
    """Percentile intervals (low, high) of what `metrics` computes: weights (n, R) -> {name: (R,)}.

    patients: of each of the n cases. Draws in which a metric is undefined (no positive case was drawn) are left out of its
    interval. NaN where it is defined in too few, or with a single patient.
    """
    drawn: dict[Hashable, list[np.ndarray]] = {}
    for weights in patient_weights(patients, resamples, seed):
        for name, values in metrics(weights).items():
            drawn.setdefault(name, []).append(values)
    if len(set(patients)) < 2:
        return dict.fromkeys(drawn, (float("nan"),) * 2)
    return {name: percentile_interval(np.concatenate(parts), level) for name, parts in drawn.items()}


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of the middle `level` (0..1) of a number's values in the draws, (R,), NaN left out; two NaN if hardly any is
    left."""
    known = draws[~np.isnan(draws)]
    if not len(known) or len(known) < LEAST_DEFINED * len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def mean_intervals(sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0,
                   level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals, low (k,) and high (k,), of k means over the cases of P patients.

    sums, counts: (k, P), of each patient's values that are defined, and how many these are. Patients are drawn among those who
    have a value. NaN where fewer than two have. Raises ValueError when resamples or level are out of range.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples must be at least 1 and level within 0..1, not {resamples} and {level}")
    low, high = np.full((2, len(sums)), np.nan)
    alike: dict[bytes, list[int]] = {}  # means over the same patients share their draws
    for index, row in enumerate(counts > 0):
        alike.setdefault(row.tobytes(), []).append(index)
    for rows in alike.values():
        having = np.flatnonzero(counts[rows[0]])
        if len(having) < 2:
            continue
        total, number = sums[np.ix_(rows, having)], counts[np.ix_(rows, having)].astype(np.float64)
        means = [(total @ weights) / (number @ weights) for weights in patient_weights(range(len(having)), resamples, seed)]
        low[rows], high[rows] = np.quantile(np.concatenate(means, axis=1), ((1 - level) / 2, (1 + level) / 2), axis=1)
    return low, high


# --- percentiles, thresholds -------------------------------------------------------------------------------------


def percentiles(values: np.ndarray, shares: Sequence[float], weights: np.ndarray, of_case: np.ndarray) -> np.ndarray:
    """float64 (len(shares), R): what numpy.percentile (linear) says of the values (m,), each repeated as often as its case
    counts. shares: 0..1. weights: whole numbers (n, R) of n cases; of_case: (m,) which case a value is of. NaN where all weights
    are 0."""
    found = np.full((len(shares), weights.shape[1]), np.nan)
    order = np.argsort(values, kind="stable")
    ranked, of_case, draws = np.append(values[order], np.nan), of_case[order], np.arange(weights.shape[1])
    size = max(1, int(len(order) ** 0.5))  # values are counted block by block, and one by one only where the rank lies
    blocks, cases = len(order) // size + 1, len(weights)
    held = np.bincount(np.arange(len(order)) // size * cases + of_case, minlength=blocks * cases).reshape(blocks, cases)
    reached = np.cumsum(np.concatenate([np.zeros((1, len(draws))), held @ weights]), axis=0)
    total = reached[-1]

    def at_rank(rank: np.ndarray) -> np.ndarray:
        """The value with this place, (R,) from 0, among all that are repeated."""
        block = np.minimum((reached[1:] <= rank).sum(axis=0), blocks - 1)
        places = block * size + np.arange(size)[:, None]
        there = places < len(order)
        counts = weights[np.append(of_case, 0)[np.where(there, places, -1)], draws] * there
        before = (reached[block, draws] + np.cumsum(counts, axis=0) <= rank).sum(axis=0)
        return ranked[np.minimum(block * size + before, len(order))]

    for row, share in enumerate(shares):
        place = np.maximum(total - 1, 0) * share
        lower, upper = at_rank(np.floor(place)), at_rank(np.ceil(place))
        found[row] = np.where(total > 0, lower + (upper - lower) * (place - np.floor(place)), np.nan)
    return found


def youden_threshold(scores: Sequence[float], labels: Sequence[bool], default: float) -> float:
    """The threshold with the greatest sensitivity + specificity - 1, where score > threshold says positive.

    scores: (n,) finite numbers in any unit, e.g. mL. labels: (n,) bool or 0/1.
    The threshold lies midway between two neighbouring scores and is never below 0. Of equally good ones the
    nearest to `default` is taken, the lower of two as near. `default` itself is returned when a class is
    missing or no threshold is better than chance.
    Raises ValueError for scores that are not finite, labels that are not binary, or unlike lengths.
    Youden, Index for rating diagnostic tests, Cancer 3:32-35 (1950).
    """
    scores, labels = _scores(scores), _binary(labels, "labels")
    _same_length(scores=scores, labels=labels)
    positive, negative = np.sort(scores[labels]), np.sort(scores[~labels])
    distinct = np.unique(scores)
    candidates = np.unique(np.maximum(distinct[:-1] + np.diff(distinct) / 2, 0.0))
    hits = len(positive) - np.searchsorted(positive, candidates, side="right")
    false_alarms = len(negative) - np.searchsorted(negative, candidates, side="right")
    gain = hits * len(negative) - false_alarms * len(positive)  # proportional to Youden's J, but exact
    best = gain.max(initial=0)
    if best == 0:
        return float(default)
    equal = candidates[gain == best]
    return float(equal[np.argmin(np.abs(equal - default))])


def _scores(scores: Sequence[float]) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite numbers: leave out the cases that have none")
    return scores


def _binary(values: Sequence[bool], name: str) -> np.ndarray:
    values = np.asarray(values).reshape(-1)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{name} must be bool or 0/1, not {sorted(set(values.tolist()))[:5]}")
    return values.astype(bool)


def _same_length(**lists: np.ndarray) -> None:
    if len({len(values) for values in lists.values()}) > 1:
        found = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise ValueError(f"one of each per patient is needed, not {found}")
