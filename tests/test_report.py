"""The facts of report.html, on hand-made folders: every number is that of the files."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from lib.evaluation.plots import Bars, Curves, roc_plot
from lib.reporting.glossary import counted, score_label
from lib.reporting.plots import draw_plots
from lib.reporting.report import charts_of, write_report
from lib.reporting.report.cases import case_rows, directions, failures_of, larger_is_better, picture_key, worst_cases
from lib.reporting.report.facts import fold_rows, folds_text, patient_flow, ranged, without_places
from lib.reporting.report.source import read_history
from lib.reporting.report.layers import PictureBook
from lib.reporting.report.provenance import largest_differences, provenance_rows
from lib.reporting.report.run_curves import draw_run_curves
from lib.reporting.results import draw_results
from lib.reporting.style import Drawing, collecting, pyplot
from lib.selection import NO_VALIDATION
from lib.study import load_study
from lib.tasks import make_task
from lib.workspace import write_table
from report_sources import ALL_TESTED, HASH, STUDY, evidence_of, history, load_study_of, source_of, write_history


# --- facts -----------------------------------------------------------------------------------------------------------


def test_words_for_numbers():
    assert [counted(n, "case") for n in (0, 1, 1250)] == ["0 cases", "1 case", "1,250 cases"]
    assert ranged([3, 3], "patient") == "3 patients" and ranged([4, 1, 2], "patient") == "1 to 4 patients"
    assert folds_text([2]) == "fold 2" and folds_text([0, 1, 4]) == "folds 0, 1 and 4"
    assert without_places("bad /home/me/data x.png: /a/b/c.png, C:\\x\\y.dcm and sub/d.png") == (
        "bad data x.png: c.png, y.dcm and sub/d.png")
    assert folds_text([1, 3], "epoch") == "epochs 1 and 3"


def test_folds_count_patients_and_cases_and_say_how_training_went(tmp_path):
    source = source_of(tmp_path, folds=(0, 2), models={2: {"finished": False}})
    write_history(source, 0, history(0))
    write_table(source.space.run("unet") / "crossvalidation.csv", ["fold", "status"],
                [{"fold": 1, "status": "failed: /home/me/x.log says so"}])
    first, second, third = fold_rows(source)
    assert first == {"fold": 0, "train_patients": 3, "train_cases": 3, "validation_patients": 1, "validation_cases": 1,
                     "test_patients": 2, "test_cases": 3, "epochs": 8, "best_epoch": 5, "validation_metric": "iou/all",
                     "validation_score": 0.5, "status": "finished"}
    assert (second["train_patients"], second["train_cases"]) == (3, 4) and second["epochs"] is second["best_epoch"] is None
    assert second["status"] == "no model (failed: x.log says so)"
    assert third["epochs"] is None and third["best_epoch"] == 7 and third["status"] == "unfinished"
    assert [row["fold"] for row in fold_rows(dataclasses.replace(source, loaded="x"))] == [0, 2]  # those of the loaded models


def test_a_fold_without_validation_has_no_score(tmp_path):
    source = source_of(tmp_path, models={1: {"metric": NO_VALIDATION, "score": None}})
    row = fold_rows(source)[1]
    assert row["validation_metric"] is None and row["validation_score"] is None  # "last epoch" is no metric


def test_learning_curves_are_those_of_the_models(tmp_path):
    source = source_of(tmp_path)
    write_history(source, 0, history(0))
    write_history(source, 1, history(0))  # the score of another training
    assert list(source.histories) == [0] and source.foreign == [1]
    assert math.isnan(source.histories[0][0]["iou/all"]) and source.histories[0][4]["iou/all"] == 0.5
    short = dataclasses.replace(source)
    write_history(short, 2, history(2, epochs=3))  # it ends before the epoch that was kept
    assert short.foreign == [1, 2]
    assert dataclasses.replace(source, loaded="x").histories == {}
    unscored = source_of(tmp_path / "other", models={0: {"metric": NO_VALIDATION, "score": None}})
    write_history(unscored, 0, history(3))
    assert list(unscored.histories) == [0]


def test_the_flow_leads_from_found_to_scored(tmp_path):
    rejected = [{"case": "z1", "file": "z1.png", "reason": "is no image"}, {"case": "z1", "file": "m.png", "reason": "missing"},
                {"case": "z2", "file": "", "reason": "empty /home/me/raw/z2"}]
    source = source_of(tmp_path, rejected=rejected, contents={"c": "same", "d": "same"}, folds=(0, 1))
    found, prepared, dealt, scored = patient_flow(source, "test", tmp_path, [], ALL_TESTED[:5])
    assert (found.patients, found.cases) == (None, 9)  # nobody knows whose the bad ones are
    assert found.detail == ["left out: 2 cases", "z1: z1.png: is no image", "z1: m.png: missing", "z2: empty z2"]
    assert (prepared.patients, prepared.cases) == (6, 7)
    assert prepared.detail == ["7 samples of 7 frames", "1 case with the very images of another: such cases count as one patient"]
    assert dealt.label == "Dealt into 3 folds" and (dealt.patients, dealt.cases) == (6, 7)
    assert dealt.detail == ["train: 3 patients in each fold", "validation: 1 patient in each fold",
                            "test: 2 patients in each fold"]
    assert (scored.label, scored.patients, scored.cases) == ("Scored as test cases", 4, 5)
    assert scored.detail == ["not scored: 2 cases of fold 2, without a model"]


def test_many_reasons_are_cut(tmp_path):
    rejected = [{"case": f"z{i}", "file": "", "reason": "bad"} for i in range(20)]
    found = patient_flow(source_of(tmp_path, rejected=rejected), "test", tmp_path, [], ALL_TESTED)[0]
    assert found.cases == 27 and found.detail[-1] == "and 8 more, see prepared/rejected.csv" and len(found.detail) == 14


def test_the_flow_of_the_raw_datas_own_subsets(tmp_path):
    splits = {0: {"p1": "train", "p2": "train", "p3": "train", "p4": "validation", "p5": "test", "p6": "external"}}
    source = source_of(tmp_path, folds=(0,), splits=splits)
    flow = patient_flow(source, "external", tmp_path, [], evidence_of(("", "p6", "f")))
    told = {step.label: (step.patients, step.cases) for step in flow}
    assert told["Subset of the raw data: train"] == (3, 4) and told["Subset of the raw data: test"] == (1, 1)
    assert told["Extra test folders, which never train"] == (1, 1) and told["Scored as external test cases"] == (1, 1)
    assert fold_rows(source)[0]["test_patients"] == 1


def test_the_flow_of_new_cases(tmp_path):
    source = source_of(tmp_path)
    write_table(tmp_path / "out" / "rejected.csv", ["case", "file", "reason"], [{"case": "y", "file": "y.png", "reason": "bad"}])
    sheet = [{"fold": "", "case": "n1", "patient": "n1"}, {"fold": "", "case": "n2", "patient": "n1"},
             {"fold": 1, "case": "c", "patient": "p3"}]
    new, predicted, scored = patient_flow(source, "", tmp_path / "out", sheet, evidence_of(("", "n1", "n1")))
    assert (new.patients, new.cases, new.detail) == (None, 4, ["left out: 1 case", "y: y.png: bad"])
    assert (predicted.patients, predicted.cases) == (2, 3)
    assert predicted.detail == ["1 case of the prepared data, by the one model that had not seen the patient"]
    assert (scored.patients, scored.cases) == (1, 1)
    assert patient_flow(source, "", tmp_path, sheet, [])[-1].cases == 0


def test_provenance_names_models_and_versions_and_no_places(tmp_path):
    source = source_of(tmp_path, models={1: {"finished": False, "score": None, "metric": NO_VALIDATION, "calibration": {}}})
    write_table(source.onnx / "parity.csv", ["fold", "largest_value", "largest_difference"],
                [{"fold": 0, "largest_value": 10, "largest_difference": 2e-5}, {"fold": 0, "largest_value": 2,
                 "largest_difference": 1e-5}, {"fold": 7, "largest_value": 1, "largest_difference": 1}])
    assert largest_differences(source) == {0: 5e-6}
    task = make_task(load_study_of(source))
    rows = dict(provenance_rows(source, task, {"study": STUDY, "computed_on": "CPU"}))
    assert rows["Data fingerprint"] == "f" * 32 and rows["Run"] == "unet" and rows["Packages, preparation"] == "numpy 1.2.3"
    assert rows["Model of fold 0"] == (f"checkpoint {HASH}, epoch 5, finished, iou/all 0.500, ONNX differs by at most 5.0e-06 "
                                       "of the largest value, probability threshold of nuchal_translucency: 0.4")
    assert rows["Model of fold 1"] == (f"checkpoint {HASH}, epoch 6, UNFINISHED training, no validation, probability threshold "
                                       "of nuchal_translucency: 0.5 (default)")
    assert "Tolerance" not in rows
    assert f"numpy {np.__version__}" in rows["Packages, here"] and str(tmp_path) not in str(rows)
    assert largest_differences(dataclasses.replace(source, loaded="x")) == {}


# --- cases -----------------------------------------------------------------------------------------------------------

MASKS = make_task(load_study("lumbar_spine"))


def tidy(case, values, fold=0, patient="p") -> list[dict]:
    return [{"fold": fold, "case": case, "patient": patient, "class": name, "metric": metric, "value": value}
            for (name, metric), value in values.items()]


def test_columns_say_the_overall_scores_first():
    values = {("bone", "area_px"): 5.0, ("bone", "dice"): 0.5, ("ligament", "dice"): math.nan, ("all", "iou"): 0.4,
              ("bone", "tolerance_truth"): 1.0, ("all", "dice"): 0.5}
    rows = [*tidy("a", values), *tidy("", {("all", "kappa"): 0.3})]
    sheet = [{"case": "a", "patient": "p", "fold": 0, "truth": "x", "image": "a.png", "unit": "px", "Dice": 0.5, "seconds": 3.2}]
    columns, cases, worst = case_rows(rows, sheet, MASKS, {"0/a": 4})
    assert [column.key for column in columns] == ["truth", "dice/all", "iou/all", "dice/bone", "area_px/bone", "dice/ligament"]
    assert [(column.class_, column.metric, column.larger_is_better, column.unit) for column in columns[3:5]] == [
        ("bone", "dice", True, ""), ("bone", "area_px", None, "px")]
    assert worst == "dice/all" and len(cases) == 1
    assert cases[0].values == {"truth": "x", "dice/all": 0.5, "iou/all": 0.4, "dice/bone": 0.5, "area_px/bone": 5.0,
                               "dice/ligament": None}
    assert (cases[0].key, cases[0].patient, cases[0].fold, cases[0].picture) == ("0/a", "p", 0, 4)
    assert picture_key("", "a") == "/a"


def test_a_case_in_several_folds_is_a_row_for_each():
    rows = [*tidy("a", {("all", "dice"): 0.5}, fold=0), *tidy("a", {("all", "dice"): 0.7}, fold=2)]
    sheet = [{"case": "a", "patient": "p", "fold": fold} for fold in (0, 2)]
    _, cases, _ = case_rows(rows, sheet, MASKS, {"2/a": 1})
    assert [(one.key, one.values["dice/all"], one.picture) for one in cases] == [("0/a", 0.5, None), ("2/a", 0.7, 1)]


def test_without_truth_no_column_is_worst():
    _, cases, worst = case_rows(tidy("a", {("bone", "area_px"): 3.0}), [{"case": "a", "patient": "p", "fold": ""}], MASKS, {})
    assert worst == "" and cases[0].failures == []


@pytest.mark.parametrize("scores, expected", [
    ({("bone", "area_px"): 0.0, ("bone", "area_px_true"): 9.0, ("bone", "iou"): 0.0}, ["missed: bone"]),
    ({("bone", "volume_ml"): 2.0, ("bone", "volume_ml_true"): 0.0, ("bone", "iou"): math.nan}, ["falsely found: bone"]),
    ({("bone", "area_px"): 3.0, ("bone", "area_px_true"): 9.0, ("bone", "iou"): 0.0}, ["wrong place: bone"]),
    ({("bone", "area_px"): 3.0, ("bone", "area_px_true"): 9.0, ("bone", "iou"): 0.2}, []),
    ({("nose", "present"): 0.0, ("nose", "present_true"): 1.0, ("nose", "iou"): 0.0}, ["missed: nose"]),
    ({("nose", "present"): 1.0, ("nose", "present_true"): 0.0}, ["falsely found: nose"]),
    ({("nose", "present"): 0.0, ("nose", "present_true"): 0.0}, []),
    ({("all", "nt_mm"): math.nan, ("all", "nt_mm_true"): 2.0}, ["not measured: nt"]),
    ({("x", "nt_mm"): 2.0, ("x", "nt_mm_true"): math.nan}, ["falsely measured: nt of x"]),
    ({("x", "nt_mm"): math.nan, ("x", "nt_mm_true"): math.nan}, []),
    ({("all", "dice"): math.nan}, ["undefined: Dice"]),
    ({("bone", "area_px"): 0.0, ("bone", "area_px_true"): 9.0, ("bone", "present"): 0.0, ("bone", "present_true"): 1.0},
     ["missed: bone"]),
])
def test_failures_in_plain_words(scores, expected):
    assert failures_of(scores, {}, "dice") == expected


def test_a_wrong_class_is_a_failure():
    assert failures_of({}, {"truth": "good", "predicted": "poor"}, "accuracy") == ["wrong class"]
    recalls = {("a", "recall"): 0.49, ("b", "recall"): 0.5, ("c", "recall"): 0.0, ("all", "recall"): 0.3}
    assert failures_of(recalls, {}, "dice") == ["mostly missed: a"]  # c is `missed` by its size
    assert failures_of({}, {"truth": "good", "predicted": "good"}, "accuracy") == []
    assert failures_of({}, {"predicted": "good"}, "accuracy") == []  # nobody knows


def test_the_worst_tenth():
    scores = {(0, str(i)): i / 20 for i in range(20)}
    assert worst_cases(scores, True) == {(0, "0"), (0, "1")} and worst_cases(scores, False) == {(0, "19"), (0, "18")}
    assert worst_cases(dict(list(scores.items())[:9]), True) == set()
    assert worst_cases({(0, str(i)): float(i > 2) for i in range(20)}, True) == set()  # three are equally bad, a tenth are two
    rows = [row for i in range(10) for row in tidy(str(i), {("all", "dice"): 0.1 * i})]
    _, cases, _ = case_rows(rows, [], MASKS, {})
    assert [one.case for one in cases if "worst tenth" in one.failures] == ["0"]


@pytest.mark.parametrize("metric, larger", [
    ("dice", True), ("nsd", True), ("dice_tolerant", True), ("presence_kappa", True), ("map@[.5:.95]", True), ("hd95_mm", False),
    ("volume_ml_abs_error", False), ("volume_ml_error", None), ("false_positive_ml", False), ("volume_ml", None),
    ("brier", False), ("volume_ml_missed", False), ("calibration_error", False), ("volume_ml_true", None), ("cases", None),
    ("threshold", None),
    ("radial_error_median_mm", False), ("sdr@2mm", True)])
def test_which_end_of_a_metric_is_better(metric, larger):
    assert larger_is_better(metric, MASKS) is larger
    assert directions([metric], MASKS) == ({} if larger is None else {metric: larger})


# --- curves ----------------------------------------------------------------------------------------------------------


def test_learning_curves_have_a_line_per_fold_and_a_ring_where_it_was_kept(tmp_path):
    with collecting() as drawings:
        draw_run_curves(tmp_path / "learning_curves.png", {fold: source_rows(fold) for fold in (0, 1)}, "iou/all", {0: 4, 1: 5})
    svg = drawings[0].svg
    assert (tmp_path / "learning_curves.png").is_file() and drawings[0].name == "learning_curves"
    for text in ("training loss, n = 2 folds", "validation loss, n = 2 folds", "validation IoU, n = 2 folds", "epoch", "fold 1"):
        assert text in svg
    assert "fold 2" not in svg


def source_rows(fold):
    return [{column: float(value) for column, value in row.items()} for row in history(fold)]


@pytest.mark.parametrize("text", ["epok,train_loss\n0,1\n", "epoch,train_loss\n0,one\n", "epoch;train_loss\n0;1\n", ""])
def test_a_damaged_table_of_training_is_no_curve(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    assert read_history(tmp_path / "metrics.csv") == [] == read_history(tmp_path / "none.csv")


def test_rings_lie_on_the_kept_epochs(tmp_path, monkeypatch):
    from lib.reporting.report import run_curves
    figures = []
    monkeypatch.setattr(run_curves, "save", lambda figure, path, *words: figures.append(figure) or path)
    run_curves.draw_run_curves(tmp_path / "x.png", {0: source_rows(0), 1: source_rows(1)}, "iou/all", {0: 4, 1: 5})
    score = figures[0].axes[2]
    assert [line.get_xydata().tolist() for line in score.lines[2:]] == [[[5, 0.5]], [[6, 0.6]]]
    assert len(score.lines[0].get_xydata()) == 7  # the first epoch's is undefined
    assert score.get_xlabel() == "epoch" and score.get_ylabel() == "validation IoU"
    pyplot().close("all")


def test_nothing_recorded_is_no_figure(tmp_path):
    assert draw_run_curves(tmp_path / "x.png", {}, "iou/all", {}) is None and list(tmp_path.iterdir()) == []
    with collecting() as drawings:  # selected on the loss: two panels, not three
        draw_run_curves(tmp_path / "x.png", {0: source_rows(0)}, "validation_loss", {0: 7})
    assert "IoU" not in drawings[0].svg and drawings[0].svg.count("n = 1 fold") == 2
    assert score_label("hd95_mm/stroke") == "validation HD95 of stroke (mm)"
    assert score_label("accuracy/all") == "validation accuracy" and score_label("dice/all") == "validation Dice"


def test_charts_stand_in_sections(tmp_path):
    """Each figure as it is drawn says itself where it stands and what it shows."""
    row = {"fold": 0, "case": "a", "patient": "p", "class": "x"}
    rows = [{**row, "metric": metric, "value": 2.0} for metric in ("nt_px", "nt_px_true", "dice")]
    line = {"a": (np.array([0.0, 1]), np.array([0.0, 1]))}
    plots = [Curves("slopes", "T", "x", "y", line, section="Slopes of the study", caption="Steep is good."),
             roc_plot([("a", np.array([0.1, 0.9]), np.array([False, True]))])]
    with collecting() as drawings:
        draw_plots(tmp_path, plots)
        draw_results(tmp_path, rows, ("dice",))
        draw_run_curves(tmp_path / "learning_curves.png", {0: source_rows(0)}, "iou/all", {0: 4})
    charts = charts_of(drawings)
    assert [(chart.section, chart.name) for chart in charts] == [
        ("Training", "learning_curves"), ("Scores by class and fold", "dice"), ("Decisions", "roc"),
        ("Measured against true values", "nt_px"), ("Slopes of the study", "slopes")]
    told = {chart.name: chart.caption for chart in charts}
    assert "ring" in told["learning_curves"] and "median" in told["dice"] and "false alarms" in told["roc"]
    assert "Bland" in told["nt_px"] and told["slopes"] == "Steep is good."
    assert {chart.name: chart.title for chart in charts}["nt_px"] == "nt (px)"  # in mm it has the same title


def test_a_figure_that_nobody_knows_gets_no_words_of_others(tmp_path):
    line = {"a": (np.array([0.0, 1]), np.array([0.0, 1]))}
    with collecting() as drawings:
        draw_plots(tmp_path, [Curves("calibration_slope", "Calibration", "x", "y", line),
                              Bars("counts", "Counts", "n", {"a": 1})])
    known = [Drawing("roc", "ROC", "<svg/>", "Decisions", "Curves."),
             Drawing("own", "Own", "<svg/>", "A task's own", "Own words.")]
    charts = charts_of([*drawings, *known, Drawing("dice", "no scores of ours", "<svg/>")])
    assert [(chart.name, chart.section, chart.caption) for chart in charts] == [
        ("roc", "Decisions", "Curves."), ("own", "A task's own", "Own words."), ("calibration_slope", "Further figures", ""),
        ("counts", "Further figures", ""), ("dice", "Further figures", "")]


# --- the page --------------------------------------------------------------------------------------------------------


def made_report(folder, study, subset="test", pictures=True):
    source = source_of(folder / "work", study=study)
    for fold in range(3):
        if not (source.space.fold("unet", fold) / "metrics.csv").is_file():
            write_history(source, fold, history(fold))
    rows, sheet, main = [], [], make_task(study).case_metrics[0]
    for number, one in enumerate(ALL_TESTED):
        rows += tidy(one["case"], {("all", main): 0.1 * number or math.nan, ("all", "x_mm"): 2.0, ("all", "x_mm_true"): math.nan},
                     one["fold"], one["patient"])
        sheet.append({"case": one["case"], "patient": one["patient"], "fold": one["fold"], "seconds": 0.1 * number})
    summary = [{"class": "all", "metric": main, "folds": 3, "mean": 0.3, "sd": 0.1, "patients": 6, "estimate": 0.3, "ci_low": 0.2,
                "ci_high": 0.4, "fold0": 0.1, "fold1": 0.3, "fold2": None}]
    target = folder / "results"
    with collecting() as drawings, PictureBook(target / "spool") as book:
        for one in ALL_TESTED if pictures else ():
            book.add(picture_key(one["fold"], one["case"]), np.full((20, 30, 3), 90, np.uint8), None, None)
        manifest = {"study": STUDY, "run": "unet", "computed_on": "CPU", **({"subset": subset} if subset else {})}
        path = write_report(target, source, study, make_task(study), manifest, rows, sheet, summary, ALL_TESTED, book, drawings)
    return path.read_text(encoding="utf-8")


def test_the_report_is_one_file_of_the_same_bytes_without_places_times_and_secrets(tmp_path):
    study = load_study("echo_quality", ["data.reader.patient_salt=TOPSECRET", "data.input=/home/me/secret_place",
                                        "data.size=[8,8]"])
    page = made_report(tmp_path / "one", study)
    assert page == made_report(tmp_path / "two", study)
    assert "TOPSECRET" not in page and "secret_place" not in page and str(tmp_path) not in page
    assert not re.search(r"\b\d\d:\d\d:\d\d\b|20\d\d-\d\d-\d\d", page)
    left = sorted(path.name for path in (tmp_path / "one" / "results").iterdir())
    assert left == ["figures", "report.html"]
    for text in ("Learning curves of the folds", "held-out test patients", "Quality of echocardiography loops",
                 "falsely measured: ", "report.intended_use", "f" * 32, HASH, "undefined: "):
        assert text in page


def test_the_report_of_any_subset_can_be_written(tmp_path):
    study = load_study(STUDY, ["data.size=[8,8]"])
    assert "who have chosen epochs, and any thresholds" in made_report(tmp_path / "1", study, "validation")
    assert "new cases" in made_report(tmp_path / "2", study, "", pictures=False)
    assert "There are no pictures" in (tmp_path / "2" / "results" / "report.html").read_text(encoding="utf-8")
