"""The words of lib/reporting/glossary.py: every metric that ships has a label, its unit, its direction, and a meaning."""
from __future__ import annotations

import re

import pytest
from test_conventions import NAMES, TASKS, evidence_of, mixed, task_of

from lib.evaluation.agreement import agreement
from lib.evaluation.measurements import make_measurements
from lib.reporting.glossary import (SUFFIXES, WORDS, direction_of, in_sentence, is_measurement, is_whole, label_of, meaning_of,
                                    number, score_label, term_of, unit_of)
from lib.study import STUDIES, InputError, load_study
from lib.tasks import make_task

# metric -> label, unit, whether it counts, whether larger is better
METRICS = {
    "dice": ("Dice", "", False, True), "iou": ("IoU", "", False, True), "nsd": ("NSD", "", False, True),
    "dice_tolerant": ("Dice, with tolerance", "", False, True), "iou_tolerant": ("IoU, with tolerance", "", False, True),
    "precision_tolerant": ("Precision, with tolerance", "", False, True),
    "recall_tolerant": ("Recall, with tolerance", "", False, True),
    "specificity_tolerant": ("Specificity, with tolerance", "", False, True),
    "accuracy_tolerant": ("Accuracy, with tolerance", "", False, True), "tolerance_truth": ("Truth used", "", False, None),
    "hd95_mm": ("HD95", "mm", False, False), "hd95_px": ("HD95", "px", False, False),
    "false_positive_ml": ("False positive size", "mL", False, False),
    "false_positive_mm2": ("False positive size", "mm\u00b2", False, False),
    "false_positive_px": ("False positive size", "px", False, False),
    "volume_ml": ("Volume", "mL", False, None), "area_mm2": ("Area", "mm\u00b2", False, None),
    "area_px": ("Area", "px", False, None),
    "accuracy": ("Accuracy", "", False, True), "balanced_accuracy": ("Balanced accuracy", "", False, True),
    "precision": ("Precision", "", False, True), "recall": ("Recall", "", False, True), "f1": ("F1", "", False, True),
    "specificity": ("Specificity", "", False, True), "kappa": ("Cohen\u2019s kappa", "", False, True),
    "roc_auc": ("ROC AUC", "", False, True), "pr_auc": ("PR AUC", "", False, True), "brier": ("Brier score", "", False, False),
    "log_loss": ("Log loss", "", False, False), "calibration_error": ("Calibration error", "", False, False),
    "probability": ("Probability", "", False, None), "truth_probability": ("Probability of the truth", "", False, True),
    "threshold": ("Threshold", "", False, None), "confidence": ("Confidence", "", False, None),
    "score": ("Score", "", False, None),
    "map@0.5": ("mAP@0.5", "", False, True), "map@[.5:.95]": ("mAP@[.5:.95]", "", False, True),
    "ap@0.5": ("AP@0.5", "", False, True),
    "ap@[.5:.95]": ("AP@[.5:.95]", "", False, True), "ar@[.5:.95]": ("AR@[.5:.95]", "", False, True),
    "mar@[.5:.95]": ("mAR@[.5:.95]", "", False, True),
    "iou_of_true_positives": ("IoU of true positives", "", False, True),
    "centre_error_mm": ("Centre error", "mm", False, False), "centre_error_px": ("Centre error", "px", False, False),
    "radial_error_mm": ("Radial error", "mm", False, False), "radial_error_px": ("Radial error", "px", False, False),
    "radial_error_median_mm": ("Radial error, median", "mm", False, False),
    "radial_error_median_px": ("Radial error, median", "px", False, False),
    "radial_error_p95_mm": ("Radial error, 95th percentile", "mm", False, False),
    "radial_error_p95_px": ("Radial error, 95th percentile", "px", False, False),
    "sdr@2mm": ("Within 2 mm", "", False, True), "sdr@2.5mm": ("Within 2.5 mm", "", False, True),
    "sdr@3mm": ("Within 3 mm", "", False, True), "sdr@4mm": ("Within 4 mm", "", False, True),
    **{f"sdr@{share}%": (f"Within {share} % of the side", "", False, True) for share in (1, 2, 4)},
    "present": ("Present", "", True, None), "present_true": ("Present, truth", "", True, None),
    "presence_roc_auc": ("Presence, ROC AUC", "", False, True),
    "presence_kappa": ("Presence, Cohen\u2019s kappa", "", False, True),
    "presence_sensitivity": ("Presence, sensitivity", "", False, True),
    "presence_specificity": ("Presence, specificity", "", False, True),
    "presence_accuracy": ("Presence, accuracy", "", False, True),
    "presence_threshold_ml": ("Presence, threshold", "mL", False, None),
    "presence_threshold_mm2": ("Presence, threshold", "mm\u00b2", False, None),
    "presence_threshold_px": ("Presence, threshold", "px", False, None),
    "presence_n": ("Presence, patients", "", True, None), "presence_positives": ("Presence, patients with it", "", True, None),
    "cases": ("Cases", "", True, None), "empty_truth_cases": ("Cases without it", "", True, None),
    "images_with_it": ("Images with it", "", True, None), "points": ("Points", "", True, None),
}
MEASURED = {"volume_ml": ("Volume", "mL"), "area_mm2": ("Area", "mm\u00b2"), "visible_share": ("visible share", ""),
            "nt_thickness_mm": ("nt thickness", "mm"), "bpd_mm": ("bpd", "mm"), "ofd_px": ("ofd", "px"),
            "head_circumference_mm": ("head circumference", "mm"), "\u5934\u56f4_mm": ("\u5934\u56f4", "mm")}
DERIVED = {"error": ("bias", False, None), "abs_error": ("absolute error", False, False),
           "loa_low": ("lower limit of agreement", False, None), "loa_high": ("upper limit of agreement", False, None),
           "missed": ("missed", True, False), "spurious": ("spurious", True, False), "true": ("truth", False, None)}


def test_no_measurement_can_take_a_metrics_name():
    """What a study named would be explained, and compared, as the metric."""
    scores = [name for name in METRICS if re.fullmatch(r"\w+", name)]
    assert len(scores) > 50
    for name in [*scores, "width_error", "width_missed", "width_true"]:
        with pytest.raises(InputError, match="name of a score"):
            make_measurements({name: {"kind": "thickness", "region": "a"}}, ("a",))
    assert make_measurements({"head_width": {"kind": "thickness", "region": "a"}}, ("a",))



@pytest.mark.parametrize("metric", METRICS)
def test_metrics_of_tasks(metric):
    label, unit, whole, larger = METRICS[metric]
    assert (label_of(metric), unit_of(metric), is_whole(metric), direction_of(metric)) == (label, unit, whole, larger)
    assert meaning_of(metric).endswith(".") and (term_of(metric) == label or metric.endswith("_true"))


@pytest.mark.parametrize("metric", MEASURED)
@pytest.mark.parametrize("suffix", DERIVED)
def test_what_is_said_of_a_measurement(metric, suffix):
    """A study's own name stays as it is written there."""
    (label, unit), (words, whole, larger) = MEASURED[metric], DERIVED[suffix]
    assert (label_of(metric), unit_of(metric), direction_of(metric)) == (label, unit, None) and is_measurement(metric)
    derived = f"{metric}_{suffix}"
    assert (label_of(derived), unit_of(derived)) == (f"{label}, {words}", "" if whole else unit)
    assert (is_whole(derived), direction_of(derived)) == (whole, larger) and not is_measurement(derived)
    assert meaning_of(derived).endswith(".") and term_of(derived).lower() == words  # one entry for all measurements


def test_all_that_agreement_derives_has_words():
    rows = [{"fold": 0, "patient": str(i), "case": str(i), "class": "x", "metric": metric, "value": float(i)}
            for i in range(4) for metric in ("bpd_mm", "bpd_mm_true")]
    derived = {row["metric"].removeprefix("bpd_mm") for row in agreement(rows)}
    assert derived == set(SUFFIXES) - {"_true"}


@pytest.mark.parametrize("kind", TASKS)
def test_metrics_of_sets_are_known(kind):
    evidence = evidence_of(kind, mixed(12), [f"p{i // 2}" for i in range(12)])
    task = task_of(kind)
    metrics = {metric for _, metric in task.score_set(evidence)} | set(task.selectable) | {
        metric.partition("/")[0] for metric in (*task.headline, *task.case_metrics, *task.figures)}
    assert len(metrics) > 5 and not metrics - set(METRICS)
    assert NAMES and all(task.selectable[metric] is direction_of(metric) for metric in task.selectable)
    facts = {metric for _, metric in task.set_facts(evidence)}
    assert {metric for metric in facts if is_whole(metric)} == facts - {"confidence", "threshold", "presence_threshold_ml"}


@pytest.mark.parametrize("path", sorted(STUDIES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_headlines_of_studies_have_a_meaning(path):
    task = make_task(load_study(str(path)))
    metrics = [metric.partition("/")[0] for metric in task.headline]
    assert metrics and [metric for metric in metrics if not meaning_of(metric)] == []
    assert all(direction_of(metric) is larger for metric, larger in task.selectable.items())


def test_no_words_are_of_nothing():
    """Every pattern is that of a metric above."""
    names = {*METRICS, *(metric.removeprefix("presence_") for metric in METRICS)}
    assert [pattern for pattern in WORDS if not any(re.fullmatch(pattern, name) for name in names)] == []


def test_numbers_as_a_reader_wants_them():
    assert [number(value) for value in (0.86149, 1, -0.5)] == ["0.861", "1.000", "\u22120.500"]
    assert number(None) == number(float("nan")) == "\u2013"
    assert number(6.4049, "hd95_mm") == "6.40" and number(149.19, "hd95_mm") == "149.2" and number(2453.4, "volume_ml") == "2453"
    assert number(0.5512, "iou_of_true_positives") == "0.551" and number(22.0, "images_with_it") == "22"
    assert number(1.5, "cases") == "1.5" and number(12345.0, "points") == "12,345"
    assert number(-432000.4, "area_px") == "\u2212432,000" and number(9999.4, "area_px") == "9999"


def test_scores_in_words():
    assert score_label("hd95_mm/stroke") == "validation HD95 of stroke (mm)" and score_label("dice/all") == "validation Dice"
    assert score_label("accuracy/all") == "validation accuracy" and score_label("validation_loss") == "validation loss"
    assert score_label("train_loss") == "training loss" and score_label("brier/all") == "validation Brier score"
    assert [in_sentence(label) for label in ("Within 2 mm", "NSD", "F1", "mAP@0.5")] == ["within 2 mm", "NSD", "F1", "mAP@0.5"]
    assert all(in_sentence(label).startswith(label[0]) for label in ("Dice", "Cohen\u2019s kappa", "IoU of true positives"))
