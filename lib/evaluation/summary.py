"""The summary table: of every class and metric each fold's value, mean and SD over folds, the pooled estimate, its interval."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib.evaluation.statistics import Key, mean_intervals, ratio

if TYPE_CHECKING:
    import pandas as pd

SUMMARY_COLUMNS = ("class", "metric", "folds", "mean", "sd", "patients", "estimate", "ci_low", "ci_high")  # then one per fold


def fold_columns(columns: Iterable[str]) -> list[str]:
    """Of the columns of summary.csv those of single folds: fold0, fold1, ..."""
    return [name for name in columns if re.fullmatch(r"fold\d+", name)]


def is_asked(row: Mapping, metrics: Iterable[str]) -> bool:
    """Whether a row's number is among `metrics`: METRIC of all classes, or METRIC/CLASS."""
    return row["metric"] in metrics or f"{row['metric']}/{row['class']}" in metrics


def summarise(results: Sequence[dict] | pd.DataFrame, seed: int = 0, intervals: Mapping[Key, tuple[float, float]] | None = None,
              set_patients: int = 0) -> pd.DataFrame:
    """The summary table of a tidy results table of one study and run.

    results: rows with study, run, fold, patient, case, class, metric, value. An empty cell is '' or NaN. Read
    a CSV with `keep_default_na=False`, or pandas takes a patient called "NA" for an empty cell.
    intervals: (class, metric) -> (low, high) of numbers over the whole set; set_patients: how many patients that is of.
    Returns the columns SUMMARY_COLUMNS and one for each fold that `results` name, a row per class and metric in the order
    first seen:

    - of case rows (with a patient): mean and SD (n - 1) over folds of each fold's mean over its cases, and these means;
      how many folds had a value; the mean over all cases (`estimate`) with its 95 % interval (`mean_intervals`); how many
      patients had a value. Cases without a fold (all folds fused) enter only the estimate.
    - of whole-set rows (no patient): mean and SD over the rows that have a fold, and their values; the row without a fold is
      the pooled estimate. Those in `intervals` have one, and `patients` is set_patients; else it is empty (<NA>).

    NaN values are left out; see lib/evaluation/statistics.py for all that may be undefined. A metric with rows of both kinds
    gets a row for each.
    Raises ValueError for missing columns, a fold or value that is not a number, several studies or runs in
    one table, or two whole-set rows of one metric and fold.
    """
    import pandas as pd

    table = _tidy(results)
    groups = table.groupby(["class", "metric", "is_case"], sort=False, dropna=False)
    whole = table[~table["is_case"].astype(bool)]
    for key in whole[whole.duplicated(["class", "metric", "fold"])][["class", "metric"]].itertuples(index=False):
        raise ValueError(f"results: {key[1]} of {key[0]} has two whole-set rows for one fold")
    keys = list(groups.indices) if len(table) else []
    group = groups.ngroup().to_numpy(np.int64) if len(table) else np.zeros(0, np.int64)
    values = table["value"].to_numpy(np.float64)
    patients, named = pd.factorize(table["patient"])
    folds, names = pd.factorize(table["fold"], sort=True)  # -1: none
    case, known = table["is_case"].to_numpy(bool), ~np.isnan(values)

    def sums(chosen: np.ndarray, columns: np.ndarray, width: int, weights: np.ndarray | None = None) -> np.ndarray:
        """(groups, width): sums, or numbers, of the chosen rows."""
        cells = group[chosen] * width + columns[chosen]
        return np.bincount(cells, None if weights is None else weights[chosen], len(keys) * width).reshape(len(keys), width)

    # Sums are those of what differs from the first value, so that the mean of equal values is that value, and its interval has
    # a width of exactly 0: of each fold, and of all.
    in_fold = known & (folds >= 0)
    of_fold, begin = np.zeros(len(values)), np.zeros((len(keys), len(names)))
    first = np.flatnonzero(in_fold)[::-1]
    begin[group[first], folds[first]] = values[first]
    of_fold[in_fold] = values[in_fold] - begin[group[in_fold], folds[in_fold]]
    of_folds = begin + ratio(sums(in_fold, folds, len(names), of_fold), sums(in_fold, folds, len(names)))
    origin = np.zeros(len(keys))
    first = np.flatnonzero(known)[::-1]
    origin[group[first]] = values[first]
    apart = values - origin[group]
    totals, counts = sums(known & case, patients, len(named), apart), sums(known & case, patients, len(named))
    low, high = mean_intervals(totals, counts, seed=seed)
    means = origin + ratio(totals.sum(axis=1), counts.sum(axis=1))
    pooled = np.full(len(keys), np.nan)
    alone = known & ~case & (folds < 0)
    pooled[group[alone]] = values[alone]
    columns = [f"fold{name:g}" for name in names]
    rows = []
    for index, (name, metric, is_case) in enumerate(keys):
        mine = of_folds[index][~np.isnan(of_folds[index])]
        row = {"class": name, "metric": metric, "folds": len(mine), "mean": mine.mean() if len(mine) else np.nan,
               "sd": mine.std(ddof=1) if len(mine) > 1 else np.nan}
        if is_case:
            row |= {"patients": np.count_nonzero(counts[index]), "estimate": means[index],
                    "ci_low": origin[index] + low[index], "ci_high": origin[index] + high[index]}
        else:
            row["estimate"] = pooled[index]
            if (name, metric) in (intervals or {}):
                row["patients"] = set_patients
                row["ci_low"], row["ci_high"] = intervals[name, metric]
        rows.append(row | dict(zip(columns, of_folds[index])))
    summary = pd.DataFrame(rows, columns=[*SUMMARY_COLUMNS, *columns])
    numbers = {name: "float64" for name in ("mean", "sd", "estimate", "ci_low", "ci_high", *columns)}
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
