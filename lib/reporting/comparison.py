"""What `4-InferenceTest.py --compare` draws (differences around zero, one run against the other, intervals) and prints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Sequence

import numpy as np

from lib.reporting.glossary import direction_of, label_of, unit_of, with_unit
from lib.reporting.style import SMALL, dot_style, figure_path, legend, plain, pyplot, save, wrapped

COLUMN_INCHES, ROW_INCHES = 1.25, 0.27  # per class, per number over the set
CROWD = 100  # cases from which dots are smaller
FEW_DOTS = 6  # up to which each says how many cases it is
MOST_LINES = 8  # of what is told in passing


def draw_comparison(folder: Path, rows: Sequence[dict], differences: Sequence[dict], runs: tuple[str, str]) -> list[Path]:
    """Write `difference_<metric>.png` for every metric of single cases, and `difference_over_all_cases.png` of the numbers over
    the whole set; returns the paths.

    rows: of comparison.csv, those to draw. differences: of differences.csv. runs: what A and B are called.
    """
    paths = []
    of_cases = [row for row in rows if row["level"] == "case" and row["cases"]]
    for metric in dict.fromkeys(row["metric"] for row in of_cases):
        mine = [row for row in of_cases if row["metric"] == metric]
        pairs = [pairs_of(differences, row) for row in mine]
        paths.append(draw_metric(mine, pairs, metric, runs, figure_path(folder, f"difference_{metric}")))
    of_sets = [row for row in rows if row["level"] == "set" and not math.isnan(row["difference_b_minus_a"])]
    return paths + ([draw_sets(of_sets, runs, figure_path(folder, "difference_over_all_cases"))] if of_sets else [])


def pairs_of(differences: Sequence[dict], row: dict) -> np.ndarray:
    """(n, 2) values in A and in B of a row's cases."""
    found = [(one["a"], one["b"]) for one in differences if (one["class"], one["metric"]) == (row["class"], row["metric"])]
    found = np.array(found, np.float64).reshape(-1, 2)
    return found[~np.isnan(found).any(axis=1)]


def draw_metric(rows: Sequence[dict], pairs: Sequence[np.ndarray], metric: str, runs: tuple[str, str], path: Path) -> Path:
    """Left: per class a box of B - A over its cases, their mean with its interval beside it, and how many there are; right: B
    against A."""
    width = max(3.0, 0.9 + COLUMN_INCHES * len(rows))
    unit = unit_of(metric)
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(width + 4.9, 4.0), width_ratios=(width, 4.9))
    figure.suptitle(wrapped(f"{label_of(metric)}: {runs[1]} (B) minus {runs[0]} (A)", round(9 * (width + 4.9))))
    left.axhline(0, color="grey", lw=0.8, ls="--", zorder=0)
    jitter, labels = np.random.default_rng(0), []
    for place, (row, values) in enumerate(zip(rows, pairs)):
        gaps = values[:, 1] - values[:, 0]
        look = dot_style(place) | {"ls": "", "ms": 3.2 if len(gaps) < CROWD else 1.7, "alpha": 0.6, "mew": 0}
        left.plot(place - 0.1 + jitter.uniform(-0.18, 0.18, len(gaps)), gaps, **look)
        left.boxplot(gaps, positions=[place - 0.1], widths=0.45, showfliers=False, medianprops={"color": "black"},
                     manage_ticks=False)
        draw_interval(left, row, place + 0.28, upright=True)
        labels.append(f"{wrapped(row['class'], 16)}\nn = {row['cases']}\n{number(row['difference_b_minus_a'])}\n{interval(row)}")
        right.plot(values[:, 0], values[:, 1], **look)
    left.set_xticks(range(len(rows)), labels, fontsize=SMALL)
    left.set_xlim(-0.6, len(rows) - 0.4)
    left.set_ylabel(with_unit("B - A", unit))
    left.set_xlabel("box: cases; black dot and line: their mean and its 95 % interval", fontsize=SMALL)
    ends = limits_of(np.concatenate(pairs))
    right.plot(ends, ends, color="grey", lw=0.8, ls="--", zorder=0)
    right.set(xlim=ends, ylim=ends, aspect="equal", xlabel=with_unit(plain(f"A: {runs[0]}"), unit),
              ylabel=with_unit(plain(f"B: {runs[1]}"), unit))
    legend(right, [row["class"] for row in rows])
    if len(rows) == 1:
        count_dots(right, pairs[0])
    return save(figure, path)


def count_dots(axis, values: np.ndarray) -> None:
    """Beside the dots how many cases each is, where there are only a few: of what is right or wrong, one dot hides all others."""
    places, counts = np.unique(values, axis=0, return_counts=True)
    for place, count in zip(places, counts) if len(places) <= FEW_DOTS else ():
        axis.annotate(f"{count}", place, xytext=(0, 5), textcoords="offset points", ha="center", fontsize=SMALL + 1)


def draw_sets(rows: Sequence[dict], runs: tuple[str, str], path: Path) -> Path:
    """A line for each number over the whole set: its difference with its interval; a panel for each unit."""
    units = list(dict.fromkeys(unit_of(row["metric"]) for row in rows))
    panels = [[row for row in rows if unit_of(row["metric"]) == unit] for unit in units]
    heights = [0.9 + ROW_INCHES * len(panel) for panel in panels]
    figure, axes = pyplot().subplots(len(panels), 1, figsize=(6.8, sum(heights) + 0.6), height_ratios=heights, squeeze=False)
    title = f"{runs[1]} (B) minus {runs[0]} (A), over {rows[0]['cases']} cases of {rows[0]['patients']} patients"
    figure.suptitle(wrapped(title, 62))
    for axis, unit, panel in zip(axes[:, 0], units, panels):
        axis.axvline(0, color="grey", lw=0.8, ls="--", zorder=0)
        for place, row in enumerate(panel):
            draw_interval(axis, row, place, upright=False)
        lower = [" (lower is better)" if direction_of(row["metric"]) is False else "" for row in panel]
        names = [plain(f"{label_of(row['metric'])}, {row['class']}{better}") for row, better in zip(panel, lower)]
        axis.set_yticks(range(len(panel)), names, fontsize=SMALL + 1)
        axis.set_ylim(len(panel) - 0.5, -0.5)
        axis.set_xlabel(with_unit("B - A, 95 % interval", unit))
    return save(figure, path)


def draw_interval(axis, row: dict, place: float, upright: bool) -> None:
    """The difference as a black dot, with a line over its interval if it has one."""
    ends, middle = (row["ci_low"], row["ci_high"]), row["difference_b_minus_a"]
    along = [(ends, (place, place)), ((middle,), (place,))]
    for values, places in along[math.isnan(ends[0]):]:
        axis.plot(*((places, values) if upright else (values, places)), color="black", marker="o" if len(values) == 1 else "",
                  ms=4, lw=1.4)


def limits_of(values: np.ndarray) -> tuple[float, float]:
    """Of both axes, with some air around the values."""
    low, high = float(values.min()), float(values.max())
    air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def interval(row: dict) -> str:
    return "no interval" if math.isnan(row["ci_low"]) else f"[{number(row['ci_low'])}, {number(row['ci_high'])}]"


def number(value: float) -> str:
    """With its sign, in three digits."""
    return f"{value:+.3g}"


# --- for the screen ----------------------------------------------------------------------------------------------


def table(rows: Sequence[dict]) -> str:
    """Rows of comparison.csv that have cases as a table for the screen; in place of a p that could not be computed stands
    why."""
    lines = [f"{'class':<20} {'metric':<27} {'better':<6} {'A':>9} {'B':>9}  {'B minus A [95 % interval]':<28} {'p':>8} "
             f"{'Holm p':>8} {'cases':>6}"]
    for row in [row for row in rows if row["cases"]]:
        interval = "" if math.isnan(row["ci_low"]) else f" [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]"
        gap = "" if math.isnan(row["difference_b_minus_a"]) else f"{row['difference_b_minus_a']:+.3f}{interval}"
        tested = f"{chance(row['p']):>8} {chance(row['p_holm']):>8}" if not math.isnan(row["p"]) else \
            f"{row['test'].removeprefix('none: '):>17}"
        better = {True: "higher", False: "lower", None: ""}[direction_of(row["metric"])]
        lines.append(f"{row['class']:<20} {row['metric']:<27} {better:<6} {row['estimate_a']:>9.3f} {row['estimate_b']:>9.3f}  "
                     f"{gap:<28} {tested} {row['cases']:>6}")
    return "\n".join(lines)


def chance(p: float) -> str:
    """In three digits; "<0.001" only for what would be 0.000, so that the least p of a bootstrap, 2 / 2001, is 0.001."""
    shown = f"{p:.3f}"
    return "<0.001" if shown == "0.000" else shown


def left_out(rows: Sequence[dict]) -> list[str]:
    """Where one run has a value and the other none, which a mean over the rest does not show."""
    found = [f"{row['metric']} of {row['class']}: left out are cases with a value in A only ({row['only_a']}) or in B only "
             f"({row['only_b']})" for row in rows if row["only_a"] or row["only_b"]]
    return found[:MOST_LINES] + ([f"... and in {len(found) - MOST_LINES} other rows: see comparison.csv"]
                                 if len(found) > MOST_LINES else [])
