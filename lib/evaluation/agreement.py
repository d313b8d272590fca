"""How well numbers read off the predictions agree with those read off the truth: bias, limits of agreement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TRUE = "_true"  # the metric M of a prediction has M_true beside it
DECISIONS = ("present",)  # yes or no: their agreement is kappa, in `statistics.binary_agreement`


def agreement(rows: Sequence[dict]) -> list[dict]:
    """Rows that say how far each metric M with an M_true beside it is from it, for `statistics.summarise`.

    rows: case rows of results.csv, of one study and run: study, run, fold, patient, case, class, metric, value (a
    number, NaN where undefined). Rows of whole sets, and yes/no decisions (`present`), are passed over.
    Returns rows of the same keys, for each class and metric M in the order first seen:

    - of each case with an M_true: `M_error`, predicted - true, and `M_abs_error`; NaN unless both are there.
      summarise() makes of them the bias and the mean absolute error, with intervals over patients.
    - of the set (patient, case and fold empty): `M_loa_low` and `M_loa_high`, the 95 % limits of agreement, bias
      -/+ 1.96 SD (n - 1) over the cases (Bland & Altman, Lancet 327:307-310, 1986), NaN with fewer than 3;
      `M_missed`, how many cases have a true value but no predicted one, and `M_spurious`, the other way: an error is
      not made small by giving no answer.

    The limits take cases as independent; where patients have several, they are somewhat too narrow (Bland & Altman,
    Stat. Methods Med. Res. 8:135-160, 1999, section 5).
    """
    pairs = pair_values(rows)
    derived = []
    for (name, metric), cases in pairs.items():
        predicted, true = np.array([pair for _, *pair in cases], dtype=np.float64).T
        errors = predicted - true
        for suffix, values in (("error", errors), ("abs_error", np.abs(errors))):
            derived += [row | {"metric": f"{metric}_{suffix}", "value": float(value)}
                        for (row, *_), value in zip(cases, values)]
        low, high = limits_of_agreement(errors)
        numbers = {"loa_low": low, "loa_high": high,
                   "missed": float(np.count_nonzero(np.isnan(predicted) & ~np.isnan(true))),
                   "spurious": float(np.count_nonzero(~np.isnan(predicted) & np.isnan(true)))}
        whole = cases[0][0] | {"fold": "", "patient": "", "case": ""}
        derived += [whole | {"metric": f"{metric}_{suffix}", "value": value} for suffix, value in numbers.items()]
    return derived


def limits_of_agreement(errors: Sequence[float]) -> tuple[float, float]:
    """Mean -/+ 1.96 SD (n - 1) of the errors, NaN left out; two NaN with fewer than 3."""
    errors = np.asarray(errors, dtype=np.float64)
    errors = errors[~np.isnan(errors)]
    if len(errors) < 3:
        return float("nan"), float("nan")
    spread = 1.96 * errors.std(ddof=1)
    return float(errors.mean() - spread), float(errors.mean() + spread)


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
