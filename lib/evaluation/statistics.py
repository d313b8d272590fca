"""Statistics over cases, patients and folds: bootstrap interval, decision threshold, agreement, summary.

NaN marks a value that is undefined for a case (see `metrics`): it is left out, never counted as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib.evaluation.metrics import overlap

if TYPE_CHECKING:
    import pandas as pd

SUMMARY_COLUMNS = ("class", "metric", "folds", "mean", "sd", "patients", "estimate", "ci_low", "ci_high")
_DRAWS_AT_ONCE = 2_000_000  # random indices held in memory at a time, so that large cohorts stay cheap


def mean_of_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if none is."""
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def bootstrap_interval(values: Sequence[float], groups: Sequence | None = None, resamples: int = 2000,
                       seed: int = 0, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the values and its percentile bootstrap interval: (estimate, low, high).

    values: (n,) numbers, NaN left out.
    groups: (n,) patient of each value; by default each value is its own. Patients, not cases, are drawn with
    replacement and bring all their values, since the cases of a patient are alike.
    resamples: number of draws. level: coverage, 0..1. The same seed gives the same interval.
    One patient has no interval (NaN low and high); no values give three NaN.
    Raises ValueError when groups and values differ in length, or resamples or level are out of range.
    Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; for groups: Davison & Hinkley,
    Bootstrap Methods and their Application (1997), section 3.8.
    """
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups).reshape(-1)
    if len(groups) != len(values):
        raise ValueError(f"{len(groups)} groups for {len(values)} values: give one group per value")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples must be at least 1 and level within 0..1, not {resamples} and {level}")
    present = ~np.isnan(values)
    values, groups = values[present], groups[present]
    if not len(values):
        return (float("nan"),) * 3
    origin = values[0]  # means are taken of differences: equal values then give a width of exactly 0
    estimate = float(origin + (values - origin).mean())
    patient = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(patient)
    if len(counts) == 1:
        return estimate, float("nan"), float("nan")
    means = origin + _resampled_means(np.bincount(patient, weights=values - origin), counts, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return estimate, float(low), float(high)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(resamples,) means over the cases of patients drawn with replacement; sums, counts: (patients,)."""
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, rows):
        drawn = rng.integers(len(sums), size=(min(rows, resamples - start), len(sums)))
        means[start:start + rows] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


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


def binary_agreement(scores: Sequence[float], decisions: Sequence[bool],
                     labels: Sequence[bool]) -> dict[str, float]:
    """How well scores and yes/no decisions agree with the labels of n patients.

    scores: (n,) finite numbers, greater means more likely positive. decisions, labels: (n,) bool or 0/1.
    Returns roc_auc of the scores (NaN with one class), kappa (Cohen's; NaN when decisions and labels are all
    one class), sensitivity (NaN without positives), specificity (NaN without negatives), accuracy (NaN if
    n is 0), n and positives.
    Raises ValueError for scores that are not finite, labels that are not binary, or unlike lengths.
    Cohen, A coefficient of agreement for nominal scales, Educ. Psychol. Meas. 20:37-46 (1960).
    """
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    scores = _scores(scores)
    decisions, labels = _binary(decisions, "decisions"), _binary(labels, "labels")
    _same_length(scores=scores, decisions=decisions, labels=labels)
    rates = overlap(decisions, labels)
    both = len(np.unique(labels)) == 2  # asked first, as sklearn answers an undefined number with a warning
    any_two = len(np.unique(np.concatenate([decisions, labels]))) == 2
    return {"roc_auc": float(roc_auc_score(labels, scores)) if both else float("nan"),
            "kappa": float(cohen_kappa_score(decisions, labels)) if any_two else float("nan"),
            "sensitivity": rates["recall"], "specificity": rates["specificity"],
            "accuracy": rates["accuracy"], "n": float(len(labels)), "positives": float(labels.sum())}


def summarise(results: list[dict] | pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The summary table of a tidy results table of one study and run.

    results: rows with study, run, fold, patient, case, class, metric, value. An empty cell is '' or NaN. Read
    a CSV with `keep_default_na=False`, or pandas takes a patient called "NA" for an empty cell.
    Returns the columns SUMMARY_COLUMNS, a row per class and metric in the order first seen:

    - of case rows (with a patient): mean and SD (n - 1) over folds of each fold's mean over its cases; how
      many folds had a value; the mean over all cases (`estimate`) with its 95 % `bootstrap_interval` over
      patients; how many patients had a value. Cases without a fold (all folds fused) enter only the estimate.
    - of whole-set rows (no patient): mean and SD over the rows that have a fold; the row without a fold is
      the pooled estimate. They carry no interval, and `patients` is empty (<NA>).

    NaN values are left out; the SD of one fold is NaN. A metric with rows of both kinds gets a row for each.
    Raises ValueError for missing columns, a fold or value that is not a number, several studies or runs in
    one table, or two whole-set rows of one metric and fold.
    """
    import pandas as pd

    table = _tidy(results)
    rows = []
    keys = ["class", "metric", "is_case"]
    for (name, metric, is_case), part in table.groupby(keys, sort=False, dropna=False):
        if not is_case and part["fold"].duplicated().any():
            raise ValueError(f"results: {metric} of {name} has two whole-set rows for one fold")
        part = part.dropna(subset=["value"])
        folds = part.groupby("fold")["value"].mean()  # rows without a fold are left out here
        row = {"class": name, "metric": metric, "folds": len(folds), "mean": folds.mean(), "sd": folds.std()}
        if is_case:
            row["patients"] = part["patient"].nunique()
            interval = bootstrap_interval(part["value"], part["patient"], seed=seed)
            row["estimate"], row["ci_low"], row["ci_high"] = interval
        else:
            row["estimate"] = part.loc[part["fold"].isna(), "value"].mean()
        rows.append(row)
    summary = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    numbers = {name: "float64" for name in ("mean", "sd", "estimate", "ci_low", "ci_high")}
    return summary.astype({**numbers, "folds": "int64", "patients": "Int64"})


def _tidy(results: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """A checked copy: fold and value float (NaN where empty), patient text, `is_case` if it has a patient."""
    import pandas as pd

    def number(cell: object) -> float:
        return float("nan") if pd.isna(cell) or str(cell).strip() == "" else float(cell)

    table = pd.DataFrame(results).copy()
    needed = ["fold", "patient", "class", "metric", "value"]
    if table.empty:
        return pd.DataFrame(columns=[*needed, "is_case"])
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"results: no column {', '.join(missing)}")
    for name in ("study", "run"):
        if name in table and table[name].nunique() > 1:
            raise ValueError(f"results: one {name} at a time, not {', '.join(table[name].unique())}")
    patient = table["patient"].astype(str)
    is_case = table["patient"].notna() & (patient.str.strip() != "")
    for name in ("fold", "value"):
        table[name] = table[name].map(number).astype("float64")
    return table.assign(patient=patient, is_case=is_case)


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
