"""Standard planes and landmarks end to end: the real scripts on phantoms, checked with code of the test's own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from conftest import ImageWork, table
from sklearn import metrics
from torch.nn import functional

from lib.data.store import open_prepared
from lib.phantoms import phantom_maker
from lib.runs import train_fold
from lib.study import InputError, load_study
from lib.tasks import make_task
from lib.workspace import Workspace

CLASSES = ("trans_thalamic", "trans_ventricular", "trans_cerebellar", "abdomen", "femur", "humerus", "thorax", "crown_rump")
PATIENT = "^(Patient[0-9]+)_"
GRID = 32, 40  # rows, columns: half of some images, and others are padded
NO_FIGURES = ("--set", "report.figures=false")
READER = f"kind: image_classes, patient_pattern: '{PATIENT}'"
PREPARE = ("-k", 2, "-v", 0.3, "-j", 1, "--set", "data.size=[32,40]", "--set", f"data.reader.patient_pattern='{PATIENT}'")
TRAIN_KEYS = "training.checkpoint_every=3", "report.validation_pictures=2"
TRAIN = ("-e", 8, "-b", 8, "-lr", 0.003, "--no-amp", "--tracker", "none", *(p for key in TRAIN_KEYS for p in ("--set", key)))


class Planes(ImageWork):
    run_name = "cnn"


class Heads(Planes):
    run_name = "unet"


@pytest.fixture(scope="module")
def planes(tmp_path_factory) -> Planes:
    """30 images of 20 patients and eight classes through all scripts."""
    work = Planes("fetal_biometry", tmp_path_factory.mktemp("planes"))
    phantom_maker(work.study)(work.root, 20, 0, size="small")
    work.run("1", *PREPARE)
    work.run("2b", "-j", 2, *TRAIN)
    work.run("3")
    work.run("4")
    return work


# --- the test's own reading and arithmetic ---------------------------------------------------------------------------

def labels_of(root: Path) -> dict[str, str]:
    """Image without suffix -> class."""
    return {row["image"].removesuffix(".png"): row["label"] for row in table(root / "labels.csv")}


def pictures_of(root: Path) -> dict[str, np.ndarray]:
    """Image without suffix -> its grey levels."""
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (root / "images").rglob("*.png")}


def placed(shape, grid) -> tuple[tuple[int, int], tuple[int, int]]:
    """((rows, columns) of the scaled image, (top, left) of its corner in the grid)."""
    zoom = min(grid[0] / shape[0], grid[1] / shape[1])
    scaled = round(shape[0] * zoom), round(shape[1] * zoom)
    return scaled, ((grid[0] - scaled[0]) // 2, (grid[1] - scaled[1]) // 2)


def on_grid(picture: np.ndarray, grid=GRID) -> np.ndarray:
    """uint8: scaled to fit, black around it."""
    (rows, columns), (top, left) = placed(picture.shape, grid)
    frame = np.zeros(grid, np.uint8)
    frame[top:top + rows, left:left + columns] = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    return frame


def predictions_of(folder: Path) -> pd.DataFrame:
    """predictions.csv by case."""
    return pd.read_csv(folder / "predictions.csv", dtype={"case": str}).set_index("case")


def probabilities_of(predicted: pd.DataFrame, classes=CLASSES) -> np.ndarray:
    return predicted[[f"p_{name}" for name in classes]].to_numpy(float)


def splits_of(work: ImageWork) -> dict[int, dict[str, str]]:
    """fold -> patient -> subset."""
    splits = {}
    for row in table(work.workspace / "prepared" / "splits.csv"):
        splits.setdefault(int(row["fold"]), {})[row["patient"]] = row["subset"]
    return splits


def of_cases(folder: Path, metric: str, name: str = "all") -> dict[str, float]:
    """case -> value in results.csv."""
    return {row["case"]: float(row["value"] or "nan") for row in table(folder / "results.csv")
            if row["case"] and (row["class"], row["metric"]) == (name, metric)}


def of_set(folder: Path, fold: str) -> dict[tuple[str, str], float]:
    """(class, metric) -> value of the rows that speak of a whole set, of a fold or ("") of all."""
    return {(row["class"], row["metric"]): float(row["value"] or "nan") for row in table(folder / "results.csv")
            if not row["case"] and row["fold"] == fold}


def summary_of(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    return {(row["class"], row["metric"]): {key: float(text or "nan") for key, text in row.items()
                                            if key not in ("class", "metric")} for row in table(folder / "summary.csv")}


def open_model(path: Path) -> tuple[onnxruntime.InferenceSession, dict]:
    """A session and its metadata."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def by_model(path: Path, frames: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) that a model alone gives to frames (n, rows, columns)."""
    [logits] = open_model(path)[0].run(["class_logits"], {"frames": frames[:, None, None].astype(np.float32)})
    return softmax(logits.astype(float))


def expected_scores(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[tuple[str, str], float]:
    """(class, metric) -> value by scikit-learn, each class against the others, and their means where they are defined."""
    rows = {}
    for index, name in enumerate(CLASSES):
        true, said, scores = truth == name, predicted == name, probabilities[:, index]
        both = 0 < true.sum() < len(true)
        none = 0.0 if true.any() else np.nan  # of a class that is there, but never said, precision is 0
        rows[name, "recall"] = metrics.recall_score(true, said, zero_division=np.nan)
        rows[name, "precision"] = metrics.precision_score(true, said, zero_division=none)
        rows[name, "f1"] = metrics.f1_score(true, said, zero_division=np.nan)
        rows[name, "specificity"] = metrics.recall_score(~true, ~said, zero_division=np.nan)
        rows[name, "roc_auc"] = metrics.roc_auc_score(true, scores) if both else np.nan
        rows[name, "pr_auc"] = metrics.average_precision_score(true, scores) if both else np.nan
    for metric in ("recall", "precision", "f1", "specificity", "roc_auc", "pr_auc"):
        rows["all", metric] = np.nanmean([rows[name, metric] for name in CLASSES])
    rows["all", "balanced_accuracy"] = metrics.recall_score(truth, predicted, labels=sorted(set(truth)), average="macro")
    rows["all", "kappa"] = metrics.cohen_kappa_score(truth, predicted)
    sure, right = probabilities.max(axis=1), predicted == truth
    bins = np.ceil(sure * 10)
    rows["all", "calibration_error"] = sum(abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean()
                                           for b in set(bins))
    return rows


def all_bytes(folder: Path, *but: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but}


# --- what script 1 leaves --------------------------------------------------------------------------------------------

def test_targets_are_the_tables_labels(planes):
    labels = labels_of(planes.root)
    targets = np.load(planes.prepared / "targets.npy")
    samples, cases = table(planes.prepared / "samples.csv"), table(planes.prepared / "cases.csv")
    assert targets.dtype == np.int64 and targets.shape == (30,) and len(labels) == 30 and set(labels.values()) == set(CLASSES)
    assert {row["case"]: CLASSES[target] for row, target in zip(samples, targets)} == labels
    assert {row["case"]: row["class"] for row in cases} == labels == {
        row["case"]: row["class"] for row in table(planes.prepared / "training_set.csv")}
    assert all(row["patient"] == re.match(PATIENT, row["case"])[1] for row in cases)
    for index, row in enumerate(cases):
        assert CLASSES[np.load(planes.prepared / "truth" / f"{index:06d}.npy").item()] == labels[row["case"]]


def test_frames_are_the_images_scaled_and_padded(planes):
    frames, pictures = np.load(planes.prepared / "frames.npy"), pictures_of(planes.root)
    assert frames.dtype == np.uint8 and frames.shape == (30, 1, *GRID)
    assert len({picture.shape for picture in pictures.values()}) == 2
    for row in table(planes.prepared / "samples.csv"):
        found = frames[int(row["frame"]), 0].astype(int)
        assert np.abs(found - on_grid(pictures[row["case"]])).max() <= 1


def test_no_patient_is_on_both_sides_and_each_is_tested_once(planes):
    patients, splits = {re.match(PATIENT, case)[1] for case in labels_of(planes.root)}, splits_of(planes)
    assert len(table(planes.prepared / "splits.csv")) == 2 * len(patients) and len(patients) == 20
    assert all(set(subsets) == patients and set(subsets.values()) == {"train", "validation", "test"}
               for subsets in splits.values())
    tested = [patient for subsets in splits.values() for patient, subset in subsets.items() if subset == "test"]
    assert sorted(tested) == sorted(patients)


def test_figures_show_the_classes(planes):
    drawn = {path.stem for path in (planes.prepared / "figures").glob("*.png")}
    assert {"class_frequency", "patients_per_class", "samples"} <= drawn


# --- what scripts 2 and 3 leave --------------------------------------------------------------------------------------

def test_a_trained_fold_has_curves_periodic_checkpoints_and_pictures(planes):
    for fold, subsets in splits_of(planes).items():
        folder = planes.fold(fold)
        log = pd.read_csv(folder / "metrics.csv")
        assert list(log.epoch) == list(range(8)) and {"train_loss", "train_accuracy", "validation_loss", "accuracy/all"} <= {*log}
        assert cv2.imread(str(folder / "learning_curves.png")) is not None
        states = {path.name: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}
        assert {"best.pt", "last.pt", "epoch003.pt", "epoch006.pt"} == set(states)
        assert [states[f"epoch00{n}.pt"]["epoch"] for n in (3, 6)] == [2, 5]
        best = states["best.pt"]
        assert best["score"] == pytest.approx(log["accuracy/all"].max()) and best["finished"]
        assert log["accuracy/all"][best["epoch"]] == log["accuracy/all"].max()
        validating = {patient for patient, subset in subsets.items() if subset == "validation"}
        drawn = {re.match(PATIENT, path.stem)[1] for path in (folder / "validation").glob("*.png")}
        assert drawn and drawn <= validating


def test_a_model_gives_logits_and_gradcam_of_the_checkpoints_network(planes):
    """The whole way again from the tensors of best.pt: logits, and GradCAM by autograd (Selvaraju et al. 2017)."""
    assert {row["passed"] for row in table(planes.workspace / "onnx" / "cnn" / "parity.csv")} == {"yes"}
    frames = np.load(planes.prepared / "frames.npy").astype(np.float32)[:4]
    for fold in (0, 1):
        state = {key.removeprefix("core."): value for key, value in
                 torch.load(planes.fold(fold) / "best.pt", weights_only=True)["network"].items()}
        layer = torch.from_numpy((frames - 127.5) / 63.75)
        for name in ("conv1", "conv2"):
            layer = functional.conv2d(layer, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
            layer = functional.max_pool2d(layer.relu(), 2)
        layer.requires_grad_(True)
        logits = functional.linear(layer.flatten(1), state["linear.weight"], state["linear.bias"])
        maps = []
        for index in range(len(CLASSES)):
            [slope] = torch.autograd.grad(logits[:, index].sum(), layer, retain_graph=True)
            maps.append((slope.mean(dim=(2, 3), keepdim=True) * layer).sum(dim=1).relu())
        expected = torch.stack(maps, dim=1).detach().numpy()
        session, _ = open_model(planes.onnx(fold))
        found_logits, found = session.run(["class_logits", "cam"], {"frames": frames[:, None]})
        assert np.allclose(found_logits, logits.detach().numpy(), atol=1e-4)
        assert found.shape == (4, 8, 8, 10) and np.abs(found - expected).max() < 1e-4 * max(1, expected.max()) and found.max() > 0


def test_a_model_says_what_it_is_and_nothing_of_this_machine(planes):
    for fold in (0, 1):
        _, meta = open_model(planes.onnx(fold))
        assert tuple(meta["classes"]) == CLASSES and (meta["fold"], meta["finished"]) == (fold, True)
        assert set(meta["outputs"]) == {"class_logits", "cam"} and "pool2" in meta["outputs"]["cam"]
        assert meta["input"]["size"] == list(GRID) and "threshold" not in meta["calibration"]
        assert str(planes.folder) not in json.dumps(meta)


# --- what script 4 leaves --------------------------------------------------------------------------------------------

def test_every_case_is_predicted_once_by_the_fold_that_tests_its_patient(planes):
    predicted, labels = predictions_of(planes.results), labels_of(planes.root)
    assert sorted(predicted.index) == sorted(labels) and "threshold" not in predicted
    probabilities = probabilities_of(predicted)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6) and (probabilities > 0).all()
    assert [CLASSES[i] for i in probabilities.argmax(axis=1)] == list(predicted.predicted)
    assert dict(predicted.truth) == labels
    splits = splits_of(planes)
    for case, row in predicted.iterrows():
        assert row.patient == re.match(PATIENT, case)[1] and splits[row.fold][row.patient] == "test"
    right = (predicted.truth == predicted.predicted).mean()
    assert 1 / 8 < right < 1  # something was learnt, and there is something to explain


def test_probabilities_are_those_of_plain_onnx_runtime_on_the_images(planes):
    predicted, pictures = predictions_of(planes.results), pictures_of(planes.root)
    for fold, rows in predicted.groupby("fold"):
        expected = by_model(planes.onnx(fold), np.stack([on_grid(pictures[case]) for case in rows.index]))
        assert np.abs(probabilities_of(rows) - expected).max() < 5e-3  # of a grey level's rounding
    frames, samples = np.load(planes.prepared / "frames.npy"), table(planes.prepared / "samples.csv")
    for row in samples:
        case = predicted.loc[row["case"]]
        [expected] = by_model(planes.onnx(case.fold), frames[int(row["frame"])])
        assert np.allclose(probabilities_of(predicted.loc[[row["case"]]])[0], expected, atol=1e-5)


def test_scores_of_a_case_are_those_of_its_probabilities(planes):
    predicted = predictions_of(planes.results)
    columns = {metric: of_cases(planes.results, metric) for metric in ("accuracy", "truth_probability", "brier", "log_loss")}
    for case, row in predicted.iterrows():
        likely = row[f"p_{row.truth}"]
        squares = sum((row[f"p_{name}"] - (name == row.truth)) ** 2 for name in CLASSES)
        expected = {"accuracy": float(row.truth == row.predicted), "truth_probability": likely, "brier": squares,
                    "log_loss": -np.log(likely)}
        assert {metric: values[case] for metric, values in columns.items()} == pytest.approx(expected, abs=1e-6)
        assert of_cases(planes.results, "truth_probability", row.truth)[case] == pytest.approx(likely)
    assert all(len(values) == 30 for values in columns.values())


@pytest.mark.filterwarnings("ignore")  # scikit-learn says which classes a fold lacks
@pytest.mark.parametrize("fold", ["0", "1", ""])
def test_scores_of_a_set_are_scikit_learns(planes, fold):
    predicted = predictions_of(planes.results)
    rows = predicted[predicted.fold == int(fold)] if fold else predicted
    expected = expected_scores(rows.truth.to_numpy(), rows.predicted.to_numpy(), probabilities_of(rows))
    found = of_set(planes.results, fold)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert set(found) == set(expected)  # no threshold: there are more than two classes


def test_the_summary_repeats_them_with_intervals_over_patients(planes):
    predicted, summary = predictions_of(planes.results), summary_of(planes.results)
    predicted["right"] = predicted.truth == predicted.predicted
    accuracy = summary["all", "accuracy"]
    assert accuracy["estimate"] == pytest.approx(predicted.right.mean())
    assert accuracy["mean"] == pytest.approx(predicted.groupby("fold").right.mean().mean())
    for key in (("all", "roc_auc"), ("femur", "f1"), ("all", "kappa"), ("all", "balanced_accuracy")):
        assert summary[key]["estimate"] == pytest.approx(of_set(planes.results, "")[key], nan_ok=True)
        assert summary[key]["mean"] == pytest.approx(np.nanmean([of_set(planes.results, fold)[key] for fold in "01"]))
    random = np.random.default_rng(5)
    of_patient = [rows for _, rows in predicted.groupby("patient")]
    drawn = {"accuracy": [], "kappa": []}
    for _ in range(1000):
        sample = pd.concat([of_patient[i] for i in random.integers(20, size=20)])
        drawn["accuracy"].append(sample.right.mean())
        drawn["kappa"].append(metrics.cohen_kappa_score(sample.truth, sample.predicted))
    for metric, values in drawn.items():
        row = summary["all", metric]
        assert [row["ci_low"], row["ci_high"]] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=0.05)
        assert row["patients"] == 20


def test_the_confusion_matrix_counts_the_predictions(planes):
    predicted, rows = predictions_of(planes.results), table(planes.results / "confusion_matrix.csv")
    expected = metrics.confusion_matrix(predicted.truth, predicted.predicted, labels=CLASSES)
    assert [row["truth"] for row in rows] == list(CLASSES)
    assert [[int(row[f"predicted_{name}"]) for name in CLASSES] for row in rows] == expected.tolist()


def test_the_misclassified_are_the_wrong_rows_each_with_its_sheet(planes):
    predicted = predictions_of(planes.results)
    wrong = predicted[predicted.truth != predicted.predicted]
    found = pd.read_csv(planes.results / "misclassified.csv", dtype={"case": str}).set_index("case")
    assert sorted(found.index) == sorted(wrong.index)
    pd.testing.assert_frame_equal(found.loc[wrong.index, wrong.columns], wrong)
    files = set()
    for kind, rows in found.groupby("kind"):
        assert rows.confidence.is_monotonic_decreasing and list(rows["rank"]) == list(range(1, len(rows) + 1))
        for case, row in rows.iterrows():
            assert kind == f"{row.truth}_as_{row.predicted}" and row.confidence == row[f"p_{row.predicted}"]
            sheet = planes.results / row.picture
            assert row.picture.startswith(f"misclassified/{kind}/") and case in sheet.name
            assert sheet.read_bytes() == (planes.results / "heatmaps" / f"gradcam_{case}.png").read_bytes()
            files.add(sheet)
    assert files == {path for path in (planes.results / "misclassified").rglob("*") if path.is_file()}


def test_every_case_has_its_pictures_and_the_set_its_curves(planes):
    cases = set(labels_of(planes.root))
    assert {path.stem for path in (planes.results / "pictures").iterdir()} == cases
    assert {path.name for path in (planes.results / "heatmaps").iterdir()} == {f"gradcam_{case}.png" for case in cases}
    figures = {path.stem for path in (planes.results / "figures").iterdir()}
    assert {"roc", "precision_recall", "confusion_matrix", "reliability", "worst_cases"} <= figures
    sheet = pd.read_excel(planes.results / "results.xlsx", dtype={"case": str})
    assert dict(zip(sheet.case, sheet.accuracy)) == of_cases(planes.results, "accuracy")


def test_validation_cases_are_scored_apart_and_said_to_be(planes, tmp_path):
    work = planes.copy(tmp_path, "prepared", "onnx")
    assert "VALIDATION" in work.run("4", "--split", "validation").stdout
    written, splits = work.results / "validation", splits_of(work)
    predicted = pd.read_csv(written / "predictions.csv")
    held = sorted((fold, case) for fold, subsets in splits.items() for case in labels_of(work.root)
                  if subsets[re.match(PATIENT, case)[1]] == "validation")
    assert sorted(zip(predicted.fold, predicted.case)) == held and not (work.results / "predictions.csv").exists()
    for fold, rows in predicted.groupby("fold"):
        best = torch.load(planes.fold(fold) / "best.pt", weights_only=True)
        assert (rows.truth == rows.predicted).mean() == pytest.approx(best["score"])  # the epoch's own accuracy
    for row in table(written / "misclassified.csv"):
        sheet = written / "heatmaps" / f"fold{row['fold']}" / f"gradcam_{row['case']}.png"
        assert (written / row["picture"]).read_bytes() == sheet.read_bytes()


# --- once more -------------------------------------------------------------------------------------------------------

def test_a_second_run_does_nothing(planes):
    before = all_bytes(planes.prepared) | all_bytes(planes.fold(0))
    assert "nothing has changed: 30 cases" in planes.run("1", *PREPARE).stdout
    keys = [*TRAIN_KEYS, "training.epochs=8", "training.batch_size=8", "training.learning_rate=0.003", "training.amp=false",
            "tracking.trackers=[none]"]
    prepared, study = open_prepared(Workspace(planes.workspace), load_study(planes.study, keys), keys)
    assert train_fold(prepared, study, Workspace(planes.workspace), 0, "cnn", device="cpu").already_finished
    assert before == all_bytes(planes.prepared) | all_bytes(planes.fold(0))


def test_the_same_commands_give_the_same_bytes(planes, tmp_path):
    work = planes.copy(tmp_path)
    work.run("1", *PREPARE)
    assert all_bytes(work.prepared).keys() and {path.name: raw for path, raw in all_bytes(work.prepared).items()} == \
        {path.name: raw for path, raw in all_bytes(planes.prepared).items()}
    work.run("2a", "-k", 1, *TRAIN)
    work.run("3")
    assert "ONLY 1 of 2 folds" in work.run("4", "--no-heatmaps").stdout
    for name in ("best.pt", "epoch003.pt", "metrics.csv"):
        assert (work.fold(1) / name).read_bytes() == (planes.fold(1) / name).read_bytes(), name
    assert work.onnx(1).read_bytes() == planes.onnx(1).read_bytes()
    again, first = ([row for row in table(one.results / "predictions.csv") if row["fold"] == "1"] for one in (work, planes))
    assert again == first and len(again) > 5
    assert all(row["picture"] == "" for row in table(work.results / "misclassified.csv"))  # nothing was drawn
    assert not (work.results / "misclassified").exists() and not (work.results / "heatmaps").exists()


# --- new images ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def ward(planes, tmp_path_factory) -> Planes:
    """A copy with prepared data and models; ward/ holds new images, and one of the prepared ones under another name."""
    folder = tmp_path_factory.mktemp("ward")
    work = planes.copy(folder, "prepared", "onnx")
    phantom_maker(work.study)(folder / "ward", 3, 77, size="small")
    for path in sorted((folder / "ward" / "images").iterdir()):
        path.rename(path.with_name(f"New{path.name}"))
    shutil.copy(planes.root / "images" / "Patient005_1.png", folder / "ward" / "images" / "NewPatient900_1.png")
    (folder / "ward" / "labels.csv").rename(folder / "labels.csv")
    return work


def check_fused(work: Planes, known: pd.DataFrame) -> pd.DataFrame:
    """New cases have the mean of all folds' probabilities, a known one those of its own fold."""
    predicted, pictures = predictions_of(work.results / "predict-ward"), pictures_of(work.folder / "ward")
    assert set(predicted.index) == set(pictures) and len(pictures) >= 4
    for case, row in predicted.iterrows():
        found = probabilities_of(predicted.loc[[case]])[0]
        if case == "NewPatient900_1":
            assert np.allclose(found, probabilities_of(known.loc[["Patient005_1"]])[0], atol=1e-6)
            assert row.fold == known.fold["Patient005_1"]
        else:
            expected = np.mean([by_model(work.onnx(fold), on_grid(pictures[case])[None])[0] for fold in (0, 1)], axis=0)
            assert np.abs(found - expected).max() < 5e-3 and np.isnan(row.fold)
        assert row.predicted == CLASSES[found.argmax()]
    return predicted


def test_new_images_without_labels_are_predicted_by_all_folds(planes, ward):
    said = ward.run("4", "--predict", ward.folder / "ward").stdout
    count = len(pictures_of(ward.folder / "ward"))
    assert f"{count} cases predicted by 2 folds together on CPU (1 of them by one fold alone), 0 of them scored" in said
    predicted = check_fused(ward, predictions_of(planes.results))
    assert predicted.truth.isna().all()
    written = ward.results / "predict-ward"
    assert {row["metric"] for row in table(written / "results.csv")} == {"probability"}
    assert not (written / "misclassified.csv").exists() and not (written / "confusion_matrix.csv").exists()
    assert len(list((written / "heatmaps").iterdir())) == len(list((written / "pictures").iterdir())) == count


def test_new_images_with_labels_are_scored(planes, ward):
    rows = [f"New{row['image']},{row['label']}" for row in table(ward.folder / "labels.csv")]
    (ward.folder / "ward" / "labels.csv").write_text("\n".join(["image,label", *rows[1:]]) + "\n")  # one has no row
    said = ward.run("4", "--predict", ward.folder / "ward", "--no-heatmaps").stdout
    assert f"{len(rows) - 1} of them scored" in said
    predicted = check_fused(ward, predictions_of(planes.results))
    scored = predicted[predicted.truth.notna()]
    assert dict(scored.truth) == {row.split(".png,")[0]: row.split(",")[1] for row in rows[1:]}
    written = ward.results / "predict-ward"
    assert of_cases(written, "accuracy") == {case: float(row.truth == row.predicted) for case, row in scored.iterrows()}
    wrong = set(scored[scored.truth != scored.predicted].index)
    assert {row["case"] for row in table(written / "misclassified.csv")} == wrong
    (ward.folder / "ward" / "labels.csv").unlink()


# --- other layouts ---------------------------------------------------------------------------------------------------

def dealt(planes) -> dict[str, str]:
    """Image without suffix -> train, val or test, by patient."""
    patients = sorted({re.match(PATIENT, case)[1] for case in labels_of(planes.root)})
    subsets = dict(zip(patients, ["train"] * 12 + ["val"] * 4 + ["test"] * 4))
    return {case: subsets[re.match(PATIENT, case)[1]] for case in labels_of(planes.root)}


def folders_of_classes(planes, root: Path) -> str:
    for case, label in labels_of(planes.root).items():
        copy_image(planes, case, root / "images" / label)
    return f"{{{READER}, labels: folders}}"


def split_folders_of_classes(planes, root: Path) -> str:
    for case, label in labels_of(planes.root).items():
        copy_image(planes, case, root / dealt(planes)[case] / label)
    return f"{{{READER}, labels: folders, images: .}}"


def split_tables(planes, root: Path) -> str:
    for case, label in labels_of(planes.root).items():
        place = root / dealt(planes)[case]
        copy_image(planes, case, place / "images")
        if not (place / "labels.csv").is_file():
            (place / "labels.csv").write_text("image,label\n")
        with (place / "labels.csv").open("a") as file:
            file.write(f"{case}.png,{label}\n")
    return f"{{{READER}, table: labels.csv}}"


def masks(planes, root: Path) -> str:
    """Where tissue is brighter than the mean the mask has its class's number, 10, 20, ..., elsewhere 0."""
    (root / "masks").mkdir(parents=True)
    for case, label in labels_of(planes.root).items():
        copy_image(planes, case, root / "images")
        picture = pictures_of(planes.root)[case]
        cv2.imwrite(str(root / "masks" / f"{case}.png"),
                    np.where(picture > picture.mean(), 10 * (1 + CLASSES.index(label)), 0).astype(np.uint8))
    return f"{{{READER}, masks: masks}}"


def copy_image(planes, case: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(planes.root / "images" / f"{case}.png", folder)


@pytest.mark.parametrize("layout", [folders_of_classes, split_folders_of_classes, split_tables, masks],
                         ids=lambda layout: layout.__name__)
def test_other_layouts_give_the_same_labels(planes, tmp_path, layout):
    work = Planes(planes.study, tmp_path)
    reader = layout(planes, work.root)
    keys = ["--set", f"data.reader={reader}", "--set", "data.size=[32,40]", *NO_FIGURES]
    if layout is masks:
        keys += ["--set", f"data.classes={{{', '.join(f'{name}: {10 * (1 + i)}' for i, name in enumerate(CLASSES))}}}"]
    split = layout in (split_folders_of_classes, split_tables)
    if split:
        assert "data.folds.pool=true" in work.run("1", "-k", 3, *keys, expect=2).stderr
    work.run("1", *(() if split else ("-k", 3)), *keys)
    targets, cases = np.load(work.prepared / "targets.npy"), table(work.prepared / "cases.csv")
    stems = [Path(json.loads(row["files"])["image"]).stem for row in cases]
    assert {stem: CLASSES[target] for stem, target in zip(stems, targets)} == labels_of(planes.root)
    known = {Path(json.loads(row["files"])["image"]).stem: row["content"] for row in table(planes.prepared / "cases.csv")}
    assert {stem: row["content"] for stem, row in zip(stems, cases)} == known  # the same images, too
    if split:
        words = {"train": "train", "val": "validation", "test": "test"}
        assert splits_of(work) == {0: {re.match(PATIENT, case)[1]: words[subset] for case, subset in dealt(planes).items()}}
    else:
        assert set(splits_of(work)) == {0, 1, 2}


def test_classes_that_are_not_given_are_found(planes, tmp_path):
    work = Planes(planes.study, tmp_path)
    shutil.copytree(planes.root, work.root)
    said = work.run("1", *PREPARE, *NO_FIGURES, "--set", "data.classes=[]").stdout
    assert "classes found" in said and all(name in said for name in CLASSES)
    targets, names = np.load(work.prepared / "targets.npy"), sorted(CLASSES)
    found = {row["case"]: names[target] for row, target in zip(table(work.prepared / "samples.csv"), targets)}
    assert found == labels_of(planes.root)
    _, study = open_prepared(Workspace(work.workspace), load_study(work.study), [])
    assert study.data.classes == tuple(names) and make_task(study).outputs == 8


# --- bad input -------------------------------------------------------------------------------------------------------

def refused(work: ImageWork, script: str, *args) -> str:
    """What a script that must stop with exit code 2 says on stderr."""
    done = work.run(script, *args, expect=2)
    assert "Traceback" not in done.text and done.stderr.startswith("error: ")
    return done.stderr


def test_bad_rows_and_images_are_listed_at_once_or_left_out(planes, tmp_path):
    work = planes.copy(tmp_path)
    cases, images = sorted(labels_of(work.root)), work.root / "images"
    path = work.root / "labels.csv"
    text = path.read_text()
    lines = text.splitlines()
    for case in cases[6:8]:  # found when their pixels are read, after all that the first bytes tell
        (images / f"{case}.png").write_bytes((images / f"{case}.png").read_bytes()[:-300])
    said = refused(work, "1", *PREPARE, *NO_FIGURES)
    assert all(re.search(rf"^ *{case}: images/{case}.png: ", said, re.M) for case in cases[6:8])
    assert "2 cases cannot be used" in said and not work.prepared.exists()
    (images / f"{cases[0]}.png").write_text("no picture")
    (images / f"{cases[1]}.png").write_bytes(b"")
    shutil.copy(work.root / "labels.csv", images / f"{cases[2]}.png")
    numbers = {line.split(".")[0]: index for index, line in enumerate(lines)}
    lines[numbers[cases[3]]] = f"{cases[3]}.png,spleen"
    lines[numbers[cases[4]]] = f"{cases[4]}.png,"
    other = next(name for name in CLASSES if name != labels_of(work.root)[cases[5]])
    lines += [f"{cases[5]}.png,{other}", "../outside.png,femur", "gone.png,femur"]
    path.write_text("\n".join(lines) + "\n")
    said = refused(work, "1", *PREPARE, *NO_FIGURES)
    for case, words in (*((case, f"images/{case}.png: ") for case in cases[:3]), (cases[3], "spleen"), (cases[4], "empty"),
                        (cases[5], f"class {other}, but"), ("outside", "leaves the data folder")):
        assert re.search(rf"^ *{case}: .*{words}", said, re.M), (case, said)
    assert f"row {numbers[cases[3]] + 1}" in said and "7 cases cannot be used" in said and "--skip-bad" in said
    assert not work.prepared.exists()
    said = work.run("1", *PREPARE, *NO_FIGURES, "--skip-bad").stdout
    assert {row["case"] for row in table(work.prepared / "rejected.csv")} == {*cases[:8], "outside"}
    assert {row["case"] for row in table(work.prepared / "cases.csv")} == set(cases[8:]) and "9 cases left out" in said
    assert "gone.png" in said and "gone.png" in (work.prepared / "not_used.csv").read_text()


def test_tables_that_cannot_be_meant(planes, tmp_path):
    work = planes.copy(tmp_path)
    path = work.root / "labels.csv"
    text = path.read_text()
    path.write_text(text.replace("image,label", "image,plane", 1))
    said = refused(work, "1", *PREPARE)
    assert "labels.csv" in said and "no column 'label'" in said and "plane" in said
    path.write_text(re.sub(r",\w+$", ",Spleen", text, flags=re.M).replace("image,Spleen", "image,label", 1))
    said = refused(work, "1", *PREPARE)
    assert "labels.csv" in said and "Spleen" in said and "femur" in said
    said = refused(work, "1", *PREPARE, "--set", "data.reader.table=../labels.csv")
    assert "data.reader.table" in said and "../labels.csv" in said
    path.unlink()
    assert "labels.csv" in refused(work, "1", *PREPARE)


def test_a_training_part_of_one_class_is_refused(planes, tmp_path):
    work = planes.copy(tmp_path)
    subsets, labels = dealt(planes), labels_of(planes.root)
    rows = [f"{case}.png,{'femur' if subsets[case] == 'train' else label},{subsets[case]}" for case, label in labels.items()]
    (work.root / "labels.csv").write_text("\n".join(["image,label,part", *rows]) + "\n")
    keys = ("--set", "data.size=[32,40]", "--set",
            f"data.reader={{{READER}, table: labels.csv, columns: {{subset: part}}}}", *NO_FIGURES)
    said = refused(work, "1", *keys)
    assert re.search(r"fold 0: all \d+ training cases are femur", said) and not work.prepared.exists()
    rows = [row.replace("femur", "humerus") if index == 0 else row for index, row in enumerate(rows)]
    (work.root / "labels.csv").write_text("\n".join(["image,label,part", *rows]) + "\n")
    work.run("1", *keys)  # a single image of a second class is enough
    assert set(splits_of(work)) == {0}


def test_what_means_nothing_for_classes_is_refused(planes, tmp_path):
    work = planes.copy(tmp_path, "prepared", "onnx")
    said = refused(work, "2a", *TRAIN, "--set", "training.select=dice")
    assert "'dice'" in said and all(name in said for name in ("accuracy", "roc_auc", "loss"))
    said = refused(work, "1", *PREPARE, "--set", "network={name: unet}")
    assert "network.name" in said and "biometry_cnn" in said
    said = refused(work, "4", "--tolerance", 1)
    assert "tolerance" in said and "masks" in said
    said = refused(work, "1", "--set", f"data.reader={{{READER}, table: labels.csv, labels: folders}}")
    assert "table and labels" in said
    for key, words in (("network={name: biometry_cnn, gradcam_layer: conv1}", "gradcam_layer: found 'conv1', expected pool2"),
                       ("augmentation.synthetic_low_quality={share: 0.5}", "classification into two classes"),
                       ("training.unfrozen_layers=4", "expected 1 .the head. to 3")):
        keys = ["tracking.trackers=[none]", key]
        prepared, study = open_prepared(Workspace(work.workspace), load_study(work.study, keys), keys)
        with pytest.raises(InputError, match=words):
            train_fold(prepared, study, Workspace(work.workspace), 0, "refused", device="cpu")
    assert not (work.workspace / "runs").exists() and not (work.workspace / "results").exists()


# --- landmarks -------------------------------------------------------------------------------------------------------

POINTS = ("ofd_1", "ofd_2", "bpd_1", "bpd_2")
SQUARE = 64, 80
SPACING = "data.reader.spacing_table={file: pixel_size.csv, name_column: image, spacing_column: pixel_size_mm}"
MEASURE = ("-k", 2, "-v", 0.25, "-j", 1, "--set", "data.size=[64,80]", "--set", f"data.reader.patient_pattern='{PATIENT}'",
           "--set", SPACING)
LEARN = ("-e", 6, "-b", 4, "-lr", 0.01, "--no-amp", "--tracker", "none", "--set", "network={name: unet, width: 4, depth: 3}",
         "--set", "training.average=0")


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Heads:
    """12 heads of 8 patients through all scripts, one without its last point."""
    work = Heads("fetal_biometry_landmarks", tmp_path_factory.mktemp("heads"))
    phantom_maker(work.study)(work.root, 8, 0, size="small")
    path = work.root / "points.csv"
    lines = path.read_text().splitlines()
    lines[3] = re.sub(r"[^,]*,[^,]*$", ",", lines[3])
    path.write_text("\n".join(lines) + "\n")
    work.run("1", *MEASURE)
    work.run("2b", "-j", 2, *LEARN)
    work.run("3")
    work.run("4")
    return work


def points_of(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Image without suffix -> (points, 2) x, y in pixels, NaN where absent."""
    return {row["image"].removesuffix(".png"): np.array([[float(row[f"{name}_{axis}"] or "nan") for axis in "xy"]
                                                         for name in POINTS]) for row in rows}


def spacings_of(root: Path) -> dict[str, float]:
    return {row["image"].removesuffix(".png"): float(row["pixel_size_mm"]) for row in table(root / "pixel_size.csv")}


def lengths(points: np.ndarray) -> dict[str, float]:
    """OFD, BPD, and the circumference of the ellipse with these diameters: Ramanujan 1914, his second approximation,
    pi (a + b) (1 + 3 h / (10 + sqrt(4 - 3 h))), h = ((a - b) / (a + b))^2."""
    ofd, bpd = (np.hypot(*(points[i] - points[i + 1])) for i in (0, 2))
    h = ((ofd - bpd) / (ofd + bpd)) ** 2
    around = np.pi * (ofd + bpd) / 2 * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
    return {"ofd": ofd, "bpd": bpd, "head_circumference": around}


def test_point_targets_are_the_tables_places(heads):
    truth, pictures = points_of(table(heads.root / "points.csv")), pictures_of(heads.root)
    targets, samples = np.load(heads.prepared / "targets.npy"), table(heads.prepared / "samples.csv")
    assert targets.dtype == np.float32 and targets.shape == (12, 4, 3) and np.load(heads.prepared / "frames.npy").shape[0] == 12
    for row, target in zip(samples, targets):
        shape, points = pictures[row["case"]].shape, truth[row["case"]]
        (rows, columns), (top, left) = placed(shape, SQUARE)
        there = ~np.isnan(points[:, 0])
        assert (target[:, 2] == there).all()
        x = ((points[:, 0] + 0.5) * columns / shape[1] + left) / SQUARE[1]
        y = ((points[:, 1] + 0.5) * rows / shape[0] + top) / SQUARE[0]
        assert np.allclose(target[there, :2], np.stack([x, y], axis=1)[there], atol=1e-5)
        assert (target[~there] == 0).all()
    assert targets[..., 2].sum() == 47
    assert points_of(table(heads.prepared / "training_set.csv")).keys() == truth.keys()


def test_errors_and_lengths_are_those_of_the_predicted_points(heads):
    predicted = points_of(table(heads.results / "predictions.csv"))
    truth, mm, pictures = points_of(table(heads.root / "points.csv")), spacings_of(heads.root), pictures_of(heads.root)
    assert set(predicted) == set(truth) and len(table(heads.results / "predictions.csv")) == 12
    expected: dict[tuple[str, str], dict[str, float]] = {}

    def put(name, metric, case, value):
        expected.setdefault((name, metric), {})[case] = float(value)

    for case, points in predicted.items():
        rows, columns = pictures[case].shape
        assert ((points >= -0.5) & (points <= [columns - 0.5, rows - 0.5])).all()
        apart = np.hypot(*(points - truth[case]).T)
        for unit, size in (("px", 1.0), ("mm", mm[case])):
            for name, error in zip(POINTS, apart):
                put(name, f"radial_error_{unit}", case, error * size)
            put("all", f"radial_error_{unit}", case, np.nanmean(apart) * size)
            for (name, length), true in zip(lengths(points).items(), lengths(truth[case]).values()):
                put("all", f"{name}_{unit}", case, length * size)
                put("all", f"{name}_{unit}_true", case, true * size)
        for radius in (2, 2.5, 3, 4):
            put("all", f"sdr@{radius:g}mm", case, np.mean(apart[~np.isnan(apart)] * mm[case] <= radius))
    for (name, metric), values in expected.items():
        assert of_cases(heads.results, metric, name) == pytest.approx(values, abs=0.02, nan_ok=True), (name, metric)
    missing = [case for case, points in truth.items() if np.isnan(points).any()]
    assert len(missing) == 1 and np.isnan(of_cases(heads.results, "radial_error_px", "bpd_2")[missing[0]])
    assert np.isnan(of_cases(heads.results, "bpd_mm_true")[missing[0]])


def test_the_mean_radial_error_is_that_of_all_cases(heads):
    summary = summary_of(heads.results)
    for unit in ("px", "mm"):
        values, found = of_cases(heads.results, f"radial_error_{unit}"), summary["all", f"radial_error_{unit}"]
        assert found["estimate"] == pytest.approx(np.mean([*values.values()])) and found["patients"] == 8
        assert found["ci_low"] <= found["estimate"] <= found["ci_high"]
        errors = np.concatenate([[*of_cases(heads.results, f"radial_error_{unit}", name).values()] for name in POINTS])
        pooled = of_set(heads.results, "")
        assert pooled["all", f"radial_error_median_{unit}"] == pytest.approx(np.nanmedian(errors))
        assert pooled["all", f"radial_error_p95_{unit}"] == pytest.approx(np.nanpercentile(errors, 95))
    assert pooled["all", "points"] == 47 and pooled["bpd_2", "points"] == 11
    for name in ("ofd_mm", "head_circumference_px"):
        said, true = of_cases(heads.results, name), of_cases(heads.results, f"{name}_true")
        errors = np.array([said[case] - true[case] for case in said])
        assert summary["all", f"{name}_abs_error"]["estimate"] == pytest.approx(np.nanmean(np.abs(errors)))


def test_a_point_lies_on_the_hill_of_its_map(heads):
    """Plain ONNX Runtime on the stored frames. A point is near the top of the map smoothed by three times sigma_px, as far
    as three times sigma_px from a peak that is as far from there: it is on the right axis, and of the right image."""
    predicted, splits = points_of(table(heads.results / "predictions.csv")), splits_of(heads)
    frames, pictures = np.load(heads.prepared / "frames.npy"), pictures_of(heads.root)
    for row in table(heads.prepared / "samples.csv"):
        fold = next(fold for fold, subsets in splits.items() if subsets[row["patient"]] == "test")
        [maps] = open_model(heads.onnx(fold))[0].run(["logits"], {"frames": frames[[int(row["frame"])], None].astype(np.float32)})
        assert maps.shape == (1, 4, *SQUARE)
        (rows, columns), (top, left) = placed(pictures[row["case"]].shape, SQUARE)
        zoom = np.array([columns / pictures[row["case"]].shape[1], rows / pictures[row["case"]].shape[0]])
        for one, point in zip(maps[0], predicted[row["case"]]):
            smooth = cv2.GaussianBlur(softmax(one.ravel()).reshape(SQUARE), (0, 0), 6, borderType=cv2.BORDER_REFLECT)
            hill = np.array(np.unravel_index(smooth.argmax(), SQUARE))[::-1] + 0.5
            hill = np.clip(hill, [left, top], [left + columns, top + rows])  # a point is never outside of its image
            assert np.abs((point + 0.5) * zoom + [left, top] - hill).max() <= 12.1


def test_the_worst_cases_are_those_with_the_largest_errors(heads):
    """Of figures/worst_cases.png: eight pictures of 1,000 px, the worst first, each below a line of text."""
    errors = of_cases(heads.results, "radial_error_px")
    page = cv2.imread(str(heads.results / "figures" / "worst_cases.png"))
    top = 0
    for case in sorted(errors, key=errors.get, reverse=True)[:8]:
        picture = cv2.imread(str(heads.results / "pictures" / f"{case}.png"))
        height = round(picture.shape[0] * 1000 / picture.shape[1])
        expected = cv2.resize(picture, (1000, height), interpolation=cv2.INTER_AREA)
        found = page[top + 22:top + 22 + height]
        assert found.shape == expected.shape and np.abs(found.astype(int) - expected).mean() < 2, case
        top += 22 + height


def test_points_have_pictures_curves_and_a_log(heads):
    cases = set(points_of(table(heads.root / "points.csv")))
    assert {path.stem for path in (heads.results / "pictures").iterdir()} == cases == {
        path.stem for path in (heads.results / "heatmaps").iterdir()}
    assert {"cumulative_error", "worst_cases", "head_circumference_mm"} <= {p.stem for p in (heads.results / "figures").iterdir()}
    assert not (heads.results / "misclassified.csv").exists()  # nothing is simply right or wrong
    log = pd.read_csv(heads.fold(0) / "metrics.csv")
    best = torch.load(heads.fold(0) / "best.pt", weights_only=True)
    assert best["metric"] == "radial_error_px/all" and best["score"] == pytest.approx(log["radial_error_px/all"].min())


def test_new_heads_need_no_table(heads, tmp_path):
    work = heads.copy(tmp_path, "prepared", "onnx")
    phantom_maker(work.study)(tmp_path / "ward", 2, 31, size="small")
    for name in ("points.csv", "pixel_size.csv"):
        (tmp_path / "ward" / name).unlink()
    count = len(pictures_of(tmp_path / "ward"))
    said = work.run("4", "--predict", tmp_path / "ward").stdout
    assert f"{count} cases predicted by the fold that tests the patient" in said and "0 of them scored" in said
    written = work.results / "predict-ward"  # names tell that these are patients of ours, with other images
    for row in table(written / "predictions.csv"):
        [(case, points)] = points_of([row]).items()
        for name, length in lengths(points).items():
            assert of_cases(written, f"{name}_px")[case] == pytest.approx(length, abs=0.02)
        assert all(float(row[f"{name}_agreement"]) in (0.5, 1) for name in POINTS)
    assert not {row["metric"] for row in table(written / "results.csv")} & {"ofd_mm", "radial_error_px"}


def test_bad_points_are_listed_at_once_or_left_out(heads, tmp_path):
    work = heads.copy(tmp_path)
    path = work.root / "points.csv"
    lines = path.read_text().splitlines()
    cases = [line.split(".png")[0] for line in lines]
    lines[1] = re.sub(r",[^,]*", ",wide", lines[1], count=1)
    lines[2] = re.sub(r",[^,]*", ",999", lines[2], count=1)
    lines[4] = re.sub(r",[^,]*", ",", lines[4], count=1)
    lines.append("../outside.png" + ",1" * 8)
    path.write_text("\n".join(lines) + "\n")
    said = refused(work, "1", *MEASURE, *NO_FIGURES)
    for case, words in ((cases[1], "row 2: ofd_1_x is 'wide'"), (cases[2], r"row 3: ofd_1 \(999, .* outside of its image"),
                        (cases[4], "row 5: ofd_1_x is empty"), ("outside", "leaves the data folder")):
        assert re.search(rf"^ *{case}: .*{words}", said, re.M), (case, said)
    assert not work.prepared.exists()
    work.run("1", *MEASURE, *NO_FIGURES, "--skip-bad")
    assert {row["case"] for row in table(work.prepared / "rejected.csv")} == {cases[1], cases[2], cases[4], "outside"}
    assert len(table(work.prepared / "cases.csv")) == 9
    path.write_text(path.read_text().replace("bpd_2_y", "bpd_2", 1))
    said = refused(work, "1", *MEASURE, *NO_FIGURES)
    assert "points.csv" in said and "'bpd_2_y'" in said
