"""The facts of report.html, on hand-made folders: every number is that of the files, and nothing is claimed beyond them."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest

from lib.data.store import Prepared, geometry_text
from lib.imaging.geometry import Geometry
from lib.report import SUBSET_LABELS, charts_of, write_report
from lib.report.card import caveats, learnt_nothing, missing_parts, model_card, warnings_of
from lib.report.cases import case_rows, directions, failures_of, larger_is_better, picture_key, worst_cases
from lib.report.facts import (Source, counted, fold_rows, folds_text, largest_differences, patient_flow, provenance_rows, ranged,
                              thresholds_text, without_places)
from lib.report.methods import augmentation_text, methods_text
from lib.reporting.layers import PictureBook
from lib.reporting.run_curves import draw_run_curves, score_label
from lib.reporting.style import Drawing, collecting
from lib.selection import NO_VALIDATION
from lib.study import STUDIES, Augmentation, load_study, without_paths
from lib.tasks import make_task
from lib.workspace import FORMAT, Workspace, write_json, write_table

STUDY = "nuchal_translucency"
PATIENTS = {"p1": ["a1", "a2"], "p2": ["b"], "p3": ["c"], "p4": ["d"], "p5": ["e"], "p6": ["f"]}
# patient p1 has two cases: fold 0 trains 3 patients (c, d, and e), validates f, tests p1 and p2
SPLITS = {0: {"p1": "test", "p2": "test", "p3": "train", "p4": "train", "p5": "train", "p6": "validation"},
          1: {"p1": "train", "p2": "validation", "p3": "test", "p4": "test", "p5": "train", "p6": "train"},
          2: {"p1": "train", "p2": "train", "p3": "validation", "p4": "train", "p5": "test", "p6": "test"}}
HASH = "0123456789abcdef" * 2


def make_space(folder, splits=SPLITS, study=None, subsets=None, contents=None, rejected=()) -> Workspace:
    """A prepared workspace of flat 8 x 8 images with hand-written tables. contents: case -> hash of its images."""
    study, space = study or load_study(STUDY, ["data.size=[8,8]"]), Workspace(folder)
    prepared = space.prepared
    prepared.mkdir(parents=True)
    cases = [(case, patient) for patient, cases in PATIENTS.items() for case in cases]
    geometry = geometry_text(Geometry((1, 8, 8), None, True))
    write_table(prepared / "cases.csv", ["case", "patient", "samples", "files", "geometry", "content"],
                [{"case": case, "patient": patient, "samples": 1, "files": "{}", "geometry": geometry,
                  "content": (contents or {}).get(case, case)} for case, patient in cases])
    write_table(prepared / "samples.csv", ["sample", "case", "patient", "frame", "series_start", "series_stop"],
                [{"sample": i, "case": case, "patient": patient, "frame": i, "series_start": i, "series_stop": i + 1}
                 for i, (case, patient) in enumerate(cases)])
    write_table(prepared / "splits.csv", ["fold", "patient", "subset"],
                [{"fold": fold, "patient": patient, "subset": subset} for fold, where in splits.items()
                 for patient, subset in where.items()])
    if rejected:
        write_table(prepared / "rejected.csv", ["case", "file", "reason"], rejected)
    np.save(prepared / "frames.npy", np.zeros((7, 1, 8, 8), np.uint8))
    np.save(prepared / "targets.npy", np.zeros((7, 1, 8, 8), np.uint8))
    write_json(prepared / "manifest.json", {
        "format": FORMAT, "study": study.to_dict(), "fingerprint": "f" * 32, "channels": ["grey"], "frames_shape": [7, 1, 8, 8],
        "targets_shape": [7, 1, 8, 8], "packages": {"numpy": "1.2.3"}, "rejected": [row["case"] + ": bad" for row in rejected],
        "key": {"cases": {case: {"subset": (subsets or {}).get(patient, "")} for case, patient in cases}}})
    return space


def model(study, fold) -> dict:
    return {"study": json.loads(json.dumps(without_paths(study))), "fold": fold, "epoch": 4 + fold, "metric": "iou/all",
            "score": 0.5 + 0.1 * fold, "finished": True, "checkpoint": HASH, "chosen": False,
            "calibration": {"threshold": {"nuchal_translucency": 0.4}, "presence": {}, "cases": 1}}


def source_of(folder, folds=(0, 1, 2), study=None, models=None, loaded="", **keys) -> Source:
    study = study or load_study(STUDY, ["data.size=[8,8]"])
    space = make_space(folder, study=study, **keys)
    prepared = Prepared(space.prepared, json.loads((space.prepared / "manifest.json").read_text()))
    made = {fold: model(study, fold) | (models or {}).get(fold, {}) for fold in folds}
    return Source(prepared, space, "unet", made, space.onnx("unet"), loaded)


def write_history(source, fold, rows) -> None:
    write_table(source.space.fold("unet", fold) / "metrics.csv", list(rows[0]), rows)


def history(fold, epochs=8) -> list[dict]:
    """Rows whose best epoch is that of `model`, with its score; the IoU of the first epoch is undefined."""
    return [{"epoch": epoch, "train_loss": 1 / (epoch + 1), "validation_loss": 1.5 / (epoch + 1),
             "iou/all": math.nan if epoch == 0 else 0.5 + 0.1 * fold - 0.01 * abs(epoch - 4 - fold)} for epoch in range(epochs)]


def evidence_of(*pairs) -> list[dict]:
    return [{"patient": patient, "case": case, "fold": fold} for fold, patient, case in pairs]


ALL_TESTED = evidence_of((0, "p1", "a1"), (0, "p1", "a2"), (0, "p2", "b"), (1, "p3", "c"), (1, "p4", "d"), (2, "p5", "e"),
                         (2, "p6", "f"))


# --- facts -----------------------------------------------------------------------------------------------------------


def test_words_for_numbers():
    assert [counted(n, "case") for n in (0, 1, 1250)] == ["0 cases", "1 case", "1,250 cases"]
    assert ranged([3, 3], "patient") == "3 patients" and ranged([4, 1, 2], "patient") == "1 to 4 patients"
    assert folds_text([2]) == "fold 2" and folds_text([0, 1, 4]) == "folds 0, 1 and 4"
    assert without_places("bad /home/me/data x.png: /a/b/c.png, C:\\x\\y.dcm and sub/d.png") == (
        "bad data x.png: c.png, y.dcm and sub/d.png")
    assert thresholds_text({"threshold": {"a": 0.4, "b": 0.55}, "presence": {}, "cases": 3}) == "threshold a 0.4, b 0.55"
    assert thresholds_text({"confidence": 0.123456, "cases": 3}) == "confidence 0.123" and thresholds_text({}) == ""


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
    assert row["validation_metric"] == NO_VALIDATION and row["validation_score"] is None


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
    assert predicted.detail == ["1 case of the prepared data, each by the model that never saw its patient"]
    assert (scored.patients, scored.cases) == (1, 1)
    assert patient_flow(source, "", tmp_path, sheet, [])[-1].cases == 0


def test_provenance_names_models_and_versions_and_no_places(tmp_path):
    source = source_of(tmp_path, models={1: {"finished": False, "score": None, "metric": NO_VALIDATION, "calibration": {}}})
    write_table(source.onnx / "parity.csv", ["fold", "largest_value", "largest_difference"],
                [{"fold": 0, "largest_value": 10, "largest_difference": 2e-5}, {"fold": 0, "largest_value": 2,
                 "largest_difference": 1e-5}, {"fold": 7, "largest_value": 1, "largest_difference": 1}])
    assert largest_differences(source) == {0: 5e-6}
    rows = dict(provenance_rows(source, {"study": STUDY, "computed_on": "CPU"}))
    assert rows["Data fingerprint"] == "f" * 32 and rows["Run"] == "unet" and rows["Packages, preparation"] == "numpy 1.2.3"
    assert rows["Model of fold 0"] == (f"checkpoint {HASH}, epoch 5, finished, iou/all 0.5000, ONNX differs by at most 5.0e-06 "
                                       "of the largest value, from validation: threshold nuchal_translucency 0.4")
    assert rows["Model of fold 1"] == f"checkpoint {HASH}, epoch 6, UNFINISHED training, {NO_VALIDATION}"
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
    ({("all", "nt_mm"): math.nan, ("all", "nt_mm_true"): 2.0}, ["not measured: Nt"]),
    ({("x", "nt_mm"): 2.0, ("x", "nt_mm_true"): math.nan}, ["falsely measured: Nt of x"]),
    ({("x", "nt_mm"): math.nan, ("x", "nt_mm_true"): math.nan}, []),
    ({("all", "dice"): math.nan}, ["undefined: Dice"]),
    ({("bone", "area_px"): 0.0, ("bone", "area_px_true"): 9.0, ("bone", "present"): 0.0, ("bone", "present_true"): 1.0},
     ["missed: bone"]),
])
def test_failures_in_plain_words(scores, expected):
    assert failures_of(scores, {}, "dice") == expected


def test_a_wrong_class_is_a_failure():
    assert failures_of({}, {"truth": "good", "predicted": "poor"}, "accuracy") == ["wrong class"]
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


# --- sentences -------------------------------------------------------------------------------------------------------


def test_methods_say_how_patients_were_dealt(tmp_path):
    text = methods_text(source_of(tmp_path, rejected=[{"case": "z", "file": "", "reason": "bad"}]), "test", "CPU", True)
    assert "comprised 7 cases of 6 patients; 1 further case could not be used" in text
    assert "dealt into 3 folds (seed 0), stratified by the size of nuchal_translucency" in text
    assert ("For each fold a model was trained on 3 patients, with 1 patient (a stratified share of 0.2 of those whom it did not "
            "test) for choosing between epochs and 2 patients for testing.") in text
    assert "scaled to fit 8 x 8 pixels" in text and "Grey levels were left as they are. A sample was one frame." in text
    assert "unet (width 32 and bilinear False)" in text and "AdamW (learning rate 0.001, weight decay 0.0001)" in text
    assert "one-cycle schedule, in batches of 8, for at most 100 epochs, stopping after 25" in text
    assert "moving average of the weights (decay 0.99)" in text and "best validation IoU was kept (epoch 5 to 7)" in text
    assert "rotation by -20 to 20 degrees, zoom by 0.8 to 1.25" in text and "left-right mirroring" in text
    assert "top-bottom" not in text and "contrast" not in text and "mixed precision" in text
    assert "of 0.1, 0.2, ..., 0.9 the nearest to 0.5" in text and "2,000 resamples" in text
    assert "had not seen the patient" in text and "mean and standard deviation" in text


def test_methods_of_some_folds_speak_of_these_alone(tmp_path):
    text = methods_text(source_of(tmp_path, folds=(1,)), "test", "CPU", True)
    assert "For fold 1 a model was trained on 3 patients" in text and "test cases of folds 0 and 2 were not tested" in text
    assert "standard deviation" not in text


def test_methods_of_the_raw_datas_own_subsets(tmp_path):
    splits = {0: {"p1": "train", "p2": "train", "p3": "train", "p4": "validation", "p5": "test", "p6": "external"}}
    given = {patient: subset for patient, subset in splits[0].items() if subset != "validation"} | {"p4": "train"}
    drawn = methods_text(source_of(tmp_path / "1", folds=(0,), splits=splits, subsets=given), "test", "CPU", True)
    assert "3 patients (4 cases) for training, 1 patient (1 case) for validation and 1 patient (1 case) for testing" in drawn
    assert "validation patients were drawn from the training subset (a share of 0.2, seed 0, stratified by" in drawn
    assert "Extra test folders held 1 case of 1 patient, who never trained" in drawn and "dealt" not in drawn
    own = methods_text(source_of(tmp_path / "2", folds=(0,), splits=splits, subsets=splits[0]), "test", "CPU", True)
    assert "drawn from" not in own and "a model whose training and validation had not seen them" in own


def test_without_validation_no_choice_is_claimed(tmp_path):
    models = {fold: {"metric": NO_VALIDATION, "score": None, "calibration": {}} for fold in range(3)}
    text = methods_text(source_of(tmp_path, models=models), "test", "CPU", True)
    assert "Without validation patients, folds 0, 1 and 2 kept the last epoch." in text and "best validation" not in text
    assert "Nothing was chosen so for folds 0, 1 and 2, where defaults hold." in text and "nearest to 0.5" not in text


@pytest.mark.parametrize("subset, loaded, words", [
    ("validation", "", "they are too good, and no test result"), ("external", "", "models of all 3 folds together"),
    ("", "", "only by the model that had not seen its patient"), ("", "other-fold1", "predicted by one model")])
def test_nothing_is_called_held_out_that_is_not(tmp_path, subset, loaded, words):
    source = source_of(tmp_path, folds=(1,) if loaded else (0, 1, 2), loaded=loaded)
    judged, task = load_study(STUDY), make_task(load_study(STUDY))
    text = methods_text(source, subset, "CPU", True)
    card = model_card(source, subset, judged, task, [], [], ALL_TESTED)
    assert words in text
    for told in (text, str(card), SUBSET_LABELS[subset]):
        assert "held-out" not in told and "had not seen the patient." not in told and "for testing; every" not in told


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
@pytest.mark.parametrize("subset", ["test", ""])
def test_every_shipped_study_has_its_methods(tmp_path, name, subset):
    study = load_study(name)
    source = source_of(tmp_path, study=study, models={fold: {"metric": "loss"} for fold in range(3)})
    text = methods_text(source, subset, "CUDA", True)
    assert not re.search(r"[{}]|None|\bnan\b|\(\)|  | ,|\.\.|''", text.replace("0.2, ...", "0.2")), text
    assert study.network["name"] in text and f"{study.training.learning_rate:g}" in text and "on CUDA" in text
    assert f"{study.data.size[0]} x {study.data.size[1]} pixels" in text and f"batches of {study.training.batch_size}" in text
    task = make_task(study)
    assert all(task.shown(one) in text for one in study.data.classes)
    card = dict(model_card(source, subset, study, task, [], [], ALL_TESTED))
    assert study.title in card["Intended use"] and all(card.values())


def test_augmentation_tells_what_changes_and_nothing_else():
    plain = Augmentation(flip_columns=False, rotation_range=(0, 0), zoom_range=(1, 1), translation_range=(0, 0),
                         brightness_range=(1, 1), brightness_shift=(0, 0), noise_level=(0, 0))
    assert augmentation_text(plain, "uint8") == "Training batches were not augmented."
    clips = dataclasses.replace(plain, flip_rows=True, noise_level=(0, 0.02), temporal_mask_prob=0.05, transform_prob=0.3)
    assert augmentation_text(clips, "uint8") == (
        "Training batches were augmented by top-bottom mirroring and Gaussian noise of 0 to 0.02 of white, each with a "
        "probability of 0.3. A frame was replaced by the mean of its neighbours with a probability of 0.05.")
    assert "0.02 standard deviations" in augmentation_text(clips, "float16")
    assert "not augmented" in augmentation_text(dataclasses.replace(Augmentation(), transform_prob=0.0), "uint8")


def test_warnings_say_what_speaks_against_the_numbers(tmp_path):
    other = load_study(STUDY, ["data.size=[8,8]", "training.learning_rate=0.5"])
    models = {0: {"finished": False}, 1: {"score": 0.0, "study": without_paths(other)},
              2: {"metric": NO_VALIDATION, "score": None, "chosen": True}}
    source = source_of(tmp_path, models=models)
    told = " ".join(warnings_of(source, "test", ALL_TESTED, make_task(other)))
    assert "Training of fold 0 is UNFINISHED" in told and "model of fold 1 was never better than 0" in told
    assert "no validation patients for fold 2" in told and "checkpoint of fold 2 was named by hand" in told
    assert "different settings (training.learning_rate)" in told and "6 patients only" in told and "folds have" not in told
    fine = source_of(tmp_path / "fine")
    many = [{"patient": str(i), "fold": 0} for i in range(30)]
    assert warnings_of(fine, "test", many, make_task(other)) == []
    few = source_of(tmp_path / "few", folds=(1,))
    assert "Only 1 of 3 folds has a model; folds 0 and 2 have none, and their test cases are missing here." in warnings_of(
        few, "test", many, make_task(other))
    assert "they did not vote" in warnings_of(few, "external", many, make_task(other))[0]
    assert "too good" in warnings_of(fine, "validation", many, make_task(other))[0]


def test_a_small_distance_is_not_nothing_learnt():
    task = make_task(load_study("fetal_biometry_landmarks"))
    assert not learnt_nothing({"metric": "radial_error_px/all", "score": 0.0}, task)
    assert learnt_nothing({"metric": "sdr@2%/all", "score": 0.0}, task)
    assert not learnt_nothing({"metric": NO_VALIDATION, "score": None}, task)


def test_what_is_not_shown_is_said(tmp_path):
    source = source_of(tmp_path)
    scored, learnt, seen = missing_parts(source, [], 0)
    assert "nothing is scored" in scored and "runs/unet of this workspace holds no metrics.csv" in learnt and "pictures" in seen
    write_history(source, 0, history(0))
    write_history(source, 1, history(0))
    again = dataclasses.replace(source)
    assert missing_parts(again, ALL_TESTED, 3) == [
        "Learning curves of fold 1 are not shown: runs/unet was trained anew since the models were converted."]
    assert "loaded" in missing_parts(dataclasses.replace(source, loaded="x"), ALL_TESTED, 3)[0]


def test_the_card_says_what_the_study_says_or_what_to_write(tmp_path):
    source, study = source_of(tmp_path, contents={"c": "same", "d": "same"}), load_study(STUDY)
    headline = [{"class": "all", "metric": "dice", "estimate": 0.5, "ci_low": 0.25, "ci_high": 0.75},
                {"class": "nuchal_translucency", "metric": "dice", "estimate": 0.1, "ci_low": None, "ci_high": None}]
    card = dict(model_card(source, "test", study, make_task(study), headline, ["Beware."], ALL_TESTED))
    assert "report.intended_use" in card["Intended use"]
    assert card["Training data"].startswith("Each of the 3 models was trained on 3 patients (3 to 4 cases), its epoch chosen on "
                                            "1 patient")
    assert card["Evaluation data"] == "7 cases of 6 patients: held-out test patients of the same data set."
    assert card["Metrics"] == "Dice 0.500 (95 % interval 0.250 to 0.750)."
    assert card["Caveats"].endswith("1 case of the data holds the very images of another one. Beware.")
    said = dataclasses.replace(study, report=dataclasses.replace(study.report, intended_use="Screening, by sonographers.",
                                                                 limitations="Twins were left out."))
    card = dict(model_card(source, "test", said, make_task(study), headline, [], ALL_TESTED))
    assert card["Intended use"].endswith("Screening, by sonographers.") and card["Caveats"].startswith("Twins were left out.")
    assert "intended_use" not in card["Intended use"]
    assert model_card(source, "", said, make_task(study), [], [], [])[3][1] == "None: the predicted cases have no truth."


def test_weights_of_other_data_are_a_caveat(tmp_path):
    study = load_study(STUDY, ["data.size=[8,8]", "network.weights=/home/me/other/best.pt"])
    source = source_of(tmp_path, study=study)
    told = " ".join(caveats(source, study, "test")) + methods_text(source, "test", "CPU", True)
    assert "from pretrained weights (best.pt)" in told and "if patients of this evaluation were among them" in told


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


def test_rings_lie_on_the_kept_epochs(tmp_path, monkeypatch):
    from lib.reporting import run_curves
    figures = []
    monkeypatch.setattr(run_curves, "save", lambda figure, path: figures.append(figure) or path)
    run_curves.draw_run_curves(tmp_path / "x.png", {0: source_rows(0), 1: source_rows(1)}, "iou/all", {0: 4, 1: 5})
    score = figures[0].axes[2]
    assert [line.get_xydata().tolist() for line in score.lines[2:]] == [[[5, 0.5]], [[6, 0.6]]]
    assert len(score.lines[0].get_xydata()) == 7  # the first epoch's is undefined
    assert score.get_xlabel() == "epoch" and score.get_ylabel() == "validation IoU"


def test_nothing_recorded_is_no_figure(tmp_path):
    assert draw_run_curves(tmp_path / "x.png", {}, "iou/all", {}) is None and list(tmp_path.iterdir()) == []
    with collecting() as drawings:  # selected on the loss: two panels, not three
        draw_run_curves(tmp_path / "x.png", {0: source_rows(0)}, "validation_loss", {0: 7})
    assert "IoU" not in drawings[0].svg and drawings[0].svg.count("n = 1 fold") == 2
    assert score_label("hd95_mm/stroke") == "validation HD95 of stroke (mm)"
    assert score_label("accuracy/all") == "validation accuracy" and score_label("dice/all") == "validation Dice"


def test_charts_stand_in_sections():
    task = make_task(load_study(STUDY))
    names = ("nt_thickness_px", "dice", "learning_curves", "roc", "map_.5_.95")
    charts = charts_of([Drawing(name, f"title of {name}", "<svg/>") for name in names], task, 7)
    assert [chart.name for chart in charts] == ["learning_curves", "dice", "roc", "nt_thickness_px", "map_.5_.95"]
    assert charts[0].section == "Training" and charts[1].section == "Scores by class and fold"
    assert charts[1].title == "title of dice" and "Bland" in charts[3].caption


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
    assert "who have chosen epochs and thresholds" in made_report(tmp_path / "1", study, "validation")
    assert "new cases" in made_report(tmp_path / "2", study, "", pictures=False)
    assert "There are no pictures" in (tmp_path / "2" / "results" / "report.html").read_text(encoding="utf-8")


def test_the_report_of_a_run_through_the_scripts_holds_its_numbers(tested):
    """The whole of it, once script 4 writes it."""
    path = tested.results / "report.html"
    if not path.is_file():
        pytest.skip("script 4 does not write the report yet")
    page = path.read_text(encoding="utf-8")
    assert "7 cases of 7 patients" in page and "Learning curves of the folds" in page and str(tested.folder) not in page
