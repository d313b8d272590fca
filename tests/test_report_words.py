"""The sentences of report.html, on hand-made folders: nothing is claimed that the files do not say."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from lib import __version__
from lib.evaluation.measurements import MEASUREMENTS
from lib.evaluation.statistics import FEW_PATIENTS
from lib.networks import NETWORKS
from lib.preparation import prepare
from lib.reporting.report import without_twins
from lib.reporting.report.card import caveats, learnt_nothing, missing_parts, model_card, never_found, subset_label, without_width
from lib.reporting.report.facts import fold_rows, lost_cases, patient_flow
from lib.reporting.report.methods import methods_text
from lib.reporting.report.provenance import provenance_rows, trained_with
from lib.reporting.report.recipe import augmentation_text, levels_text, network_text, printed
from lib.selection import NO_VALIDATION
from lib.study import STUDIES, Augmentation, load_study, plain, without_paths
from lib.tasks import make_task
from lib.tasks.wording import MEASURED
from lib.workspace import Workspace, file_hash, read_manifest, write_text
from report_sources import ALL_TESTED, STUDY, cautions, evidence_of, history, source_of, told, write_history
from test_dicom import speckle


def test_methods_say_how_patients_were_dealt(tmp_path):
    text = told(source_of(tmp_path, rejected=[{"case": "z", "file": "", "reason": "bad"}]))
    assert "comprised 7 cases of 6 patients; 1 further case could not be used" in text
    assert "dealt into 3 folds (seed 0), stratified by the size of nuchal_translucency" in text
    assert ("For each fold a model was trained on 3 patients, with 1 patient (a stratified share of 0.2 of those that it did not "
            "test) for choosing between epochs and 2 patients for testing.") in text
    assert "scaled to fit 8 x 8 pixels" in text and "Grey levels were left as they are. A sample was one frame." in text
    assert "The network saw grey levels less 127.5, divided by 63.75." in text
    assert "a U-Net (32 channels at full resolution; upsampling by transposed convolutions)" in text
    assert "AdamW (learning rate 0.001, weight decay 0.0001)" in text
    assert "one-cycle schedule, in batches of 8, for at most 100 epochs, stopping after 25" in text
    assert "moving average of the weights (decay 0.99)" in text and "best validation IoU was kept (epochs 5, 6 and 7)" in text
    assert "rotation by -20 to 20 degrees, zoom by 0.8 to 1.25" in text and "left-right mirroring" in text
    assert "top-bottom" not in text and "contrast" not in text and "mixed precision" not in text
    assert "of 0.1, 0.2, ..., 0.9 the nearest to 0.5" in text and "2,000 resamples" in text
    assert "had not seen the patient" in text and "mean and standard deviation" in text


def test_methods_of_some_folds_speak_of_these_alone(tmp_path):
    text = told(source_of(tmp_path, folds=(1,)), evidence=ALL_TESTED[3:5])
    assert "For fold 1 a model was trained on 3 patients" in text and "test cases of folds 0 and 2 were not tested" in text
    assert "mean and standard deviation" not in text


def test_methods_of_the_raw_datas_own_subsets(tmp_path):
    splits = {0: {"p1": "train", "p2": "train", "p3": "train", "p4": "validation", "p5": "test", "p6": "external"}}
    given = {patient: subset for patient, subset in splits[0].items() if subset != "validation"} | {"p4": "train"}
    drawn = told(source_of(tmp_path / "1", folds=(0,), splits=splits, subsets=given))
    assert "3 patients (4 cases) for training, 1 patient (1 case) for validation and 1 patient (1 case) for testing" in drawn
    assert "validation patients were drawn from the training subset (a share of 0.2, seed 0, stratified by" in drawn
    assert "Extra test folders held 1 case of 1 patient, who never trained" in drawn and "dealt" not in drawn
    own = told(source_of(tmp_path / "2", folds=(0,), splits=splits, subsets=splits[0]))
    assert "drawn from" not in own and "a model whose training and validation had not seen them" in own


def test_a_choice_that_validation_did_not_make_is_not_claimed(tmp_path):
    models = {fold: {"metric": NO_VALIDATION, "score": None, "calibration": {}} for fold in range(3)}
    study = load_study(STUDY, ["data.size=[8,8]", "training.schedule=plateau"])
    source = source_of(tmp_path, models=models, study=study)
    text = told(source)
    assert "Without validation patients, folds 0, 1 and 2 kept the last epoch." in text and "best validation" not in text
    assert "The probability threshold of nuchal_translucency was 0.5 (default)." in text and "nearest to 0.5" not in text
    assert "stopping" not in text and "a constant learning rate" in text and "stopped improving" not in text
    assert "moving average of the weights (decay 0.99) was kept." in text
    training = dict(model_card(source, "test", study, make_task(study), [], [], ALL_TESTED))["Training data"]
    assert "its last epoch kept, all from" in training and "0 patients" not in training
    one = {2: models[2]}
    text = told(source_of(tmp_path / "one", models=one, study=study))
    assert "The epoch of folds 0 and 1 with the best validation IoU was kept (epochs 5 and 6)." in text
    assert "fold 2 kept the last epoch" in text and "stopping after 25" in text
    assert "training of fold 2 was neither stopped early nor slowed by a score" in text
    assert "was 0.4 in folds 0 and 1 and 0.5 (default) in fold 2." in text and "nearest to 0.5" in text


def test_a_checkpoint_named_by_hand_is_called_so(tmp_path):
    study, models = load_study(STUDY, ["data.size=[8,8]"]), {0: {"chosen": True, "finished": False, "epoch": 1, "score": 0.0}}
    source = source_of(tmp_path, folds=(0,), models=models)
    said = "The checkpoint of fold 0 was named by hand (epoch 2)."
    text, warned = told(source), " ".join(cautions(source))
    assert said in text and said in warned and "best validation" not in text
    assert "UNFINISHED" not in warned and "learned nothing" not in warned
    assert fold_rows(source)[0]["status"] == "named by hand"
    assert "UNFINISHED" not in str(provenance_rows(source, make_task(study), {"study": STUDY, "computed_on": "CPU"}))
    card = dict(model_card(source, "test", study, make_task(study), [], [], ALL_TESTED))
    assert "its checkpoint named by hand" in card["Training data"] and said in card["Training data"]
    assert "epoch chosen" not in card["Training data"]
    some = told(source_of(tmp_path / "some", models=models))
    assert said in some and "The epoch of folds 1 and 2 with the best validation IoU was kept (epochs 6 and 7)." in some


def test_the_best_checkpoint_is_not_called_named_by_hand_where_it_is_known(tmp_path):
    """--load best.pt says `chosen` as well as --load epoch001.pt."""
    source = source_of(tmp_path, folds=(1,), loaded="other-fold1-best", models={1: {"chosen": True}})
    assert source.by_hand == [1]  # nobody knows
    best = source.space.fold("other", 1) / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"weights")
    known = {1: source.models[1] | {"checkpoint": file_hash(best)}}
    kept = dataclasses.replace(source, models=known)
    assert kept.by_hand == [] and "with the best validation IoU was kept" in told(kept)
    assert dataclasses.replace(source).by_hand == [1]  # another file of that run
    assert dataclasses.replace(source, models=known, loaded="").by_hand == [1]  # of the run itself it is not the best
    assert "UNFINISHED" in str(cautions(dataclasses.replace(source, models={1: known[1] | {"finished": False}})))


def test_images_that_nobody_knows_the_patients_of_are_not_called_patients(tmp_path):
    patients = {"p1": "test", "p2": "test", "p3": "train", "p4": "train", "p5": "train", "p6": "validation"}
    study = load_study(STUDY, ["data.size=[8,8]"])
    same = {"a1": "same", "a2": "same"}
    source = source_of(tmp_path, folds=(0, 1), known=False, contents=same, splits={0: patients, 1: patients})
    warning, text = cautions(source)[0], told(source)
    assert warning == ("Each image counts as a patient of its own, because nothing says whose it is (key "
                       "data.reader.patient_pattern): images of one person may lie in several folds, and scores may then be too "
                       "good and intervals too narrow.")
    assert "Images were dealt into 2 folds" in text and "images were drawn with replacement" in text
    assert "images of one person may have lain in several folds" in text
    assert "All cases of a patient" not in text and "patients, not cases" not in text
    card = dict(model_card(source, "test", study, make_task(study), [], [], ALL_TESTED))
    assert "patient" not in text.replace("a patient of its own", "")
    assert card["Evaluation data"] == "7 cases: held-out test images of the same data set."
    assert "patient" not in card["Training data"] and subset_label(source, "test") == "held-out test images"
    assert subset_label(source, "external") == "images of extra test folders"
    assert {step.patients for step in patient_flow(source, "test", tmp_path, [], ALL_TESTED)} == {None}
    assert fold_rows(source)[0]["train_patients"] is None and fold_rows(source)[0]["train_cases"] == 3
    assert cautions(source_of(tmp_path / "some", known=False))[0].startswith("Some images count as patients of their own")
    for known in (True, None):  # an older manifest says nothing
        fine = source_of(tmp_path / str(known), known=known)
        assert cautions(fine) == [] and "All cases of a patient" in told(fine) and "patients, not cases" in told(fine)


def test_a_tolerance_is_told(tmp_path):
    source = source_of(tmp_path)
    judged = load_study(STUDY, ["data.size=[8,8]", "report.tolerance_mm=1.5"])
    text = told(source, judged=judged)
    assert "share of both borders that lies within 1.5 mm" in text and "eroded or the truth dilated by 1.5 mm" in text
    assert "tolerance" not in told(source).lower()
    rows = dict(provenance_rows(source, make_task(judged), {"study": STUDY, "computed_on": "CPU"}))
    assert rows["Tolerance"] == "1.5 mm"


def test_thresholds_are_told_fold_by_fold(tmp_path):
    study = load_study("echo_quality")
    models = {0: {"calibration": {"threshold": 0.25, "cases": 3}}, 1: {"calibration": {"cases": 2}},  # of one class
              2: {"calibration": {"threshold": 0.625, "cases": 3}}}
    text = told(source_of(tmp_path, study=study, models=models))
    assert "The probability above which a case is called good had the greatest sum of sensitivity" in text
    assert ("The probability above which a case is called good was 0.25 in fold 0, 0.5 (default) in fold 1 and 0.625 in fold 2."
            ) in text
    alone = told(source_of(tmp_path / "alone", study=study, folds=(1,), models=models))
    assert "is called good was 0.5 (default)." in alone and "greatest sum" not in alone
    sizes = load_study("flair_visibility")
    found = {fold: {"calibration": {"threshold": {"stroke": 0.4}, "presence": {"flair_visible": 0.002}, "cases": 3}}
             for fold in range(3)}
    text = told(source_of(tmp_path / "sizes", study=sizes, models=found))
    assert "The size above which flair_visible counts as present was 0.002 px." in text  # the phantoms' cases have no spacing
    assert "threshold of stroke was 0.4." in text and "threshold of brain was 0.5 (default)." in text


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
def test_no_sentence_of_a_task_needs_one_before_it(name):
    """What is chosen stands before how it is decided by."""
    study = load_study(name)
    words = make_task(study).wording(study.network)
    for text in (words.chosen, words.decision, words.balance, words.scores):
        assert not re.match(r"(That|This|It|They|These) ", text) and "that score" not in text and "that region" not in text[:60]
    assert bool(words.chosen) == bool(words.thresholds)
    # sizes are on one scale, whichever model says them
    assert bool(words.ranked) == (name in ("echo_quality", "fetal_anatomy", "fetal_biometry"))


def test_presence_of_points_is_ranked_where_it_is_judged():
    study = load_study("fetal_biometry_landmarks", ["task.presence_weight=1"])
    words = make_task(study).wording(study.network)
    assert "ROC AUC of presence" in words.ranked and [one.name for one in words.thresholds] == [
        "presence above which a point counts as there"]


def test_a_class_that_is_never_found_comes_before_the_mean_over_classes():
    task = make_task(load_study("lumbar_spine"))

    def row(name, metric, estimate, *folds):
        return {"class": name, "metric": metric, "folds": 2, "estimate": estimate} | {f"fold{k}": v for k, v in enumerate(folds)}

    rows = [row("bone", "dice", 0.8, 0.9, 0.7), row("ligament", "dice", 0.3, 0.6, 0.0), row("all", "dice", 0.5, 0.7, 0.0),
            row("ligament", "iou", 0.2, 0.0, 0.0), row("bone", "hd95_px", 0.0, 0.0, 0.0)]
    assert never_found(rows, task) == ["ligament was never found by the model of fold 1: its Dice is 0 there."]
    rows[1] = row("ligament", "dice", 0.0, 0.0, None)  # no case of fold 1 has it
    assert never_found(rows, task) == ["ligament was never found: its Dice is 0."]
    assert never_found(rows[:1], task) == never_found([], task) == []


def test_few_patients_are_told_once_and_by_one_limit(tmp_path):
    source = source_of(tmp_path)
    few = [{"patient": str(i), "case": str(i), "fold": 0} for i in range(FEW_PATIENTS - 1)]
    line = f"The scores are of {FEW_PATIENTS - 1} patients only: percentile intervals of so few are too narrow."
    assert cautions(source, evidence=few) == [line] and line in told(source, evidence=few)
    enough = [*few, {"patient": "x", "case": "x", "fold": 0}]
    assert cautions(source, evidence=enough) == [] and "too narrow" not in told(source, evidence=enough)
    one = told(source, evidence=few[:1])
    assert "1 patient only: there are no intervals." in one and "resamples" not in one
    assert cautions(source, evidence=[]) == []


def test_ranks_of_several_models_are_told_where_there_are_such(tmp_path):
    study = load_study("echo_quality")
    source, alone = source_of(tmp_path, study=study), source_of(tmp_path / "alone", study=study, folds=(1,))
    line = ("Pooled over the folds, areas under the ROC and the precision-recall curve rank the scores of several models as if "
            "on one scale.")
    assert line in told(source)
    assert line in dict(model_card(source, "test", study, make_task(study), [], [], ALL_TESTED))["Caveats"]
    together = [one | {"fold": ""} for one in ALL_TESTED]
    assert "on one scale" not in told(source, "external", together)
    assert "on one scale" not in told(alone, evidence=ALL_TESTED[3:5])
    assert "on one scale" not in told(source_of(tmp_path / "masks"))


@pytest.mark.parametrize("subset, loaded, words", [
    ("validation", "", "they are too good, and no test result"), ("external", "", "models of all 3 folds together (the mean of"),
    ("", "other-fold1", "predicted by one model (other-fold1)")])
def test_nothing_is_called_held_out_that_is_not(tmp_path, subset, loaded, words):
    source = source_of(tmp_path, folds=(1,) if loaded else (0, 1, 2), loaded=loaded)
    judged, task = load_study(STUDY), make_task(load_study(STUDY))
    text = told(source, subset, sheet=ALL_TESTED)
    card = model_card(source, subset, judged, task, [], [], ALL_TESTED)
    assert words in text
    for told_ in (text, str(card), subset_label(source, subset)):
        assert "held-out" not in told_ and "had not seen the patient." not in told_ and "for testing; every" not in told_


def test_new_cases_are_told_by_who_judged_them(tmp_path):
    source, study = source_of(tmp_path), load_study(STUDY)
    together, alone = evidence_of(("", "n1", "n1"), ("", "n2", "n2")), evidence_of((1, "p3", "c"))

    def texts(of, cases):
        card = dict(model_card(of, "", study, make_task(study), [], [], cases))
        return told(of, "", cases, cases), card["Caveats"]

    both, caveat = texts(source, together + alone)
    assert ("2 cases were predicted by the models of all 3 folds together (the mean of the models' probabilities, cut at the "
            "mean of their thresholds); that their") in both
    assert "1 case, known from the prepared data, was predicted by the one model whose training and validation had not" in both
    assert "2 scored cases were judged by all models together" in caveat and "1 scored case, known" in caveat
    only, caveat = texts(source, together)
    assert "one model" not in only and "together" in only and "known from" not in caveat
    only, caveat = texts(source, alone)
    assert "together" not in only.replace("were kept together", "") and "one model" in only and "together" not in caveat
    one = source_of(tmp_path / "one", folds=(1,), loaded="x")
    text, caveat = texts(one, alone)
    assert "1 case was predicted by one model (x)." in text and "whether the others are of new patients is not known" in text
    assert "Whether the patients are new to the model is not known." in caveat


def test_what_the_reader_said_is_told(tmp_path):
    """In the manifest of a folder that script 1 prepares."""
    for index in range(3):
        for place, pixels in (("preprocessed_images/", speckle(9, 12, 3 if index else 1, seed=index).squeeze()),
                              ("segmentations/seg_", np.eye(9, 12, dtype=np.uint8))):
            path = tmp_path / "raw" / f"{place}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    study = load_study(STUDY, ["data.size=[8,8]", "data.folds.k=3", "data.reader.pixels_per_mm=8"])
    folder = prepare(study, study, Workspace(tmp_path / "ws"), tmp_path / "raw", jobs=1).folder
    methods = read_manifest(folder)["methods"]
    text = told(source_of(tmp_path / "1", study=study, methods=methods))
    assert ("2 images with colours were turned grey. A pixel was taken to be 0.125 mm wide and high, which the study gives for "
            "all images. Each frame (grey) was scaled") in text
    for name, nothing in (("2", None), ("3", [])):  # of a folder prepared before readers said anything
        rest = told(source_of(tmp_path / name, study=study, methods=nothing))
        assert rest == text.replace(" ".join(methods) + " ", "")


def test_every_measurement_has_its_words():
    assert set(MEASURED) == set(MEASUREMENTS)


def test_measurements_have_their_limits_of_agreement(tmp_path):
    text = told(source_of(tmp_path))
    assert ("were measured the size of nuchal_translucency and nt_thickness (greatest extent of nuchal_translucency at right "
            "angles to its long axis); they are compared by bias, mean absolute error and 95 % limits of agreement") in text
    points = load_study("fetal_biometry_landmarks")
    text = told(source_of(tmp_path / "points", study=points))
    assert "ofd (distance from ofd_1 to ofd_2)" in text and "ellipse with the diameters ofd and bpd" in text
    assert "limits of agreement" not in told(source_of(tmp_path / "classes", study=load_study("fetal_biometry")))


def test_training_is_told_as_it_was(tmp_path):
    boxes = load_study("fetal_anatomy")
    regression = load_study("fetal_anatomy", ["network.head=regression"])
    assert "map of centres" in told(source_of(tmp_path / "1", study=boxes))
    assert "map of centres" not in told(source_of(tmp_path / "2", study=regression))
    echo = load_study("echo_quality", ["window.mirror=true"])
    text = told(source_of(tmp_path / "3", study=echo))
    assert "Outside training, outputs were averaged" in text and "equally many samples of each class" in text
    assert "R(2+1)D-18, was trained" in text and "gradcam" not in text and "layer4" not in text
    yes, no = ({fold: {"amp": amp} for fold in range(3)} for amp in (True, False))
    assert "Training used mixed precision (bfloat16)." in told(source_of(tmp_path / "4", models=yes))
    assert "mixed precision" not in told(source_of(tmp_path / "5", models=no))
    assert "Training of folds 0 and 2 used mixed" in told(source_of(tmp_path / "6", models=yes | {1: {"amp": None}}))


def test_networks_have_their_printed_names():
    assert printed("smp/DeepLabV3Plus/efficientnet-b0") == "DeepLabV3+ on EfficientNet-B0 (segmentation-models-pytorch)"
    assert printed("torchvision/resnet18") == "ResNet-18 (torchvision)" and printed("unet") == "a U-Net"
    assert all(printed(name) != name for name in NETWORKS if "/" not in name)
    assert network_text({"name": "unet", "width": 32, "bilinear": True, "depth": 3, "weights": "x.pt", "gradcam_layer": "a"}) == (
        "a U-Net (32 channels at full resolution; upsampling by interpolation; 3 halvings)")
    assert network_text({"name": "mobilenet_v2_boxes", "head": "heatmap", "width": 64}).endswith(
        "(a heat map for each structure; 64 channels in the head)")
    assert network_text({"name": "smp/Unet/resnet18", "decoder_channels": [16, 8], "encoder_weights": None}) == (
        "U-Net on ResNet-18 (segmentation-models-pytorch) (16 and 8 channels in the decoder)")


def test_versions_that_differ_are_named_by_fold(tmp_path):
    models = {0: {"packages": {"foldscan": "0.1", "torch": "2.5"}}, 1: {"packages": {"foldscan": "0.1", "torch": "2.6"}},
              2: {"packages": {"foldscan": "0.1", "torch": "2.5"}}}
    source = source_of(tmp_path, models=models)
    assert trained_with(source) == "FoldScan 0.1, torch 2.5 (folds 0 and 2) and 2.6 (fold 1)"
    text = told(source)
    assert f"Its version was unknown in preparation and {__version__} in testing." in text and "2.6 (fold 1)" in text
    rows = dict(provenance_rows(source, make_task(load_study(STUDY)), {"study": STUDY, "computed_on": "CPU"}))
    assert rows["Packages, training"] == trained_with(source) and f"FoldScan {__version__}, " in rows["Packages, here"]
    same = {fold: {"packages": {"foldscan": __version__}} for fold in range(3)}
    alike = source_of(tmp_path / "alike", models=same)
    alike.prepared.manifest["packages"]["foldscan"] = __version__
    assert f"computed with FoldScan {__version__}." in told(alike) and "Its version" not in told(alike)


def test_lost_cases_are_counted_in_one_way(tmp_path):
    rejected = [{"case": "z", "file": "1.png", "reason": "bad"}, {"case": "z", "file": "2.png", "reason": "bad"},
                {"case": "a1", "file": "x.png", "reason": "a second image of it"}]
    source = source_of(tmp_path, rejected=rejected)
    assert lost_cases(source.prepared) == {"z"} and "; 1 further case could not be used" in told(source)
    assert patient_flow(source, "test", tmp_path, [], ALL_TESTED)[0].detail[0] == "left out: 1 case"


def test_pixels_leave_the_headline_where_mm_say_it():
    def row(metric, patients, name="all"):
        return {"class": name, "metric": metric, "patients": patients, "estimate": 1.0}

    rows = [row("hd95_px", 5), row("hd95_mm", 5), row("bpd_px_abs_error", 5), row("bpd_mm_abs_error", 4), row("hd95_px", 5, "x"),
            row("nt_px", None), row("dice", 5)]
    assert [(one["metric"], one["class"]) for one in without_twins(rows)] == [
        ("hd95_mm", "all"), ("bpd_px_abs_error", "all"), ("bpd_mm_abs_error", "all"), ("hd95_px", "x"), ("nt_px", "all"),
        ("dice", "all")]

@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
@pytest.mark.parametrize("subset", ["test", ""])
def test_every_shipped_study_has_its_methods(tmp_path, name, subset):
    study = load_study(name)
    source = source_of(tmp_path, study=study, models={fold: {"metric": "loss"} for fold in range(3)})
    text = methods_text(source, subset, make_task(study), "CUDA", ALL_TESTED, [])
    assert not re.search(r"[{}]|None|\bnan\b|\(\)|  | ,|\.\.|''", text.replace("0.2, ...", "0.2")), text
    assert not re.search(r"[.;:]\w*[a-z]\.[A-Z]|[a-z]\. [a-z]", text), text  # each sentence begins as one
    assert printed(study.network["name"]) in text and f"{study.training.learning_rate:g}" in text and "on CUDA" in text
    assert f"{study.data.size[0]} x {study.data.size[1]} pixels" in text and f"batches of {study.training.batch_size}" in text
    task = make_task(study)
    assert all(task.shown(one) in text for one in study.data.classes)
    card = dict(model_card(source, subset, study, task, [], [], ALL_TESTED))
    assert study.title in card["Intended use"] and all(card.values())


def test_methods_say_what_the_network_saw_of_grey_levels():
    echo, scans = load_study("echo_quality"), load_study("flair_visibility")
    assert levels_text(scans, 2) == []  # z-scores go in as they are
    own = dataclasses.replace(echo, network={**echo.network, "weights": "kinetics"})
    assert levels_text(own, 1) == ["The network saw grey levels by the mean and standard deviation of its pretrained weights."]
    assert levels_text(own, 2) == levels_text(echo, 1) == ["The network saw grey levels less 127.5, divided by 63.75."]
    given = dataclasses.replace(own, network={**own.network, "mean": [29.1, 28, 29], "std": [47.9]})
    assert levels_text(given, 1) == ["The network saw grey levels less 29.1, 28 and 29, divided by 47.9."]


def test_augmentation_tells_what_changes_and_nothing_else():
    plain = Augmentation(flip_columns=False, rotation_range=(0, 0), zoom_range=(1, 1), translation_range=(0, 0),
                         brightness_range=(1, 1), brightness_shift=(0, 0), noise_level=(0, 0))
    white = load_study(STUDY).data
    assert (white.store, white.intensity) == ("uint8", "none")
    assert augmentation_text(plain, white) == "Training batches were not augmented."
    clips = dataclasses.replace(plain, flip_rows=True, noise_level=(0, 0.02), temporal_mask_prob=0.05, transform_prob=0.3)
    assert augmentation_text(clips, white) == (
        "Training batches were augmented by top-bottom mirroring and Gaussian noise of 0 to 0.02 of white, each with a "
        "probability of 0.3. A frame was replaced by the mean of its neighbours with a probability of 0.05.")
    scans = load_study("flair_visibility").data
    assert "0.02 standard deviations" in augmentation_text(clips, scans)
    assert "0.02 grey levels" in augmentation_text(clips, dataclasses.replace(scans, intensity="none"))
    assert "not augmented" in augmentation_text(dataclasses.replace(Augmentation(), transform_prob=0.0), white)


def test_warnings_say_what_speaks_against_the_numbers(tmp_path):
    other = load_study(STUDY, ["data.size=[8,8]", "training.learning_rate=0.5"])
    models = {0: {"finished": False}, 1: {"score": 0.0, "study": without_paths(other)},
              2: {"metric": NO_VALIDATION, "score": None}}
    said = " ".join(cautions(source_of(tmp_path, models=models), evidence=ALL_TESTED))
    assert "Training of fold 0 is UNFINISHED" in said and "model of fold 1 was never better than 0" in said
    assert "no validation patients for fold 2" in said and "by hand" not in said
    assert "different settings (training.learning_rate)" in said and "folds have" not in said
    fine = source_of(tmp_path / "fine")
    assert cautions(fine) == []
    few = source_of(tmp_path / "few", folds=(1,))
    assert "Only 1 of 3 folds has a model; folds 0 and 2 have none, and their test cases are missing here." in cautions(few)
    assert "they did not vote" in cautions(few, "external")[0]
    assert "too good" in cautions(fine, "validation")[0]


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
        "Learning curves of fold 1 are not shown: runs/unet holds those of another training than the model's."]
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
    said = " ".join(caveats(source, study, "test", None, ALL_TESTED)) + told(source)
    assert "from pretrained weights (best.pt)" in said and "if patients of this evaluation were among them" in said


def test_methods_and_flow_count_patients_and_cases_by_class(tmp_path):
    source = source_of(tmp_path)
    assert "By class" not in told(source)  # prepared by a version that did not count
    source.prepared.manifest["held"] = {"nuchal_translucency": {"patients": 5, "cases": 1006}}
    assert "By class: nuchal_translucency, 1,006 cases of 5 patients." in told(source)
    assert "nuchal_translucency: 1,006 cases of 5 patients" in patient_flow(source, "test", tmp_path, [], ALL_TESTED)[1].detail
    source.prepared.manifest["patients_known"] = False
    assert "By class: nuchal_translucency, 1,006 cases." in told(source)


def test_an_interval_of_no_width_is_not_certain(tmp_path):
    task = make_task(load_study("fetal_biometry"))
    row = {"class": "femur", "metric": "recall", "estimate": 1.0, "ci_low": 1.0, "ci_high": 1.0, "fold0": 1.0}
    assert row["metric"] in task.headline
    said = without_width([row, row | {"class": "abdomen", "ci_low": 0.9}, row | {"metric": "log_loss"}], task)
    assert said == ["An interval of no width (recall of femur) is not certain: all cases here went alike, and draws of these "
                    "cannot show what did not happen among them."]
    assert "Intervals of no width (recall of femur and recall of abdomen) are" in without_width(
        [row, row | {"class": "abdomen"}], task)[0]
    assert without_width([row | {"ci_low": None, "ci_high": None}], task) == []


def test_curves_of_another_run_with_the_same_score_are_not_shown(tmp_path):
    """Networks that have learnt nothing score alike: a checkpoint named by hand must have the settings of the run."""
    study = load_study(STUDY, ["data.size=[8,8]"])
    other = dataclasses.replace(study, training=dataclasses.replace(study.training, learning_rate=0.5))
    for name, trained, shown in (("same", study, [0, 1]), ("other", other, [1])):
        source = source_of(tmp_path / name, models={0: {"chosen": True, "study": json.loads(json.dumps(without_paths(trained)))}})
        write_history(source, 0, history(0))
        write_history(source, 1, history(1))
        write_text(source.space.run("unet") / "study.yaml", yaml.safe_dump(plain(study.to_dict())))
        assert source.by_hand == [0] and sorted(source.histories) == shown and source.foreign == sorted({0, 1} - {*shown})
