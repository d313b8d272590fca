"""What a plot shows, without how it is drawn: tasks make these, `draw_plots` in lib/reporting/plots.py draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, NamedTuple

import numpy as np

from lib.evaluation.classification import roc_auc, roc_curve

Limits = tuple[tuple[float, float], tuple[float, float]]  # of the horizontal and of the vertical axis
UNIT_SQUARE: Limits = ((0, 1), (0, 1))
Points = tuple[np.ndarray, np.ndarray]  # x and y, both (n,)
Line = tuple[str, np.ndarray, np.ndarray]  # what the legend calls it, scores (n,), positive bool (n,)
DECISIONS, ERRORS = "Decisions", "Errors"  # sections of the report; a figure may name another, which then comes after these

# In all of them `name` is the stem of the file, values that are NaN are left out, and units belong to the labels of the
# axes: "width (px)".


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """How the report shows a figure. section: the heading that it stands under, "" with those of no section; caption: what to
    read off it, in sentences, "" for none."""
    section: str = ""
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Curves(Shown):
    """Lines: precision over recall, ROC, reliability, loss over epochs.

    lines: what the legend says -> x, y, both (n,), in order of x; n may differ. limits: ((x low, x high), (y low,
    y high)), None to fit the values. diagonal: a thin line from corner to corner, what chance or perfect calibration
    gives. step: each height holds from the point to its left up to its own, as precision over recall does.
    """
    name: str
    title: str
    x_label: str
    y_label: str
    lines: dict[str, Points]
    limits: Limits | None = UNIT_SQUARE
    diagonal: bool = False
    step: bool = False


@dataclass(frozen=True, eq=False)
class Bars(Shown):
    """A number per class, written above its bar: cases that have it, AP.

    values: class -> number. whole: of how many, a dashed line; None for no line.
    """
    name: str
    title: str
    y_label: str
    values: dict[str, float]
    whole: float | None = None


@dataclass(frozen=True, eq=False)
class Counts(Shown):
    """How often each whole number occurs: boxes per image, frames per clip. values: (n,), a whole number per case."""
    name: str
    title: str
    x_label: str
    y_label: str
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Matrix(Shown):
    """A table of numbers, written in its cells: confusion (rows the truth, columns the prediction), co-occurrence.

    rows, columns: R and C names; values: (R, C). whole_numbers: counts; else numbers with two decimals.
    """
    name: str
    title: str
    x_label: str
    y_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    whole_numbers: bool = True


@dataclass(frozen=True, eq=False)
class Dots(Shown):
    """A dot per case, coloured by group: width and height of the boxes of each class.

    groups: what the legend says -> x, y, both (n,); the legend adds n. logarithmic: both axes; what is not above 0 is
    then left out.
    """
    name: str
    title: str
    x_label: str
    y_label: str
    groups: dict[str, Points]
    logarithmic: bool = False


@dataclass(frozen=True, eq=False)
class Maps(Shown):
    """A small heat map per class, each on its own scale with its largest value written above it: where boxes lie.

    maps: class -> (h, w), 0 or more, row 0 on top; such as the share of images (0..1) whose box covers the place.
    """
    name: str
    title: str
    maps: dict[str, np.ndarray]


Plot = Curves | Bars | Counts | Matrix | Dots | Maps


# --- ROC ---------------------------------------------------------------------------------------------------------


class RocWords(NamedTuple):
    """What ROC curves are of. of: "presence", for the title; counted: what is ranked, in the plural, for a legend that says how
    many of them are positive ("": it does not); rule: a sentence that says what is positive, and by what it is ranked."""
    of: str = ""
    counted: str = ""
    rule: str = ""


def roc_plot(lines: Iterable[Line], words: RocWords = RocWords(), pooled: bool = False) -> Curves:
    """The figure `roc`: a curve for each line, with the area under it. pooled: scores are those of several folds' models."""
    curves = {}
    for name, scores, positive in lines:
        count = f", {np.count_nonzero(positive)} of {len(positive)} {words.counted} positive" if words.counted else ""
        curves[f"{name}, AUC {roc_auc(scores, positive):.2f}{count}"] = roc_curve(scores, positive)
    caption = ["Sensitivity against the share of false alarms at every threshold; the diagonal is guessing.", words.rule,
               "Over all folds, scores of several models are ranked together." if pooled else ""]
    return Curves("roc", f"ROC of {words.of}" if words.of else "ROC", "1 - specificity", "sensitivity (recall)", curves,
                  diagonal=True, section=DECISIONS, caption=" ".join(filter(None, caption)))
