"""Nobody is tested by a model that has seen them: from the splits to the samples read, the models and new data."""

from __future__ import annotations

import os
import re
import shutil

import nibabel
import numpy as np
import pytest

from conftest import FOLDS, PREPARE, RUN, make_patients, run_script, table
from test_traps import trainer_of

QUICK = ("--set", "report.figures=false")


def subsets(place) -> dict[int, dict[str, set[str]]]:
    found = {}
    for row in table(place.space.prepared / "splits.csv"):
        found.setdefault(int(row["fold"]), {"train": set(), "validation": set(), "test": set()})[row["subset"]].add(row["patient"])
    return found


def test_no_fold_sees_a_patient_twice_and_all_patients_train(prepared):
    patients = {row["patient"] for row in table(prepared.space.prepared / "cases.csv")}
    found = subsets(prepared)
    assert sorted(found) == list(range(FOLDS))
    for fold in found.values():
        assert fold["train"] and fold["validation"] and fold["test"]
        assert sum(map(len, fold.values())) == len(patients) and set.union(*fold.values()) == patients
    assert sum(len(fold["test"]) for fold in found.values()) == len(patients)  # each is tested once
    assert set.union(*(fold["test"] for fold in found.values())) == patients
    assert set.union(*(fold["train"] for fold in found.values())) == patients
    rows = table(prepared.space.prepared / "splits.csv")
    assert len({(row["fold"], row["patient"]) for row in rows}) == len(rows)
    in_folds = {row["patient"]: int(row["fold"]) for row in table(prepared.space.prepared / "folds.csv")}
    assert all(in_folds[patient] == fold for fold in found for patient in found[fold]["test"])


@pytest.mark.parametrize("k", [3, 4, 7])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_all_patients_train_whatever_k_and_share(k, share):
    from lib.data.folds import deal_folds, draw_validation, split_rows
    from lib.study import Folds
    for seed in range(5):
        folds = Folds(k, share, seed)
        names = [f"p{i:02d}" for i in range(14)]
        strata = {name: [f"{i % 3}{i % 2}", f"{i % 3}", "any"] for i, name in enumerate(names)}
        dealt = deal_folds(names, list(strata.values()), folds)
        rows = split_rows(dealt, draw_validation(dealt, strata, folds))
        assert {row["patient"] for row in rows if row["subset"] == "train"} == set(names), (k, share, seed)
        assert len({(row["fold"], row["patient"]) for row in rows}) == len(rows) == k * len(names)


@pytest.mark.parametrize("fold", range(FOLDS))
def test_training_reads_the_frames_of_its_training_patients_alone(prepared, fold, monkeypatch):
    """Every index that goes into a batch, neighbours of a slice included."""
    import lib.prediction
    import lib.training
    from lib.progress import no_progress
    trainer = trainer_of(prepared, fold, "window.frames=7")
    owner = np.array([row["patient"] for row in table(prepared.space.prepared / "samples.csv")])
    read, gather = {"train": set(), "validation": set()}, lib.training.gather

    def watch(subset):
        def noted(frames, index, out=None):
            read[subset] |= set(owner[index].ravel())
            return gather(frames, index, out)
        return noted
    monkeypatch.setattr(lib.training, "gather", watch("train"))
    monkeypatch.setattr(lib.prediction, "gather", watch("validation"))
    trainer.train_epoch(no_progress)
    trainer.validation.scores(trainer.kept)
    expected = subsets(prepared)[fold]
    assert read == {"train": expected["train"], "validation": expected["validation"]}


def test_the_same_images_under_two_names_are_one_patient(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    twin = place.patients / "Someone_else"
    shutil.copytree(place.patients / "Patient_02", twin)
    image = nibabel.load(twin / "b0.nii.gz")  # the same voxels in another file: no compression, other bytes
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine), twin / "b0.nii")
    os.remove(twin / "b0.nii.gz")
    text = run_script("1", *PREPARE, *QUICK, cwd=tmp_path).stdout
    assert re.search("Someone_else.*Patient_02.*one patient", text)
    owner = {row["case"]: row["patient"] for row in table(place.space.prepared / "cases.csv")}
    assert owner["Someone_else"] == owner["Patient_02"] and len(set(owner.values())) == 7 and len(owner) == 8
    assert len(table(place.space.prepared / "folds.csv")) == 7
    for rows in ("samples.csv", "splits.csv"):
        assert "Someone_else" not in {row["patient"] for row in table(place.space.prepared / rows)}


def test_several_scans_of_a_patient_stay_together(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    names = ["A_scan1", "A_scan2", "B_scan1", "B_scan2", "C_scan1", "D_scan1", "E_scan1"]
    for old, new in zip(sorted(path.name for path in place.patients.glob("Patient_*")), names):
        os.rename(place.patients / old, place.patients / new)
    run_script("1", *PREPARE, *QUICK, "--set", r"data.reader.patient_pattern='^([A-Z])_'", cwd=tmp_path)
    assert {row["case"]: row["patient"] for row in table(place.space.prepared / "cases.csv")} == {n: n[0] for n in names}
    assert {row["patient"] for row in table(place.space.prepared / "splits.csv")} == set("ABCDE")


# --- models ----------------------------------------------------------------------------------------------------------

def test_the_fold_is_read_from_inside_a_model_not_from_its_name(tested, tmp_path):
    place = tested.copy(tmp_path, "prepared", "onnx", "results")
    folder, before = place.space.onnx(RUN), (place.results / "results.csv").read_bytes()
    os.rename(folder / "fold0.onnx", folder / "x.onnx")
    os.rename(folder / "fold1.onnx", folder / "fold0.onnx")
    os.rename(folder / "x.onnx", folder / "fold1.onnx")
    run_script("4", "--no-heatmaps", cwd=tmp_path)
    assert (place.results / "results.csv").read_bytes() == before
    shutil.copy(folder / "fold0.onnx", folder / "fold2.onnx")  # the same fold twice
    assert "both of fold" in run_script("4", cwd=tmp_path, expect=2).stderr


def test_edited_splits_are_refused_by_every_script(tested, tmp_path):
    place = tested.copy(tmp_path, "prepared", "onnx", "results")
    before = (place.results / "results.csv").read_bytes()
    path = place.space.prepared / "splits.csv"
    text = path.read_text()
    path.write_text(text.replace("train", "test", 1))
    for name in ("2a", "2b", "3", "4"):
        error = run_script(name, cwd=tmp_path, expect=2).stderr
        assert "splits.csv" in error and "1-DataPreparation.py" in error and "Traceback" not in error
    assert (place.results / "results.csv").read_bytes() == before


def test_a_model_is_refused_patients_that_it_trained_on(tested):
    """Even where splits and manifest agree, the model itself knows whom it may test."""
    from lib.ensemble import open_models
    from lib.study import InputError
    data, study = tested.open()
    assert sorted(open_models(data, study, tested.space, RUN, None, "cpu")) == [0, 1, 2]
    patient = next(name for name, subset in data.splits[0].items() if subset == "train")
    data.splits[0][patient] = "test"
    with pytest.raises(InputError, match="fold0.onnx was trained on patients that fold 0 tests now"):
        open_models(data, study, tested.space, RUN, None, "cpu")


def test_a_model_of_other_data_is_refused(tested, tmp_path):
    place = tested.copy(tmp_path, "prepared", "onnx")
    (place.patients / "Patient_01" / "mask.nii.gz").unlink()  # so that the brain is another one
    run_script("1", *PREPARE, *QUICK, cwd=tmp_path)
    error = run_script("4", cwd=tmp_path, expect=2).stderr
    assert "fold0.onnx" in error and "stale" in error
    error = run_script("4", "--onnx-dir", tested.space.onnx(RUN), cwd=tmp_path, expect=2).stderr
    assert str(tested.space.onnx(RUN)) in error
    assert not place.results.exists()


# --- new data --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def predicted(tested, tmp_path_factory):
    """Script 4 with --predict on: two new patients (one without ROIs), a copy of one of ours under another name, and
    a new patient who has the name of one of ours."""
    folder = tmp_path_factory.mktemp("predicting")
    place = tested.copy(folder, "prepared", "onnx", "results")
    new = make_patients(folder / "ward", 3, seed=5, lesion_free=0)
    os.rename(new / "Patient_03", new / "Unlabelled")
    os.rename(new / "Patient_02", new / "Labelled")
    for roi in new.glob("Unlabelled/*_roi.nii.gz"):
        roi.unlink()
    shutil.copytree(place.patients / "Patient_07", new / "Copied")
    text = run_script("4", "--predict", new, cwd=folder).stdout
    return place, place.results / "predict-ward", text


def test_new_patients_are_predicted_by_all_folds_together(predicted):
    place, folder, text = predicted
    assert "4 cases predicted by 3 folds together on CPU (1 of them by one fold alone), 3 of them scored" in text
    for name in ("Labelled", "Unlabelled", "Patient_01"):
        source = nibabel.load(place.folder / "ward" / name / "b0.nii.gz")
        agreement = nibabel.load(folder / "agreement" / f"{name}.nii.gz")
        assert agreement.shape == (*source.shape, 3) and np.allclose(agreement.affine, source.affine, atol=1e-4)
        share = np.asarray(agreement.dataobj)
        assert share.dtype == np.float32 and set(np.round(np.unique(share) * 3, 4)) <= {0, 1, 2, 3}
        assert 0 < (share == 1).sum() < share.size
        prediction = np.asarray(nibabel.load(folder / "predictions" / f"{name}.nii.gz").dataobj)
        assert prediction.shape == share.shape and prediction.dtype == np.uint8
        brain, marked = share[..., 0], prediction[..., 0] == 1
        assert marked[brain == 1].mean() > 0.9 and (marked & (brain == 0)).mean() < 0.1
        assert (folder / "heatmaps" / f"{name}.nii.gz").is_file() and (folder / "heatmaps" / f"{name}.png").is_file()


def test_new_patients_are_scored_where_rois_are_present(predicted):
    place, folder, _ = predicted
    rows = table(folder / "results.csv")
    metrics = {name: {row["metric"] for row in rows if row["case"] == name} for name in ("Labelled", "Unlabelled")}
    assert "dice" in metrics["Labelled"] and "dice" not in metrics["Unlabelled"] and "volume_ml" in metrics["Unlabelled"]
    assert not {m for m in metrics["Unlabelled"] if m.endswith("_true")}
    assert {row["fold"] for row in rows if row["case"] in ("Labelled", "Unlabelled")} == {""}
    truth = np.asarray(nibabel.load(place.folder / "ward" / "Labelled" / "stroke_roi.nii.gz").dataobj) > 0
    image = nibabel.load(folder / "predictions" / "Labelled.nii.gz")
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    value = {(row["class"], row["metric"]): row["value"] for row in rows if row["case"] == "Labelled"}
    assert 0 < float(value["stroke", "volume_ml_true"]) <= truth.sum() * voxel_ml * 1.0001
    assert float(value["stroke", "volume_ml"]) == pytest.approx((np.asarray(image.dataobj)[..., 1] == 1).sum() * voxel_ml, rel=1e-5)


def test_a_copy_of_our_own_patient_is_predicted_by_its_test_fold_alone(predicted):
    place, folder, text = predicted
    fold = next(row["fold"] for row in table(place.space.prepared / "folds.csv") if row["patient"] == "Patient_07")
    assert re.search(rf"Copied: the images of Patient_07 .*fold {fold} alone", text)
    assert re.search("Patient_01: .*this name", text)  # other images under a name of ours: said
    ours, copied = (nibabel.load(path) for path in (place.results / "predictions" / "Patient_07.nii.gz",
                                                    folder / "predictions" / "Copied.nii.gz"))
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(copied.dataobj))
    values = [{(row["class"], row["metric"]): row["value"] for row in table(path / "results.csv") if row["case"] == name}
              for path, name in ((place.results, "Patient_07"), (folder, "Copied"))]
    assert values[0] == values[1]
    assert set(np.unique(np.asarray(nibabel.load(folder / "agreement" / "Copied.nii.gz").dataobj))) <= {0, 1}


def test_a_copy_is_left_out_when_only_models_that_trained_on_it_are_there(predicted, tmp_path):
    place, _, _ = predicted
    fold = next(row["fold"] for row in table(place.space.prepared / "folds.csv") if row["patient"] == "Patient_07")
    models = tmp_path / "models"
    shutil.copytree(place.space.onnx(RUN), models)
    (models / f"fold{fold}.onnx").unlink()
    shutil.copytree(place.folder / "ward" / "Copied", tmp_path / "only" / "Copied")
    error = run_script("4", "--predict", tmp_path / "only", "--onnx-dir", models, cwd=place.folder, expect=2).stderr
    assert "Copied" in error and "left out" in error


def test_testing_again_keeps_the_predictions_of_new_patients(predicted):
    place, folder, _ = predicted
    before = (folder / "results.csv").read_bytes()
    run_script("4", "--no-heatmaps", cwd=place.folder)
    assert (folder / "results.csv").read_bytes() == before and (place.results / "results.csv").is_file()


def test_an_roi_that_cannot_be_used_is_not_passed_over_in_silence(predicted, tmp_path):
    """A patient with an ROI of another shape, or with one ROI of two, is predicted unscored: the user must be told."""
    place, _, _ = predicted
    for name in ("Half", "Wrong"):
        shutil.copytree(place.folder / "ward" / "Labelled", tmp_path / "odd" / name)
    (tmp_path / "odd" / "Half" / "flairviz_roi.nii.gz").unlink()
    roi = tmp_path / "odd" / "Wrong" / "stroke_roi.nii.gz"
    image = nibabel.load(roi)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), roi)
    run = run_script("4", "--predict", tmp_path / "odd", "--no-heatmaps", cwd=place.folder, expect=None)
    assert "flairviz_roi" in run.text and "stroke_roi" in run.text


def test_a_known_patient_with_new_images_is_judged_by_the_fold_that_tests_it():
    from types import SimpleNamespace

    from lib.data.case import Case, Header
    from lib.ensemble import choose_voters
    from lib.imaging.geometry import Geometry

    prepared = SimpleNamespace(cases=[SimpleNamespace(content="x", patient=name, case=name) for name in ("p1", "Patient_01")],
                               splits={0: {"p1": "train", "Patient_01": "test"}, 1: {"p1": "test", "Patient_01": "train"}})
    members = {0: "model 0", 1: "model 1"}

    def voters(case: str, patient: str, models=members) -> tuple[list[str], str]:
        notes = []
        header = Header(case, patient, {}, Geometry((1, 2, 2), None), 1)
        return choose_voters(prepared, models, Case(header, np.zeros((1, 1, 2, 2)), {}), notes), " ".join(notes)

    assert voters("loop7", "p1") == (["model 1"], "loop7: other images of patient p1 of the prepared data; predicted by fold 1 alone")
    assert voters("loop7", "p1", {0: "model 0"})[0] == []
    assert voters("loop8", "p2") == (["model 0", "model 1"], "")
    found, note = voters("Patient_01", "Patient_01")  # nothing but a common name
    assert len(found) == 2 and "has this name, but other images" in note
