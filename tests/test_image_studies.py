"""The two ultrasound studies end to end: the real scripts on small phantoms, checked with code of the test's own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import ImageWork as Study, table

from lib.phantoms import phantom_maker

UNET = "network={name: unet, width: 4, depth: 3}"
QUICK = ("--set", "training.batch_size=8", "--set", "training.patience=0", "--tracker", "none")
SIZE = "data.size=[44, 60]"  # odd multiples: nothing that a U-Net halves three times


@pytest.fixture(scope="session")
def nuchal(tmp_path_factory) -> Study:
    """18 images through scripts 1, 2b, 3 and 4."""
    study = Study("nuchal_translucency", tmp_path_factory.mktemp("nuchal"))
    phantom_maker(study.study)(study.root, 18, 3, size="small")
    study.run("1", "-k", 3, "--set", SIZE)
    study.run("2b", "-e", 3, *QUICK, "--set", UNET)
    study.run("3")
    study.run("4")
    return study


@pytest.fixture(scope="session")
def spine(tmp_path_factory) -> Study:
    """Six patients, several frames each, 4 pixels to the millimetre, through scripts 1, 2b, 3 and 4 with a tolerance."""
    study = Study("lumbar_spine", tmp_path_factory.mktemp("spine"))
    phantom_maker(study.study)(study.root, 6, 3, size="small")
    study.run("1", "-k", 3, "--set", SIZE, "--set", "data.reader.pixels_per_mm=4")
    study.run("2b", "-e", 2, *QUICK, "--set", UNET, "--set", "training.checkpoint_every=1", "--classes", 3)
    study.run("3")
    study.run("4", "--tolerance", 1.5)
    return study


def values(path: Path, name: str, metric: str) -> dict[str, float]:
    """case -> value of one class and metric."""
    return {row["case"]: float(row["value"] or "nan") for row in table(path)
            if row["case"] and (row["class"], row["metric"]) == (name, metric)}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum()) if other.any() else float("nan")


# --- what the scripts leave ------------------------------------------------------------------------------------------

def test_every_image_is_tested_once_and_saved_at_its_own_size(nuchal):
    found = values(nuchal.results / "results.csv", "nuchal_translucency", "dice")
    images = {path.stem: path for path in (nuchal.root / "preprocessed_images").iterdir()}
    assert set(found) == set(images) and len(images) == 18
    for case, image in images.items():
        predicted = cv2.imread(str(nuchal.results / "predictions" / f"{case}.png"), cv2.IMREAD_UNCHANGED)
        truth = cv2.imread(str(nuchal.root / "segmentations" / f"seg_{case}.png"), cv2.IMREAD_UNCHANGED)
        assert predicted.shape == truth.shape == cv2.imread(str(image), cv2.IMREAD_GRAYSCALE).shape
        assert set(np.unique(predicted)) <= {0, 255}
        assert found[case] == pytest.approx(dice(predicted > 0, truth > 0), nan_ok=True)
        assert (nuchal.results / "pictures" / f"{case}.png").is_file()
        assert (nuchal.results / "heatmaps" / f"{case}.png").is_file()


def test_without_a_spacing_everything_is_in_pixels(nuchal):
    metrics = {row["metric"] for row in table(nuchal.results / "results.csv")}
    assert {"hd95_px", "area_px", "area_px_true", "false_positive_px", "nt_thickness_px", "nt_thickness_px_true"} <= metrics
    assert not any(metric.endswith(("_mm", "_ml", "_mm2")) for metric in metrics)
    assert "no pixel size" in nuchal.run("4", "--tolerance", 1, expect=2).stderr


def test_the_summary_says_how_well_calipers_agree(nuchal):
    rows = table(nuchal.results / "results.csv")
    pair = [{r["case"]: float(r["value"] or "nan") for r in rows if r["metric"] == m and r["case"]}
            for m in ("nt_thickness_px", "nt_thickness_px_true")]
    errors = np.array([pair[0][case] - pair[1][case] for case in pair[1]])
    known = errors[~np.isnan(errors)]
    summary = {row["metric"]: row for row in table(nuchal.results / "summary.csv")}
    if len(known):
        assert float(summary["nt_thickness_px_abs_error"]["estimate"]) == pytest.approx(np.abs(known).mean())
    if len(known) > 2:
        limits = known.mean() + np.array([-1.96, 1.96]) * known.std(ddof=1)
        found = [float(summary[f"nt_thickness_px_loa_{end}"]["estimate"]) for end in ("low", "high")]
        assert found == pytest.approx(limits.tolist())
    missed = sum(np.isnan(pair[0][case]) and not np.isnan(pair[1][case]) for case in pair[1])
    assert float(summary["nt_thickness_px_missed"]["estimate"]) == missed


def test_worksheets_repeat_the_tables(nuchal, spine):
    for study, name in ((nuchal, "nuchal_translucency"), (spine, "bone")):
        sheet = pd.read_excel(study.results / "results.xlsx", dtype={"case": str})
        expected = values(study.results / "results.csv", name, "dice")
        assert dict(zip(sheet["case"], sheet[f"Dice {name}"])) == pytest.approx(expected, nan_ok=True)
        assert (sheet["seconds"] > 0).all() and np.allclose(sheet["FPR"], 1 - sheet["specificity"], equal_nan=True)
        epochs = pd.read_excel(study.fold(0) / "metrics.xlsx")
        log = pd.read_csv(study.fold(0) / "metrics.csv")
        assert list(epochs["epoch"]) == [epoch + 1 for epoch in log["epoch"]]
        for title, column in {"Dice": "dice/all", "IoU": "iou/all", "accuracy": "accuracy/all", "loss": "validation_loss",
                              "precision": "precision/all", "sensitivity": "recall/all",
                              "specificity": "specificity/all", f"Dice {name}": f"dice/{name}"}.items():
            assert np.allclose(epochs[title], log[column], equal_nan=True), title
        assert np.allclose(epochs["FNR"], 1 - epochs["sensitivity"], equal_nan=True)


def test_a_trained_fold_has_checkpoints_and_validation_pictures(spine):
    folder = spine.fold(0)
    assert {"best.pt", "last.pt", "epoch001.pt", "epoch002.pt", "metrics.csv", "metrics.xlsx"} <= \
        {path.name for path in folder.iterdir()}
    validating = {row["patient"] for row in table(spine.workspace / "prepared" / "splits.csv")
                  if row["fold"] == "0" and row["subset"] == "validation"}
    drawn = {path.stem for path in (folder / "validation").glob("*.png")}
    assert drawn and {re.match(r"D\d+", case).group() for case in drawn} <= validating


def test_frames_of_a_patient_stay_together(spine):
    for row in table(spine.workspace / "prepared" / "cases.csv"):
        assert row["patient"] == re.match(r"D\d+", row["case"]).group()
    for fold in range(3):
        where = [row["patient"] for row in table(spine.workspace / "prepared" / "splits.csv") if row["fold"] == str(fold)]
        assert len(where) == len(set(where)) == 6


def test_exclusive_classes_are_written_with_the_masks_values(spine):
    found = {name: values(spine.results / "results.csv", name, "dice") for name in ("bone", "ligament")}
    for path in (spine.root / "masks").iterdir():
        predicted = cv2.imread(str(spine.results / "predictions" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert predicted.shape == truth.shape and set(np.unique(predicted)) <= {0, 128, 255}
        for name, value in {"bone": 255, "ligament": 128}.items():
            assert found[name][path.stem] == pytest.approx(dice(predicted == value, truth == value), nan_ok=True)


def test_the_tolerant_score_stands_beside_the_plain_one(spine):
    """The best of three truths, recomputed with a disk of OpenCV's: 1.5 mm are 6 pixels."""
    offsets = np.mgrid[-6:7, -6:7]
    disk = (np.square(offsets).sum(axis=0) <= 36).astype(np.uint8)
    for name, value in {"bone": 255, "ligament": 128}.items():
        plain, tolerant, chosen, nsd = (values(spine.results / "results.csv", name, metric)
                                        for metric in ("dice", "dice_tolerant", "tolerance_truth", "nsd"))
        for case in plain:
            predicted = cv2.imread(str(spine.results / "predictions" / f"{case}.png"), 0) == value
            truth = (cv2.imread(str(spine.root / "masks" / f"{case}.png"), 0) == value).astype(np.uint8)
            if not truth.any():
                assert np.isnan(tolerant[case]) and chosen[case] == 0
                continue
            eroded = cv2.erode(truth, disk)
            options = {0: truth, -1: eroded if eroded.any() else truth, 1: cv2.dilate(truth, disk)}
            scores = {key: dice(predicted, option > 0) for key, option in options.items()}
            assert tolerant[case] == pytest.approx(max(scores.values())) and tolerant[case] >= plain[case]
            assert scores[int(chosen[case])] == pytest.approx(tolerant[case])
            assert 0 <= nsd[case] <= 1
    sheet = pd.read_excel(spine.results / "results.xlsx")
    assert set(sheet["truth used, bone"]) <= {"eroded", "original", "dilated"}


# --- other models, other cases ---------------------------------------------------------------------------------------

def test_validation_cases_are_scored_in_a_folder_of_their_own(spine, tmp_path):
    study = spine.copy(tmp_path, "prepared", "onnx", "results")
    before = (study.results / "results.csv").read_bytes()
    done = study.run("4", "--split", "validation", "--no-heatmaps")
    assert "VALIDATION" in done.stdout and (study.results / "results.csv").read_bytes() == before
    rows = table(study.results / "validation" / "results.csv")
    where = {(row["fold"], row["patient"]) for row in table(study.workspace / "prepared" / "splits.csv")
             if row["subset"] == "validation"}
    assert {(row["fold"], row["patient"]) for row in rows if row["case"]} == where
    study.run("4", "--no-heatmaps")
    assert (study.results / "validation" / "results.csv").is_file()  # a later test leaves it there


def test_one_model_can_be_loaded(spine, tmp_path):
    study = spine.copy(tmp_path, "prepared", "onnx", "runs")
    study.run("4", "--load", study.workspace / "onnx" / "unet" / "fold1.onnx", "--no-heatmaps")
    onnx = table(study.results / "load-unet-fold1" / "results.csv")
    assert {row["fold"] for row in onnx if row["case"]} == {"1"}
    study.run("4", "--load", study.fold(1) / "best.pt", "--no-heatmaps")
    converted = table(study.results / "load-unet-fold1-best" / "results.csv")
    assert converted == onnx
    study.run("4", "--load", study.fold(1) / "epoch001.pt", "--no-heatmaps")
    assert (study.results / "load-unet-fold1-epoch001" / "results.csv").is_file() and not (study.results / "results.csv").exists()
    study.run("4", "--load", study.fold(1) / "last.pt", "--no-heatmaps")  # the weights that would be kept
    assert "--onnx-dir" in study.run("4", "--load", study.fold(1) / "best.pt", "--onnx-dir", tmp_path, expect=2).stderr
    (tmp_path / "other.pt").write_bytes(b"no checkpoint")
    assert "not a readable checkpoint" in study.run("4", "--load", tmp_path / "other.pt", expect=2).stderr


def test_new_images_without_masks_are_predicted_by_all_folds(nuchal, tmp_path):
    study = nuchal.copy(tmp_path, "prepared", "onnx")
    phantom_maker(study.study)(tmp_path / "new", 2, 99, size="small")
    shutil.rmtree(tmp_path / "new" / "segmentations")
    done = study.run("4", "--predict", tmp_path / "new")
    assert "2 cases predicted by 3 folds together" in done.stdout and "0 of them scored" in done.stdout
    written = study.results / "predict-new"
    assert len(list((written / "predictions").glob("*.png"))) == len(list((written / "agreement").glob("*.png"))) == 2
    votes = (written / "results.csv").read_bytes()
    done = study.run("4", "--predict", tmp_path / "new", "--load", study.workspace / "onnx" / "unet" / "fold2.onnx")
    assert "2 cases predicted by unet-fold2" in done.stdout and (written / "results.csv").read_bytes() == votes
    assert (study.results / "predict-new-by-unet-fold2" / "results.csv").is_file()


def test_a_corrected_pixel_size_is_noticed(nuchal, tmp_path):
    study = Study(nuchal.study, tmp_path)
    shutil.copytree(nuchal.root, study.root)
    keys = ("-k", 3, "--set", SIZE, "--set", "data.reader.spacing_table={file: px.csv, name_column: name, spacing_column: mm}")
    names = [path.name for path in sorted((study.root / "preprocessed_images").iterdir())]
    sizes = []
    for mm in (0.1, 0.1, 0.5):
        (study.root / "px.csv").write_text("name,mm\n" + "".join(f"{name},{mm}\n" for name in names))
        done = study.run("1", *keys)
        sizes.append(float(table(study.workspace / "prepared" / "cases.csv")[0]["size_nuchal_translucency"]))
    assert sizes[0] == sizes[1] and sizes[2] == pytest.approx(25 * sizes[0]) and "prepared again" in done.stdout
    (study.root / "px.csv").write_text("name,mm\n" + f"{names[0]},0.1\n")
    assert names[1] in study.run("1", *keys, expect=2).stderr


def test_deeplab_goes_through_all_scripts(spine, tmp_path):
    """On ResNet-50; ResNet-101, which differs in its number of layers alone, is built and exported in test_networks.py."""
    study = spine.copy(tmp_path, "prepared")
    study.run("2a", "-k", 0, "-n", "deep", "-e", 1, *QUICK, "--set", "network={name: deeplabv3_resnet50}", "--scale", 0.5)
    assert "done: 1 model, " in study.run("3", "-n", "deep").stdout
    study.run("4", "-n", "deep", "--no-heatmaps")
    assert values(study.workspace / "results" / "deep" / "results.csv", "bone", "dice")


def test_the_seeds_flags_work(spine, tmp_path):
    study = spine.copy(tmp_path, "prepared")
    flags = ("-e", 1, "-b", 4, "-lr", 1e-4, "--weight-decay", 1e-8, "--optimizer", "rmsprop", "--scale", 0.5,
             "--bilinear", "--classes", 3, "--no-amp")
    study.run("2a", "-k", 1, *flags, *QUICK, "--set", UNET)
    assert "has 3 (background, bone, ligament)" in study.run("2a", "-k", 1, "--classes", 4, *QUICK, expect=2).stderr
    study.run("3")
    study.run("4", "--no-heatmaps")


# --- other layouts ---------------------------------------------------------------------------------------------------

def split_folders(root: Path, target: Path, subsets: dict[str, str]) -> None:
    """images/ and masks/ dealt into target/<subset>/{images,masks} by patient."""
    for path in (root / "images").iterdir():
        subset = subsets[re.match(r"D\d+", path.name).group()]
        for kind in ("images", "masks"):
            (target / subset / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(root / kind / path.name, target / subset / kind)


@pytest.fixture(scope="session")
def patients_of_spine(spine) -> list[str]:
    return sorted({row["patient"] for row in table(spine.workspace / "prepared" / "cases.csv")})


def test_predefined_folders_make_one_fold(spine, patients_of_spine, tmp_path):
    subsets = dict(zip(patients_of_spine, ["train", "train", "train", "train", "val", "test"]))
    study = Study(spine.study, tmp_path)
    split_folders(spine.root, study.root, subsets)
    assert "data.folds.pool=true" in study.run("1", "-k", 3, "--set", SIZE, expect=2).stderr
    study.run("1", "--set", SIZE)
    names = {"val": "validation"}
    assert {row["patient"]: (row["fold"], row["subset"]) for row in table(study.workspace / "prepared" / "splits.csv")} == \
        {patient: ("0", names.get(subset, subset)) for patient, subset in subsets.items()}
    study.run("2b", "-e", 1, *QUICK, "--set", UNET)
    study.run("3")
    study.run("4", "--no-heatmaps")
    assert {row["patient"] for row in table(study.results / "results.csv") if row["case"]} == {patients_of_spine[5]}
    study.run("1", "-k", 3, "--set", SIZE, "--set", "data.folds.pool=true")
    assert len(table(study.workspace / "prepared" / "splits.csv")) == 18


def test_without_a_test_folder_validation_is_scored_and_said_so(spine, patients_of_spine, tmp_path):
    study = Study(spine.study, tmp_path)
    split_folders(spine.root, study.root, dict(zip(patients_of_spine, ["train"] * 4 + ["val"] * 2)))
    assert "no test folder" in study.run("1", "--set", SIZE).stdout
    study.run("2b", "-e", 1, *QUICK, "--set", UNET)
    study.run("3")
    assert "VALIDATION" in study.run("4", "--no-heatmaps").stdout
    assert not (study.results / "results.csv").exists() and (study.results / "validation" / "results.csv").is_file()


def test_a_patient_in_two_predefined_folders_is_refused(spine, patients_of_spine, tmp_path):
    study = Study(spine.study, tmp_path)
    split_folders(spine.root, study.root, dict(zip(patients_of_spine, ["train"] * 4 + ["val", "test"])))
    first = next(path for path in (study.root / "train" / "images").iterdir())
    for kind in ("images", "masks"):
        shutil.move(study.root / "train" / kind / first.name, study.root / "test" / kind / first.name)
    found = study.run("1", "--set", SIZE, expect=2).stderr
    assert "is in two subsets" in found and "data.folds.pool=true" in found and not study.workspace.exists() or \
        not (study.workspace / "prepared").exists()


def test_classes_that_are_not_given_are_found(spine, tmp_path):
    study = Study(spine.study, tmp_path)
    shutil.copytree(spine.root, study.root)
    done = study.run("1", "-k", 3, "--set", SIZE, "--set", "data.classes=[]", "--set", "task.colours={}")
    assert "128" in done.stdout and "255" in done.stdout
    study.run("2a", "-e", 1, *QUICK, "--set", UNET, "--set", "task.colours={}")


def test_colour_images_need_one_key(spine, tmp_path):
    study = Study(spine.study, tmp_path)
    shutil.copytree(spine.root, study.root)
    for path in (study.root / "images").iterdir():
        grey = cv2.imread(str(path), 0)
        cv2.imwrite(str(path), np.stack([grey, grey // 2, 255 - grey], axis=-1))
    study.run("1", "-k", 3, "--set", SIZE, "--set", "data.reader.channels=3")
    assert np.load(study.workspace / "prepared" / "frames.npy", mmap_mode="r").shape[1:] == (3, 44, 60)
    study.run("2a", "-e", 1, *QUICK, "--set", UNET)
    study.run("3")
    study.run("4", "--no-heatmaps")


def test_a_truth_restored_from_the_grid_is_nearly_itself(spine):
    """Stored targets at 44 x 60 back at the native size."""
    from lib.data.store import open_prepared
    from lib.study import load_study
    from lib.workspace import Workspace
    overrides = ["network={name: unet}"]
    prepared, _ = open_prepared(Workspace(spine.workspace), load_study(spine.study, overrides), overrides)
    for case in prepared.cases[:4]:
        grid = prepared.targets[case.samples]
        native = case.fit.restore_labels(grid)
        truth = prepared.truth(case)
        assert native.shape == truth.shape[1:] == case.geometry.shape
        assert dice(native > 0, truth.any(axis=0)) > 0.9
