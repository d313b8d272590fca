"""What script 4 draws from results.csv: scores per class and fold, and measured against true sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Sequence

import numpy as np

from lib.evaluation.agreement import DECISIONS, TRUE, limits_of_agreement, pair_values
from lib.reporting.style import COLOURS, figure_path, plain, pyplot, save

UNITS = {"_ml": "mL", "_mm2": "mm\u00b2", "_mm": "mm", "_px": "px"}  # suffix of a metric -> how its axis says it


def draw_results(folder: Path, rows: list[dict], metrics: Sequence[str], cases_are: str = "held-out cases") -> None:
    """Write a figure per metric under `folder`: rows of results.csv, as `COLUMNS` in lib/results says.

    A metric M beside which the cases have M_true gets its agreement, each of `metrics` its scores per class and fold.
    """
    cases = [row for row in rows if row.get("case") and not math.isnan(row["value"])]
    found = {row["metric"] for row in cases}
    compared = [m for m in dict.fromkeys(row["metric"] for row in cases) if m + TRUE in found and m not in DECISIONS]
    for metric in compared:
        draw_agreement(cases, metric, figure_path(folder, metric))
    for metric in dict.fromkeys(metrics):
        if metric not in compared:
            draw_metric([row for row in cases if row["metric"] == metric], metric, figure_path(folder, metric), cases_are)


def unit_of(metric: str) -> str:
    """The unit that a metric's name ends in, or an empty text."""
    return next((unit for suffix, unit in UNITS.items() if metric.endswith(suffix)), "")


def label_of(text: str, unit: str) -> str:
    return f"{text} ({unit})" if unit else text


def draw_metric(rows: list[dict], metric: str, path: Path, cases_are: str = "held-out cases") -> None:
    """A box per class, and in it the cases, in columns of their folds."""
    if not rows:
        return
    plt = pyplot()
    classes = list(dict.fromkeys(row["class"] for row in rows))
    folds = sorted({row["fold"] for row in rows}, key=lambda fold: (isinstance(fold, str), fold))
    jitter = np.random.default_rng(0)
    figure, axis = plt.subplots(figsize=(1.6 + 1.6 * len(classes), 3))
    for index, name in enumerate(classes):
        values = [r["value"] for r in rows if r["class"] == name]
        axis.boxplot(values, positions=[index], widths=0.5, showfliers=False, medianprops={"color": "black"})
        for number, fold in enumerate(folds):
            mine = [r["value"] for r in rows if r["class"] == name and r["fold"] == fold]
            step = 0.4 / len(folds)
            place = index + (number - (len(folds) - 1) / 2) * step + jitter.uniform(-0.3, 0.3, len(mine)) * step
            axis.plot(place, mine, "o", ms=3.5 if len(mine) < 100 else 1.8, alpha=0.75,
                      color=COLOURS[number % len(COLOURS)],
                      label=("all folds" if fold == "" else f"fold {fold}") if index == 0 else None)
    counts = [sum(r["class"] == name for r in rows) for name in classes]
    axis.set_xticks(range(len(classes)), [f"{plain(name)}\nn = {n}" for name, n in zip(classes, counts)])
    axis.set(ylabel=label_of(metric, unit_of(metric)), title=f"{metric} of {cases_are}")
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def pairs_of(rows: list[dict], metric: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """class -> (predicted, true) of the cases that have both."""
    found = {}
    for (name, paired), cases in pair_values(rows).items():
        values = np.array([pair for _, *pair in cases])
        values = values[~np.isnan(values).any(axis=1)]
        if paired == metric and len(values):
            found[name] = tuple(values.T)
    return found


def draw_agreement(rows: list[dict], metric: str, path: Path) -> None:
    """Predicted against true, and their difference against their mean (Bland & Altman 1986), a column per class."""
    pairs, unit = pairs_of(rows, metric), unit_of(metric)
    if not pairs:
        return
    plt = pyplot()
    figure, axes = plt.subplots(2, len(pairs), figsize=(3.3 * len(pairs), 5.9), squeeze=False)
    figure.suptitle(metric)
    for (above, below), (name, (predicted, true)) in zip(axes.T, pairs.items()):
        dots = {"marker": "o", "ls": "", "ms": 4 if len(true) < 100 else 2.2, "alpha": 0.75}
        low, high = min(predicted.min(), true.min()), max(predicted.max(), true.max())
        low = 0.0 if 0 <= low < 0.5 * high else low  # sizes start at nothing, unless all are alike
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        ends = (low - margin, high + margin)
        above.plot(ends, ends, color="grey", lw=0.8)
        above.plot(true, predicted, **dots)
        above.set(title=f"{plain(name)} (n = {len(true)})", xlabel=label_of("true", unit), ylabel=label_of("predicted", unit),
                  xlim=ends, ylim=ends, aspect="equal")
        bias, (lower, upper) = float((predicted - true).mean()), limits_of_agreement(predicted - true)
        below.plot((predicted + true) / 2, predicted - true, **dots)
        for level, style in ((bias, "-"), (lower, "--"), (upper, "--")):
            if not math.isnan(level):
                below.axhline(level, color="grey", lw=0.8, ls=style)
        limits = "" if math.isnan(lower) else f", limits {lower:.2f} to {upper:.2f}"
        below.set_title(f"bias {bias:.2f} {unit}".rstrip() + limits, fontsize=7)
        below.set(xlabel=label_of("mean", unit), ylabel=label_of("predicted - true", unit))
    save(figure, path)
