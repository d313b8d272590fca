"""How well numbers read off the predictions agree with those read off the truth: bias, limits of agreement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.evaluation.statistics import Key, bootstrap_intervals, ratio

TRUE = "_true"  # the metric M of a prediction has M_true beside it
SIZES = ("volume_", "area_")  # beginnings of the metric of how large a region is: 0 says that it is not there
DECISIONS = ("present",)  # yes or no: their agreement is kappa, in `classification.yes_or_no`


def agreement(rows: Sequence[dict]) -> list[dict]:
    """Rows that say how far each metric M with an M_true beside it is from it, for `summary.summarise`.

    rows: case rows of results.csv, of one study and run: study, run, fold, patient, case, class, metric, value (a
    number, NaN where undefined). Rows of whole sets, and yes/no decisions (`present`), are passed over.
    Returns rows of the same keys, for each class and metric M in the order first seen:

    - of each case with an M_true: `M_error`, predicted - true, and `M_abs_error`; NaN unless both are there.
      summarise() makes of them the bias and the mean absolute error, with intervals over patients.
    - of each fold (patient and case empty) and of the whole set (fold empty too): `M_loa_low` and `M_loa_high`, the 95 % limits
      of agreement, bias -/+ 1.96 SD (n - 1) over the cases (Bland & Altman, Lancet 327:307-310, 1986), NaN with fewer than
      3; `M_missed`, how many cases have a true value but no predicted one, and `M_spurious`, the other way: an error is
      not made small by giving no answer. A size of 0 is none.

    The limits take cases as independent; where patients have several, they are somewhat too narrow (Bland & Altman,
    Stat. Methods Med. Res. 8:135-160, 1999, section 5).
    """
    derived = []
    for (_, metric), cases in pair_values(rows).items():
        predicted, true = _columns(cases)
        errors = predicted - true
        for suffix, values in (("error", errors), ("abs_error", np.abs(errors))):
            derived += [row | {"metric": f"{metric}_{suffix}", "value": float(value)}
                        for (row, *_), value in zip(cases, values)]
        folds = np.array([str(row.get("fold", "")) for row, *_ in cases])
        named = {str(row["fold"]): row["fold"] for row, *_ in cases if row.get("fold", "") != ""}
        for fold, members in [(named[one], folds == one) for one in named] + [("", np.full(len(cases), True))]:
            whole = cases[0][0] | {"fold": fold, "patient": "", "case": ""}
            ones = np.ones((np.count_nonzero(members), 1))
            values = set_values(predicted[members], true[members], ones, metric.startswith(SIZES))
            derived += [whole | {"metric": f"{metric}_{suffix}", "value": float(value[0])} for suffix, value in values.items()]
    return derived


def agreement_intervals(rows: Sequence[dict]) -> dict[Key, tuple[float, float]]:
    """(class, M_loa_low and so on) -> (low, high): 95 % intervals of the numbers that `agreement` says of the whole set (see
    `statistics.bootstrap_intervals`). Its case rows have theirs from `summarise`."""
    alike: dict[tuple, list[Key]] = {}  # what was measured in the same cases shares its draws
    pairs = pair_values(rows)
    for key, cases in pairs.items():
        alike.setdefault(tuple((row.get("fold", ""), row["patient"], row.get("case", "")) for row, *_ in cases), []).append(key)

    def metrics(weights: np.ndarray) -> dict[Key, np.ndarray]:
        return {(name, f"{metric}_{suffix}"): value for (name, metric), columns in chosen.items()
                for suffix, value in set_values(*columns, weights, metric.startswith(SIZES)).items()}

    intervals = {}
    for cases, keys in alike.items():
        chosen = {key: _columns(pairs[key]) for key in keys}
        intervals |= bootstrap_intervals(metrics, [patient for _, patient, _ in cases])
    return intervals


def set_values(predicted: np.ndarray, true: np.ndarray, weights: np.ndarray, sizes: bool = False) -> dict[str, np.ndarray]:
    """loa_low, loa_high, missed and spurious of n cases, each (R,). predicted, true: (n,), NaN where there is none; weights: how
    often each case counts, (n, R); sizes: 0 is none too."""
    low, high = limits_of_agreement(predicted - true, weights)
    found, there = (~np.isnan(values) & ~(sizes & (values == 0)) for values in (predicted, true))
    return {"loa_low": low, "loa_high": high, "missed": (~found & there) @ weights, "spurious": (found & ~there) @ weights}


def limits_of_agreement(errors: Sequence[float], weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean -/+ 1.96 SD (n - 1) of the errors (n,), NaN left out; NaN with fewer than 3. weights: how often each counts, (n, R),
    for (R,) limits; without any, two numbers."""
    errors = np.asarray(errors, dtype=np.float64)
    known = ~np.isnan(errors)
    counts = np.ones((np.count_nonzero(known), 1)) if weights is None else weights[known]
    origin = errors[known][0] if known.any() else 0.0  # equal errors have a width of exactly 0
    apart, number = errors[known] - origin, counts.sum(axis=0)
    mean = ratio(apart @ counts, number)
    squares = np.maximum(apart ** 2 @ counts - number * np.nan_to_num(mean) ** 2, 0)
    spread = 1.96 * np.sqrt(ratio(squares, np.where(number < 3, 0, number - 1)))
    low, high = origin + mean - spread, origin + mean + spread
    return (low, high) if weights is not None else (float(low[0]), float(high[0]))


def _columns(cases: Sequence[tuple[dict, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """(predicted, true), both (n,), of what `pair_values` gives."""
    return tuple(np.array([pair for _, *pair in cases], dtype=np.float64).T)


def pair_values(rows: Sequence[dict]) -> dict[tuple[str, str], list[tuple[dict, float, float]]]:
    """(class, metric) -> (row, predicted, true) of each case that has the metric's M_true; NaN without an M."""
    values: dict[tuple[str, str], dict[tuple, dict]] = {}
    for row in rows:
        if row.get("patient", "") != "":
            cases = values.setdefault((row["class"], row["metric"]), {})
            cases[row.get("fold", ""), row["patient"], row.get("case", "")] = row
    pairs = {}
    for name, metric in values:
        true = values.get((name, metric + TRUE))
        if true and metric not in DECISIONS:
            predicted = values[name, metric]
            pairs[name, metric] = [(row, predicted[key]["value"] if key in predicted else float("nan"), row["value"])
                                   for key, row in true.items()]
    return pairs
