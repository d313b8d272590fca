"""The words of figures and of the report page: what a metric is called, its unit, how its numbers are written, what it means, and
which end of it is better."""

from __future__ import annotations

import functools
import math
import re

from lib.evaluation.agreement import DECISIONS, TRUE
from lib.tasks.base import ALL

UNITS = {"_ml": "mL", "_mm2": "mm\u00b2", "_mm": "mm", "_px": "px"}  # suffix of a metric's name -> unit
PEOPLE = ("Dice", "Cohen", "Brier")  # with a capital letter wherever they stand
# Numbers of cases, images, patients or points. How many were missed is an estimate as well, the others describe the set.
COUNTS = re.compile(r".*_(missed|spurious)|cases|empty_truth_cases|images_with_it|presence_(n|positives)|points")
Words = tuple[str, str, bool | None]  # label, meaning, whether larger is better (None where neither is)
# Suffixes that follow a measurement's name and unit -> how its label goes on, and the rest as above.
SUFFIXES: dict[str, Words] = {
    "_abs_error": ("absolute error", "How far the measured value lies from the true one, whichever way, mean over cases.", False),
    "_error": ("bias", "The measured minus the true value, mean over cases: above 0 is too much, below 0 too little.", None),
    "_loa_low": ("lower limit of agreement", "About 95 % of the differences, measured minus true, lie between the lower and the "
                                             "upper limit (Bland and Altman).", None),
    "_loa_high": ("upper limit of agreement", "About 95 % of the differences, measured minus true, lie between the lower and the "
                                              "upper limit (Bland and Altman).", None),
    "_missed": ("missed", "Cases with a true value for which none was measured.", False),
    "_spurious": ("spurious", "Cases without a true value for which one was measured.", False),
    TRUE: ("truth", "The true value, to hold the measured one against.", None),
}
SIZES = re.compile(r"(volume|area)(_ml|_mm2|_px)")  # of a region
# metric -> words; where the label is empty, it is the name with AP and AR in capitals. What group 1 finds goes where {} is.
WORDS: dict[str, Words] = {
    r"dice": ("Dice", "Overlap of the predicted and the true region: twice what both share over the sum of both. 1 is perfect, "
                      "0 is no overlap.", True),
    r"iou": ("IoU", "Intersection over union (Jaccard): what both regions share over what either covers.", True),
    r"hd95(?:_mm|_px)": ("HD95", "95th-percentile Hausdorff distance: how far the borders lie apart at nearly their worst "
                                 "place. Cases in which the region was missed have none and are left out: read it beside "
                                 "recall.", False),
    r"nsd": ("NSD", "Normalised Surface Dice: the share of both borders that lies within the stated tolerance.", True),
    r"accuracy": ("Accuracy", "The share that was judged rightly.", True),
    r"balanced_accuracy": ("Balanced accuracy", "The mean over classes of the share that was recognised.", True),
    r"precision": ("Precision", "Of what the model called positive, the share that is (positive predictive value).", True),
    r"recall": ("Recall", "Of what is truly positive, the share that the model found (sensitivity).", True),
    r"specificity": ("Specificity", "Of what is truly negative, the share that the model left alone.", True),
    r"sensitivity": ("Sensitivity", "Of what is truly positive, the share that the model found.", True),
    r"f1": ("F1", "Harmonic mean of precision and recall.", True),
    r"kappa": ("Cohen\u2019s kappa", "Agreement beyond what chance would give: 0 is chance, 1 is perfect.", True),
    r"roc_auc": ("ROC AUC", "The chance that a random positive gets a higher score than a random negative: 0.5 is guessing, "
                            "1 is perfect.", True),
    r"pr_auc": ("PR AUC", "Area under precision against recall; compare it with the share of positives, which guessing gives.",
                True),
    r"brier": ("Brier score", "Mean squared error of the probabilities. Smaller is better.", False),
    r"log_loss": ("Log loss", "How surprised the probabilities are by the truth. Smaller is better.", False),
    r"calibration_error": ("Calibration error", "How far stated probabilities lie from how often they come true. Smaller is "
                                                "better.", False),
    r"threshold": ("Threshold", "The probability from which the answer is the positive class.", None),
    r"probability": ("Probability", "What the model gives the class.", None),
    r"truth_probability": ("Probability of the truth", "What the model gives the true class.", True),
    r"iou_of_true_positives": ("IoU of true positives", "How well the boxes that hit overlap with the true ones.", True),
    r"m?ap@.+": ("", "Average precision of found boxes at the stated overlap (IoU) with the true ones; the first letter m "
                     "says the mean over classes.", True),
    r"m?ar@.+": ("", "Average recall of found boxes at the stated overlaps (IoU) with the true ones; the first letter m says the "
                     "mean over classes.", True),
    r"centre_error(?:_mm|_px)": ("Centre error", "Distance of the centre of the predicted box from that of the true one, mean.",
                                 False),
    r"radial_error(?:_mm|_px)": ("Radial error", "Distance of the predicted from the true point, mean.", False),
    r"radial_error_median(?:_mm|_px)": ("Radial error, median", "Distance of the predicted from the true point, median.", False),
    r"radial_error_p95(?:_mm|_px)": ("Radial error, 95th percentile", "Distance that 95 % of the points stay below.", False),
    r"sdr@(.+mm)": ("Within {}", "Success detection rate: the share of the true points that were found and lie within this "
                                 "distance of the truth.", True),
    r"sdr@(.+)%": ("Within {} % of the side", "Success detection rate: the share of the true points that were found and lie "
                                              "within this share of the image\u2019s longer side of the truth.", True),
    r"volume(?:_ml)": ("Volume", "Size of the predicted region.", None),
    r"area(?:_mm2|_px)": ("Area", "Size of the predicted region.", None),
    r"false_positive(?:_ml|_mm2|_px)": ("False positive size", "Size of what was marked and is not there.", False),
    r"present": ("Present", "Whether it is there; of many cases, the share that has it.", None),
    r"score": ("Score", "How sure the model is that it is there, from 0 to 1.", None),
    r"confidence": ("Confidence", "How sure the model is of an answer; as one number of a set, from where on an answer "
                                 "counts.", None),
    r"tolerance_truth": ("Truth used", "0 is the truth as it is drawn; else it was shrunk or grown by the tolerance.", None),
    r"cases": ("Cases", "How many cases were scored.", None),
    r"empty_truth_cases": ("Cases without it", "Cases whose truth has nothing of this class, so that overlap is not defined for "
                                               "them.", None),
    r"images_with_it": ("Images with it", "Images whose truth has it.", None),
    r"points": ("Points", "True points of all images.", None),
    r"presence_n": ("Presence, patients", "Patients of whom it was judged whether they have it.", None),
    r"presence_positives": ("Presence, patients with it", "Patients who truly have it.", None),
    r"presence_threshold(?:_ml|_mm2|_px)": ("Presence, threshold", "The size above which it counts as there.", None),
}
PRESENCE, TOLERANT = "presence_", "_tolerant"


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


@functools.cache
def words_of(metric: str) -> Words:
    """Label, meaning and direction of a metric. What the study named has its own name as label, as it is written there."""
    for pattern, (label, meaning, larger) in WORDS.items():
        found = re.fullmatch(pattern, metric)
        if found:
            label = label or re.sub(r"a[pr]@", lambda letters: letters[0].upper(), metric)
            part = re.sub(r"(\d)mm$", r"\1 mm", found[1]) if found.groups() else ""
            return label.replace("{}", part), meaning, larger
    if metric.startswith(PRESENCE):
        label, meaning, larger = words_of(metric.removeprefix(PRESENCE))
        return f"Presence, {in_sentence(label)}", meaning and f"Whether it is there at all. {meaning}", larger
    if metric.endswith(TOLERANT):
        label, meaning, larger = words_of(metric.removesuffix(TOLERANT))
        return f"{label}, with tolerance", meaning and (
            f"{meaning} With the stated tolerance at the border: the truth is taken as it is, or shrunk or grown by as much, "
            "whichever fits best."), larger
    for suffix, (words, meaning, larger) in SUFFIXES.items():
        if metric.endswith(suffix):
            return f"{words_of(metric.removesuffix(suffix))[0]}, {words}", meaning, larger
    for suffix in UNITS:
        metric = metric.removesuffix(suffix)
    return metric.replace("_", " "), "", None


def label_of(metric: str) -> str:
    """What the page calls a metric: hd95_mm -> HD95; volume_ml_abs_error -> Volume, absolute error; nt_thickness_mm (of a
    study) -> nt thickness."""
    return words_of(metric)[0]


def meaning_of(metric: str) -> str:
    """A sentence or two for someone who does not compute metrics, or an empty text."""
    return words_of(metric)[1]


def direction_of(metric: str) -> bool | None:
    """Whether larger is better; None where neither is (a volume, a bias, a count) or nobody knows."""
    return words_of(metric)[2]


def term_of(metric: str) -> str:
    """What the reading aid explains: the label, without the name of the study's measurement that it may begin with."""
    label, meaning, _ = words_of(metric)
    shared = next((words for words, explained, _ in SUFFIXES.values() if explained == meaning and label.endswith(words)), "")
    return shared[:1].upper() + shared[1:] or label


def in_sentence(label: str) -> str:
    """Radial error -> radial error; HD95 and Cohen's kappa as they are."""
    ordinary = label.partition(" ")[0][1:].islower() and not label.startswith(PEOPLE)
    return label[0].lower() + label[1:] if ordinary else label


def score_in_words(score: str) -> str:
    """A score that may choose an epoch: dice/all -> validation Dice; dice/stroke -> validation Dice of stroke; validation_loss ->
    validation loss."""
    metric, _, name = score.partition("/")
    if metric in ("train_loss", "validation_loss"):
        return metric.replace("train_", "training ").replace("_", " ")
    return f"validation {in_sentence(label_of(metric))}" + (f" of {name}" if name not in ("", ALL) else "")


def score_label(score: str) -> str:
    """What stands at its axis: hd95_mm/stroke -> validation HD95 of stroke (mm)."""
    return with_unit(score_in_words(score), unit_of(score.partition("/")[0]))


def is_whole(metric: str) -> bool:
    """Whether a case's value is a whole number: a count, or 1 for yes and 0 for no."""
    return bool(COUNTS.fullmatch(metric)) or metric.removesuffix(TRUE) in DECISIONS


def is_measurement(metric: str) -> bool:
    """Whether it says how large something is, which the truth says too: the size of a region, or what the study measures."""
    return bool(SIZES.fullmatch(metric)) or not meaning_of(metric)


def counted(count: int, thing: str) -> str:
    """1 patient, 1,250 patients."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def number(value: float | None, metric: str = "", unit: str | None = None) -> str:
    """A number as tables show it: three decimals where it has no unit, fewer where it is large; an en dash for none."""
    if value is None or math.isnan(value):
        return "\u2013"
    if COUNTS.fullmatch(metric):
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    size = abs(value)
    small = 2 if (unit_of(metric) if unit is None else unit) else 3
    decimals = small if size < 10 else 1 if size < 1000 else 0
    return f"{value:{',' if size >= 10000 else ''}.{decimals}f}".replace("-", "\u2212")
