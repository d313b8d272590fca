"""What script 4 draws from results.csv: scores per class and fold, and measured against true sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Sequence

import numpy as np

from lib.evaluation.agreement import DECISIONS, TRUE, limits_of_agreement, pair_values
from lib.reporting.glossary import label_of, unit_of, with_unit
from lib.reporting.style import COLOURS, SMALL, figure_path, plain, pyplot, save

PANELS_IN_ROW = 4
# of the report: section, and what to read off the figure
BY_CLASS = ("Scores by class and fold", "A dot is a case; the box holds the middle half of the cases, its line is the median.")
AGREEMENT = ("Measured against true values", "Above, predicted against true values, with the line of equality. Below, their "
             "differences against their means, with bias and 95 % limits of agreement (Bland and Altman).")


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


def draw_metric(rows: list[dict], metric: str, path: Path, cases_are: str = "held-out cases") -> None:
    """A panel per class: in each a box of the cases of every fold, and of all, over the cases themselves."""
    if not rows:
        return
    plt = pyplot()
    classes = sorted(dict.fromkeys(row["class"] for row in rows), key=lambda name: name == "all")  # as they come, all last
    folds = sorted({row["fold"] for row in rows}, key=lambda fold: (isinstance(fold, str), fold))
    groups = {f"{fold}" if fold != "" else "fused": [fold] for fold in folds} if len(folds) > 1 else {}
    groups["all"] = folds
    across = min(len(classes), PANELS_IN_ROW)
    down = -(-len(classes) // across)
    wide = max(1.9, 0.42 * len(groups) + 0.7)
    figure, axes = plt.subplots(down, across, figsize=(max(4.0, wide * across + 0.4), 2.5 * down + 0.4), squeeze=False, sharey=True)
    figure.suptitle(f"{label_of(metric)} of {cases_are}")
    jitter = np.random.default_rng(0)
    for axis in axes.flat[len(classes):]:
        axis.axis("off")
    for number, (axis, name) in enumerate(zip(axes.flat, classes)):
        mine = [row for row in rows if row["class"] == name]
        counts = []
        for place, (label, chosen) in enumerate(groups.items()):
            values = np.array([row["value"] for row in mine if row["fold"] in chosen])
            counts.append(len(values))
            if len(values):
                colour = "black" if chosen is folds else COLOURS[place % len(COLOURS)]
                axis.plot(place + jitter.uniform(-0.22, 0.22, len(values)), values, "o", ms=3 if len(mine) < 100 else 1.6,
                          alpha=0.6, mew=0, color=colour)
                axis.boxplot(values, positions=[place], widths=0.6, showfliers=False, medianprops={"color": "black"})
        axis.set_xticks(range(len(groups)), [f"{label}\nn={count}" for label, count in zip(groups, counts)], fontsize=SMALL)
        axis.set_xlim(-0.6, len(groups) - 0.4)
        axis.set_title(plain(name), fontsize=9)
        if number % across == 0:
            axis.set_ylabel(with_unit(label_of(metric), unit_of(metric)))
        if number + across >= len(classes):
            axis.set_xlabel("fold")
    save(figure, path, *BY_CLASS)


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
    figure.suptitle(label_of(metric))
    for (above, below), (name, (predicted, true)) in zip(axes.T, pairs.items()):
        dots = {"marker": "o", "ls": "", "ms": 4 if len(true) < 100 else 2.2, "alpha": 0.75}
        low, high = min(predicted.min(), true.min()), max(predicted.max(), true.max())
        low = 0.0 if 0 <= low < 0.5 * high else low  # sizes start at nothing, unless all are alike
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        ends = (low - margin, high + margin)
        above.plot(ends, ends, color="grey", lw=0.8)
        above.plot(true, predicted, **dots)
        above.set(title=f"{plain(name)} (n = {len(true)})", xlabel=with_unit("true", unit), ylabel=with_unit("predicted", unit),
                  xlim=ends, ylim=ends, aspect="equal")
        bias, (lower, upper) = float((predicted - true).mean()), limits_of_agreement(predicted - true)
        below.plot((predicted + true) / 2, predicted - true, **dots)
        for level, style in ((bias, "-"), (lower, "--"), (upper, "--")):
            if not math.isnan(level):
                below.axhline(level, color="grey", lw=0.8, ls=style)
        limits = "" if math.isnan(lower) else f", limits {lower:.2f} to {upper:.2f}"
        below.set_title(f"bias {bias:.2f} {unit}".rstrip() + limits, fontsize=7)
        below.set(xlabel=with_unit("mean", unit), ylabel=with_unit("predicted - true", unit))
    save(figure, path, *AGREEMENT)
