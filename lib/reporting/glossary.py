"""The words of figures and of the report page: what a metric is called, its unit, how its numbers are written, and what it means."""

from __future__ import annotations

import math
import re

UNITS = {"_ml": "mL", "_mm2": "mm\u00b2", "_mm": "mm", "_px": "px"}  # suffix of a metric's name -> unit
# Suffixes that follow a measurement's name and unit -> how its label goes on.
SUFFIXES = {"_abs_error": "absolute error", "_error": "bias", "_loa_low": "lower limit of agreement",
            "_loa_high": "upper limit of agreement", "_missed": "missed", "_spurious": "spurious", "_true": "truth"}
ORDINARY = ("Accuracy", "Sensitivity", "Specificity")  # words that are small inside a sentence
DECISIONS = re.compile(r"present(_true)?")  # of a case 0 or 1, of many a share
COUNTS = re.compile(r".*_(missed|spurious)|cases|empty_truth_cases|.*_n|.*_positives|points")
# metric -> (label, meaning); a name in a pattern's group 1 goes where {} is
WORDS: dict[str, tuple[str, str]] = {
    r"dice": ("Dice", "Overlap of the predicted and the true region: twice what both share over the sum of both. 1 is perfect, "
                      "0 is no overlap."),
    r"iou": ("IoU", "Intersection over union (Jaccard): what both regions share over what either covers."),
    r"hd95(?:_mm|_px)": ("HD95", "95th-percentile Hausdorff distance: how far the borders lie apart at nearly their worst "
                                 "place. Smaller is better."),
    r"nsd": ("NSD", "Normalised Surface Dice: the share of both borders that lies within the stated tolerance."),
    r"accuracy": ("Accuracy", "The share that was judged rightly."),
    r"balanced_accuracy": ("Balanced accuracy", "The mean over classes of the share that was recognised."),
    r"precision": ("Precision", "Of what the model called positive, the share that is (positive predictive value)."),
    r"recall": ("Recall", "Of what is truly positive, the share that the model found (sensitivity)."),
    r"specificity": ("Specificity", "Of what is truly negative, the share that the model left alone."),
    r"sensitivity": ("Sensitivity", "Of what is truly positive, the share that the model found."),
    r"f1": ("F1", "Harmonic mean of precision and recall."),
    r"kappa": ("Cohen\u2019s kappa", "Agreement beyond what chance would give: 0 is chance, 1 is perfect."),
    r"roc_auc": ("ROC AUC", "The chance that a random positive gets a higher score than a random negative: 0.5 is guessing, "
                            "1 is perfect."),
    r"pr_auc": ("PR AUC", "Area under precision against recall; compare it with the share of positives, which guessing gives."),
    r"brier": ("Brier score", "Mean squared error of the probabilities. Smaller is better."),
    r"log_loss": ("Log loss", "How surprised the probabilities are by the truth. Smaller is better."),
    r"calibration_error": ("Calibration error", "How far stated probabilities lie from how often they come true."),
    r"iou_of_true_positives": ("IoU of true positives", "How well the boxes that hit overlap with the true ones."),
    r"m?ap@(.+)": ("{}", "Average precision of found boxes at the stated overlap (IoU) with the true ones; the first letter m "
                         "says the mean over classes."),
    r"mar@(.+)": ("{}", "Average recall of found boxes at the stated overlaps (IoU), mean over classes."),
    r"radial_error(?:_mm|_px)": ("Radial error", "Distance of the predicted from the true point, mean."),
    r"radial_error_median(?:_mm|_px)": ("Radial error, median", "Distance of the predicted from the true point, median."),
    r"radial_error_p95(?:_mm|_px)": ("Radial error, 95th percentile", "Distance that 95 % of the points stay below."),
    r"sdr@(.+)": ("Within {}", "Success detection rate: the share of points that lie within this distance of the truth."),
    r"volume(?:_ml)": ("Volume", "Size of the predicted region."),
    r"false_positive(?:_ml|_mm2|_px)": ("False positive size", "Size of what was marked and is not there."),
    r"probability": ("Probability", "What the model gives the class."),
    r"truth_probability": ("Probability of the truth", "What the model gives the true class."),
}


def unit_of(metric: str) -> str:
    """The unit that a metric's numbers are in, or an empty text: volume_ml_abs_error -> mL."""
    if COUNTS.fullmatch(metric):
        return ""
    for suffix in SUFFIXES:
        metric = metric.removesuffix(suffix)
    return next((unit for suffix, unit in UNITS.items() if metric.endswith(suffix)), "")


def with_unit(text: str, unit: str) -> str:
    """What stands at an axis: `true (mm)`."""
    return f"{text} ({unit})" if unit else text


def known(metric: str) -> tuple[str, str]:
    """(label, meaning) of a metric; a name that has no words yet is its own label and has no meaning."""
    for pattern, (label, meaning) in WORDS.items():
        found = re.fullmatch(pattern, metric)
        if found:
            shown = metric.replace("map@", "mAP@").replace("mar@", "mAR@").replace("ap@", "AP@") if label == "{}" else label
            return (shown.replace("{}", re.sub(r"(\d)(mm|px)$", r"\1 \2", found[1])) if found.groups() else shown), meaning
    if metric.startswith("presence_"):
        label, meaning = known(metric.removeprefix("presence_"))
        name = label[0].lower() + label[1:] if label in ORDINARY else label
        return f"Presence, {name}", meaning and f"Whether it is there at all. {meaning}"
    plain = metric
    for suffix in UNITS:
        plain = plain.removesuffix(suffix)
    plain = plain.replace("_", " ")
    return plain[:1].upper() + plain[1:], ""


def label_of(metric: str) -> str:
    """What the page calls a metric: hd95_mm -> HD95; volume_ml_abs_error -> Volume, absolute error."""
    for suffix, words in SUFFIXES.items():
        if metric.endswith(suffix) and metric not in WORDS:
            return f"{known(metric.removesuffix(suffix))[0]}, {words}"
    return known(metric)[0]


def meaning_of(metric: str) -> str:
    """A sentence or two for someone who does not compute metrics, or an empty text."""
    if metric not in WORDS and any(metric.endswith(suffix) for suffix in SUFFIXES):
        return ""
    return known(metric)[1]


def number(value: float | None, metric: str = "", unit: str | None = None) -> str:
    """A number as tables show it: three decimals where it has no unit, fewer where it is large; an en dash for none.
    Thousands stand apart by a narrow space."""
    if value is None or math.isnan(value):
        return "\u2013"
    if COUNTS.fullmatch(metric):
        return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
    size = abs(value)
    small = 2 if (unit_of(metric) if unit is None else unit) else 3
    decimals = small if size < 10 else 1 if size < 1000 else 0
    return f"{value:{',' if size >= 10000 else ''}.{decimals}f}".replace("-", "\u2212").replace(",", "\u202f")
