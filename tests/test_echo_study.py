"""Echo quality end to end: the real scripts on phantom cine loops, checked with code of the test's own."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pandas as pd
import pydicom
import pytest
import torch
from conftest import ImageWork, table
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless
from sklearn import metrics
from test_dicom import jpeg, speckle, write_dicom, write_video
from test_resume import PowerCut, assert_same, cut_off

from lib.data.store import open_prepared
from lib.networks import make_network
from lib.phantoms.echo import make_echo_loops
from lib.runs import train_fold
from lib.study import load_study
from lib.workspace import Workspace

TABLE, SALT, GRID, WINDOW = "echo_annotations.csv", "a-grain-of-salt", 32, 8
PREPARE = ("-k", 2, "-v", 0.4, "-j", 1, "--set", "data.size=[32,32]", "--set", f"data.reader.patient_salt={SALT}")
NO_FIGURES = ("--set", "report.figures=false")
KEYS = ("window={frames: 8, stride: 1, test_windows: 3}", "training.unfrozen_layers={0: 1, 1: 2}", "training.epochs=2",
        "training.batch_size=4", "training.learning_rate=0.001", "training.amp=false", "tracking.trackers=[none]",
        "augmentation.synthetic_low_quality={share: 1}", "report.validation_pictures=2")
FROZEN = ("stem", "layer1", "layer2", "layer3")
WEIGHTS = "video_quality_model.pt"


class Work(ImageWork):
    run_name = "r2plus1d"

    def open(self, *keys: str):
        """(Prepared, Study) as script 2a opens them."""
        return open_prepared(Workspace(self.workspace), load_study(self.study, keys), list(keys))

    def train(self, fold: int, name: str, *keys: str, progress=None):
        """Script 2a's work within this process, on one thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            prepared, study = self.open(*keys)
            return train_fold(prepared, study, Workspace(self.workspace), fold, name, device="cpu",
                              **({"progress": progress} if progress else {}))
        finally:
            torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """Loops of ten patients, an AVI and a single frame through all scripts, with weights of a plain state dict for three
    channels, two layers of which learn in the end; good loops have degraded twins in training."""
    work = Work("echo_quality", tmp_path_factory.mktemp("hearts"))
    make_echo_loops(work.root, 10, 0, size="small")
    add_odd_videos(work)
    save_weights(work.folder / WEIGHTS)
    (work.folder / "prepared.txt").write_text(work.run("1", *PREPARE).stdout)
    work.run("2b", "-j", 2, "--load", work.folder / WEIGHTS, *(part for key in KEYS for part in ("--set", key)))
    work.run("3", timeout_s=600)
    work.run("4")
    yield work
    shutil.rmtree(work.folder)  # 31 million weights, many times


def add_odd_videos(work: Work) -> None:
    """Continuous scores, a single frame that its fellow frames would be like, and a loop as AVI, which has no PatientID."""
    rows = [(row["video_path"], 0.5 + 0.4 * (index % 2) if row["quality_score"] == "1" else 0.499 - 0.1 * (index % 2))
            for index, row in enumerate(table(work.root / TABLE))]
    first = work.root / rows[0][0]
    dataset = pydicom.dcmread(work.root / rows[3][0])
    dataset.PixelData, dataset.NumberOfFrames = dataset.pixel_array[0].tobytes(), 1
    dataset.PatientID, dataset.PatientName = "PHANTOM77", "PHANTOM^77"
    dataset.save_as(first.with_name("single.dcm"))
    make_echo_loops(work.folder / "other", 1, 5, size="small")
    frames = pydicom.dcmread(work.folder / "other" / "echo_videos" / "echo_001.dcm").pixel_array
    write_video(first.with_name("moving.avi"), frames[..., 0] if frames.ndim == 4 else frames, rate=25.0)
    rows += [("echo_videos/single.dcm", 0.1), ("echo_videos/moving.avi", 0.9)]
    write_rows(work.root, rows)


def save_weights(path: Path) -> None:
    """torchvision's own R(2+1)D of three channels and one output, as a plain state dict."""
    from torchvision.models.video import r2plus1d_18
    torch.manual_seed(3)
    torch.save(r2plus1d_18(num_classes=1).state_dict(), path)


# --- the test's own reading and arithmetic ---------------------------------------------------------------------------

def write_rows(root: Path, rows, header="video_path,quality_score") -> None:
    (root / TABLE).write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def scores_of(root: Path) -> dict[str, float]:
    """case -> score."""
    return {Path(row["video_path"]).stem: float(row["quality_score"]) for row in table(root / TABLE)}


def datasets_of(root: Path) -> dict[str, pydicom.Dataset]:
    return {path.stem: pydicom.dcmread(path) for path in (root / "echo_videos").glob("*.dcm")}


def grey_of(dataset: pydicom.Dataset) -> np.ndarray:
    """(frames, rows, columns), of colours the luminance."""
    frames = dataset.pixel_array.astype(float)
    frames = frames[None] if frames.ndim == 2 else frames
    return frames @ [0.299, 0.587, 0.114] if frames.ndim == 4 else frames


def series_of(work: Work) -> dict[str, slice]:
    """case -> its rows in frames.npy."""
    return {row["case"]: slice(int(row["series_start"]), int(row["series_stop"])) for row in table(work.prepared / "samples.csv")}


def patients_of(work: Work) -> dict[str, str]:
    return {row["case"]: row["patient"] for row in table(work.prepared / "cases.csv")}


def splits_of(work: Work) -> dict[int, dict[str, str]]:
    """fold -> patient -> subset."""
    splits = {}
    for row in table(work.prepared / "splits.csv"):
        splits.setdefault(int(row["fold"]), {})[row["patient"]] = row["subset"]
    return splits


def even_windows(count: int) -> list[np.ndarray]:
    """Indices of the frames of three windows spread evenly over a loop, of equal ones one."""
    starts = sorted({round(max(0, count - WINDOW) * share) for share in (0, 0.5, 1)})
    return [np.minimum(np.arange(start, start + WINDOW), count - 1) for start in starts]


def open_model(path: Path) -> tuple[onnxruntime.InferenceSession, dict]:
    """A session and its metadata."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}


def good_by(session: onnxruntime.InferenceSession, frames: np.ndarray) -> float:
    """Probability of a good loop (frames, channels, rows, columns): of the mean of the windows' logits."""
    windows = np.stack([frames[index] for index in even_windows(len(frames))]).astype(np.float32)
    [logits] = session.run(["class_logits"], {"frames": windows})
    assert logits.shape == (len(windows), 1)
    return float(1 / (1 + np.exp(-logits.astype(float).mean())))


def youden(scores: list[float], good: list[bool]) -> float:
    """Midway between two scores, where sensitivity + specificity is greatest; of equals the nearest to 0.5; 0.5 if nothing is
    better than chance."""
    pairs, best, chosen = sorted(set(scores)), 0.0, 0.5
    if len(set(good)) < 2:
        return chosen
    for low, high in zip(pairs, pairs[1:]):
        middle = (low + high) / 2
        hits = np.mean([score > middle for score, true in zip(scores, good) if true])
        alarms = np.mean([score > middle for score, true in zip(scores, good) if not true])
        gain = round(hits - alarms, 9)
        if gain > best or gain == best > 0 and abs(middle - 0.5) < abs(chosen - 0.5):
            best, chosen = gain, middle
    return chosen


def predictions_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv", dtype={"case": str, "patient": str}).set_index("case")


def of_cases(folder: Path, metric: str, name: str = "all") -> dict[str, float]:
    """case -> value in results.csv."""
    return {row["case"]: float(row["value"] or "nan") for row in table(folder / "results.csv")
            if row["case"] and (row["class"], row["metric"]) == (name, metric)}


def of_set(folder: Path, fold: str) -> dict[tuple[str, str], float]:
    """(class, metric) -> value of the rows that speak of a whole set, of a fold or ("") of all."""
    return {(row["class"], row["metric"]): float(row["value"] or "nan") for row in table(folder / "results.csv")
            if not row["case"] and row["fold"] == fold}


def contents(folder: Path):
    """(path, bytes) of every file, of worksheets what is packed in them."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".xlsx":
            with zipfile.ZipFile(path) as book:
                yield path, b"".join(book.read(name) for name in book.namelist())
        else:
            yield path, path.read_bytes()


# --- what script 1 leaves --------------------------------------------------------------------------------------------

def test_a_score_from_the_threshold_on_is_good(hearts):
    scores, targets = scores_of(hearts.root), np.load(hearts.prepared / "targets.npy")
    samples, cases = table(hearts.prepared / "samples.csv"), table(hearts.prepared / "cases.csv")
    assert targets.dtype == np.int64 and targets.shape == (len(scores),) == (17,) and 0.5 in scores.values()
    assert {row["case"]: bool(target) for row, target in zip(samples, targets)} == {c: s >= 0.5 for c, s in scores.items()}
    assert {row["case"]: row["class"] for row in cases} == {c: "good" if s >= 0.5 else "poor" for c, s in scores.items()}


def test_frame_and_heart_rates_are_those_of_the_files(hearts):
    datasets = datasets_of(hearts.root)
    for row in table(hearts.prepared / "cases.csv"):
        geometry = json.loads(row["geometry"])
        assert geometry["shape"][0] == int(row["frames"]) and geometry["source"]["frame_rate"] == float(row["frame_rate"])
        if row["case"] == "moving":
            assert (float(row["frame_rate"]), row["heart_rate"]) == (25, "")
            continue
        dataset = datasets[row["case"]]
        assert int(row["frames"]) == dataset.NumberOfFrames and float(row["heart_rate"]) == dataset.HeartRate
        assert float(row["frame_rate"]) == pytest.approx(1000 / float(dataset.FrameTime))
        assert geometry["shape"][1:] == [dataset.Rows, dataset.Columns]
    said = (hearts.folder / "prepared.txt").read_text()
    assert "1 video of a single frame, which stands for all of a window" in said
    assert "1 video without a patient" in said and "patient_salt" not in said


def test_frames_are_those_of_the_loops_and_what_stands_around_the_sector_is_gone(hearts):
    frames, series = np.load(hearts.prepared / "frames.npy"), series_of(hearts)
    assert frames.dtype == np.uint8 and frames.shape == (max(part.stop for part in series.values()), 1, GRID, GRID)
    kinds = set()
    for case, dataset in datasets_of(hearts.root).items():
        found, native = frames[series[case], 0].astype(float), grey_of(dataset)
        kinds.add((dataset.PhotometricInterpretation, dataset.file_meta.TransferSyntaxUID.is_encapsulated))
        assert len(found) == len(native)
        zoom = GRID / max(native.shape[1:])
        rows, columns = (round(size * zoom) for size in native.shape[1:])
        top, left = (GRID - rows) // 2, (GRID - columns) // 2
        expected = np.stack([cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA) for frame in native])
        inside = found[:, top:top + rows, left:left + columns]
        middle = (slice(None), slice(int(0.4 * rows), int(0.7 * rows)), slice(int(0.42 * columns), int(0.58 * columns)))
        assert np.abs(inside[middle] - expected[middle]).max() <= 2 and inside[middle].max() > 20
        assert found.sum() == inside.sum()
        if len(native) > 1:  # blocks of a banner in the first rows, and a grey bar at the right
            banner, bar = expected[:, 0, :columns // 4], expected[:, int(0.2 * rows):int(0.45 * rows), -1]
            assert banner.max() > 20 and bar.max() > 20
            assert inside[:, 0, :columns // 4].max() == inside[:, int(0.2 * rows):int(0.45 * rows), -1].max() == 0
    assert len(kinds) >= 4  # grey, RGB, YBR; some run-length encoded
    assert all(frames[part].any(axis=(1, 2, 3)).all() for part in series.values())  # no frame is empty


def test_loops_of_a_patient_stay_together(hearts):
    patients = patients_of(hearts)
    identity = {case: str(dataset.PatientID) for case, dataset in datasets_of(hearts.root).items()}
    pairs = {(identity[case], patients[case]) for case in identity}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}) == 11 < len(identity)
    assert all(re.fullmatch("[0-9a-f]{12}", patient) for _, patient in pairs) and patients["moving"] == "moving"
    for subsets in splits_of(hearts).values():
        assert set(subsets) == set(patients.values()) and {"train", "validation", "test"} == set(subsets.values())
    rows = table(hearts.prepared / "splits.csv")
    assert len({(row["fold"], row["patient"]) for row in rows}) == len(rows) == 2 * 12


def test_nothing_tells_who_the_patients_are(hearts):
    assert all(b"PHANTOM" in str(dataset.get(key)).encode() for dataset in datasets_of(hearts.root).values()
               for key in ("PatientID", "PatientName"))
    kinds = set()
    for path, raw in contents(hearts.workspace):
        kinds.add(path.suffix)
        assert b"PHANTOM" not in raw, path
        # only what --predict needs to know patients again keeps the salt
        assert SALT.encode() not in raw or path == hearts.prepared / "manifest.json", path
    assert {".csv", ".json", ".yaml", ".pt", ".onnx", ".npy", ".xlsx", ".log", ".gif"} <= kinds


# --- what scripts 2 and 3 leave --------------------------------------------------------------------------------------

def network_of(path: Path) -> dict[str, torch.Tensor]:
    """By torchvision's names."""
    state = torch.load(path, weights_only=True)["network"]
    return {key.removeprefix("core.network."): value for key, value in state.items()}


def loaded(hearts) -> dict[str, torch.Tensor]:
    """The weights that training began with: the first kernel for one channel is the sum over those of three."""
    state = torch.load(hearts.folder / WEIGHTS, weights_only=True)
    return {**state, "stem.0.weight": state["stem.0.weight"].sum(dim=1, keepdim=True)}


def moved(before: dict, after: dict) -> set[str]:
    """Layers any tensor of which has changed, statistics of normalisations too."""
    assert set(before) == set(after)
    return {key.split(".")[0] for key in before if not torch.allclose(before[key].float(), after[key].float(), rtol=0, atol=1e-7)}


def test_frozen_layers_are_those_of_the_file(hearts):
    for fold in (0, 1):
        best, last = (network_of(hearts.fold(fold) / name) for name in ("best.pt", "last.pt"))
        assert moved(loaded(hearts), best) <= {"layer4", "fc"} == moved(loaded(hearts), last)
        assert not torch.equal(last["layer4.0.conv1.0.1.running_mean"], loaded(hearts)["layer4.0.conv1.0.1.running_mean"])


def test_a_trained_fold_has_a_log_and_curves(hearts):
    for fold, subsets in splits_of(hearts).items():
        log = pd.read_csv(hearts.fold(fold) / "metrics.csv")
        assert list(log.epoch) == [0, 1] and {"train_loss", "train_accuracy", "validation_loss", "roc_auc/all"} <= {*log}
        best = torch.load(hearts.fold(fold) / "best.pt", weights_only=True)
        assert best["metric"] == "roc_auc/all" and best["score"] == pytest.approx(log["roc_auc/all"].max())
        assert cv2.imread(str(hearts.fold(fold) / "learning_curves.png")) is not None
        drawn = {patients_of(hearts)[path.stem] for path in (hearts.fold(fold) / "validation").glob("*.png")}
        assert drawn and drawn <= {patient for patient, subset in subsets.items() if subset == "validation"}


def test_a_stopped_training_goes_on_to_the_very_weights_of_the_scripts(hearts, tmp_path):
    """Cut in the second epoch, when another layer has begun to learn; and after the first epoch only the head has moved."""
    work = hearts.copy(tmp_path, "prepared")
    keys = (*KEYS, f"network.weights={hearts.folder / WEIGHTS}")
    with pytest.raises(PowerCut):
        work.train(1, "r2plus1d", *keys, progress=cut_off(1, 1))
    state = torch.load(work.fold(1) / "last.pt", weights_only=True)
    assert state["epoch"] == 1 and moved(loaded(hearts), network_of(work.fold(1) / "last.pt")) == {"fc"}
    work.train(1, "r2plus1d", *keys)
    for name in ("best.pt", "last.pt"):
        assert_same(*(torch.load(place.fold(1) / name, weights_only=True) for place in (hearts, work)), name)
    assert (work.fold(1) / "metrics.csv").read_bytes() == (hearts.fold(1) / "metrics.csv").read_bytes()
    shutil.rmtree(tmp_path)


def test_a_checkpoint_can_be_loaded_as_weights(hearts):
    best = torch.load(hearts.fold(0) / "best.pt", weights_only=True)["network"]
    keys = (*KEYS, f"network.weights={hearts.fold(0) / 'best.pt'}")
    prepared, study = hearts.open(*keys)
    found = make_network(study, prepared.channels, 1).state_dict()
    assert set(found) == set(best) and all(torch.equal(found[key], best[key]) for key in best)


def test_twins_of_good_loops_are_in_training_batches_alone(hearts, tmp_path, monkeypatch):
    """A small network on the same loops: what goes into training and what into validation."""
    import lib.training
    import lib.validation
    batches, seen = [], []
    augment, torch_run = lib.training.augment, lib.validation.torch_run

    def watched(settings, task, frames, targets, store, generator):
        given = frames.clone()
        changed = augment(settings, task, frames, targets, store, generator)
        batches.append((given, targets.clone(), *changed))
        return changed

    def watching(*args):
        run = torch_run(*args)
        return lambda windows: (seen.append(windows.copy()), run(windows))[1]
    monkeypatch.setattr(lib.training, "augment", watched)
    monkeypatch.setattr(lib.validation, "torch_run", watching)
    work, frames = hearts.copy(tmp_path, "prepared"), np.load(hearts.prepared / "frames.npy")
    still = "augmentation={transform_prob: 0, temporal_mask_prob: 0, synthetic_low_quality: {share: 1}}"
    keys = [key for key in KEYS if not key.startswith(("training.unfrozen", "augmentation", "report"))]
    work.train(0, "twins", *keys, still, "network={name: biometry_cnn}", "training.epochs=1", "report.validation_pictures=0")

    parts = {}
    for case, part in series_of(work).items():
        parts.setdefault(splits_of(work)[0][patients_of(work)[case]], []).append(frames[part])
    twins = 0
    for given, targets, changed, labels in batches:
        good = int((targets == 1).sum())
        assert torch.equal(labels[:len(targets)], targets) and len(labels) == len(changed) == len(targets) + good
        assert (labels[len(targets):] == 0).all() and torch.equal(changed[:len(given)], given)
        twins += good
        for window in given.numpy().astype(np.uint8):  # of consecutive frames of a training loop
            assert any((window == loop[np.minimum(np.arange(first, first + WINDOW), len(loop) - 1)]).all()
                       for loop in parts["train"] for first in range(max(1, len(loop) - WINDOW + 1)))
        for one, twin in zip(given[targets == 1], changed[len(targets):]):
            assert twin.std() < one.std() and (twin != one).float().mean() > 0.5  # of half the contrast, and noisy
    assert twins > 0
    expected = [loop[index] for loop in parts["validation"] for index in even_windows(len(loop))]
    found = np.concatenate(seen)
    assert len(found) == 2 * len(expected)  # for the score, and for the threshold
    for windows in (found[:len(expected)], found[len(expected):]):
        assert sorted(w.tobytes() for w in windows) == sorted(w.tobytes() for w in expected)


@pytest.mark.parametrize("settings, worst", [
    (("task={kind: classification, criterion: focal}",), 0.25 * 0.25 * np.log(2) * 3 + 0.05),
    (("training.schedule=cosine_restarts", "training.schedule_options={T_0: 1, T_mult: 2}", "training.accumulate=2"), 2.0),
    (("training.select=loss", "training.sampler=all", "training.average=0.9", "window={frames: 8, stride: 2}"), 2.0)],
    ids=("focal", "restarts", "loss"))
def test_other_settings_of_the_seed_train(hearts, tmp_path, settings, worst):
    """A small network, three epochs. worst: what the loss is below; focal's is a small part of the cross-entropy."""
    work = hearts.copy(tmp_path, "prepared")
    keys = [key for key in KEYS if not key.startswith(("training.unfrozen", "training.epochs", "training.learning"))]
    best = work.train(0, "other", *keys, "network={name: biometry_cnn}", "training.epochs=3", "training.learning_rate=1e-4",
                      *settings)
    log = pd.read_csv(work.fold(0, "other") / "metrics.csv")
    assert len(log) == 3 and (log.train_loss < worst).all() and (log.train_loss > 0).all()
    assert best.metric == ("validation_loss" if "training.select=loss" in settings else "roc_auc/all")
    if "training.accumulate=2" in settings:  # a restart after one epoch, and another after two more
        assert log.learning_rate[0] == log.learning_rate[1] == pytest.approx(1e-4) and log.learning_rate[2] < 0.9e-4
    if best.metric == "validation_loss":
        assert best.score == pytest.approx(log.validation_loss.min()) and log.validation_loss.idxmin() == best.epoch


# --- what script 4 leaves --------------------------------------------------------------------------------------------

def test_probabilities_are_the_mean_logits_of_even_windows(hearts):
    predicted, frames = predictions_of(hearts.results), np.load(hearts.prepared / "frames.npy")
    assert {row["passed"] for row in table(hearts.workspace / "onnx" / "r2plus1d" / "parity.csv")} == {"yes"}
    assert sorted(predicted.index) == sorted(scores_of(hearts.root))
    assert np.allclose(predicted.p_good + predicted.p_poor, 1, atol=1e-6)
    splits, sessions = splits_of(hearts), [open_model(hearts.onnx(fold))[0] for fold in (0, 1)]
    lengths = set()
    for case, part in series_of(hearts).items():
        row = predicted.loc[case]
        lengths.add(len(even_windows(part.stop - part.start)))
        assert splits[row.fold][row.patient] == "test" and row.patient == patients_of(hearts)[case]
        assert row.p_good == pytest.approx(good_by(sessions[row.fold], frames[part]), abs=1e-5)
        assert row.truth == ("good" if scores_of(hearts.root)[case] >= 0.5 else "poor")
        assert row.predicted == ("good" if row.p_good > row.threshold else "poor")
    assert {1, 3} <= lengths


def test_the_threshold_is_youdens_of_validation_alone(hearts):
    predicted, frames, series = predictions_of(hearts.results), np.load(hearts.prepared / "frames.npy"), series_of(hearts)
    found = {}
    for fold, subsets in splits_of(hearts).items():
        session, meta = open_model(hearts.onnx(fold))
        cases = [case for case, patient in patients_of(hearts).items() if subsets[patient] == "validation"]
        expected = youden([good_by(session, frames[series[case]]) for case in cases],
                          [scores_of(hearts.root)[case] >= 0.5 for case in cases])
        assert predicted[predicted.fold == fold].threshold.to_numpy() == pytest.approx(expected, abs=1e-5)
        assert meta["calibration"] == {"threshold": pytest.approx(expected, abs=1e-5), "cases": len(cases)}
        assert of_set(hearts.results, str(fold))["all", "threshold"] == pytest.approx(expected, abs=1e-5)
        found[fold] = expected
    assert set(found.values()) != {0.5}  # one at least was chosen


def test_a_model_says_what_it_is(hearts):
    for fold in (0, 1):
        session, meta = open_model(hearts.onnx(fold))
        assert meta["classes"] == ["poor", "good"] and set(meta["outputs"]) == {"class_logits", "cam"}
        assert (meta["input"]["frames"], meta["input"]["stride"], meta["input"]["size"]) == (WINDOW, 1, [GRID, GRID])
        assert str(hearts.folder) not in json.dumps(meta) and meta["study"]["network"]["weights"] == WEIGHTS
        [cam] = session.run(["cam"], {"frames": np.full((2, WINDOW, 1, GRID, GRID), 90, np.float32)})
        assert cam.shape == (2, 2, 1, 2, 2) and (cam >= 0).all() and not (cam[:, 0] * cam[:, 1]).any()  # for, and against


@pytest.mark.filterwarnings("ignore")  # scikit-learn says what a fold lacks
@pytest.mark.parametrize("fold", ["0", "1", ""])
def test_scores_are_scikit_learns(hearts, fold):
    predicted = predictions_of(hearts.results)
    rows = predicted[predicted.fold == int(fold)] if fold else predicted
    true, said, found = rows.truth == "good", rows.predicted == "good", of_set(hearts.results, fold)
    bins = np.ceil(rows.p_good * 10)
    expected = {
        "roc_auc": metrics.roc_auc_score(true, rows.p_good), "pr_auc": metrics.average_precision_score(true, rows.p_good),
        "precision": metrics.precision_score(true, said, zero_division=0), "recall": metrics.recall_score(true, said),
        "f1": metrics.f1_score(true, said), "specificity": metrics.recall_score(~true, ~said),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, said), "kappa": metrics.cohen_kappa_score(true, said),
        "calibration_error": sum(abs(true[bins == b].mean() - rows.p_good[bins == b].mean()) * (bins == b).mean()
                                 for b in set(bins))}
    assert {metric: found["all", metric] for metric in expected} == pytest.approx(expected)
    accuracy, brier = (of_cases(hearts.results, metric) for metric in ("accuracy", "brier"))
    assert np.mean([accuracy[case] for case in rows.index]) == pytest.approx(metrics.accuracy_score(true, said))
    assert np.mean([brier[case] for case in rows.index]) == pytest.approx(metrics.brier_score_loss(true, rows.p_good), abs=1e-6)
    if not fold:
        summary = {row["metric"]: row for row in table(hearts.results / "summary.csv") if row["class"] == "all"}
        for metric in expected:
            low, value, high = (float(summary[metric][key]) for key in ("ci_low", "estimate", "ci_high"))
            assert value == pytest.approx(expected[metric]) and low <= high and summary[metric]["patients"] == "12"
        assert float(summary["accuracy"]["estimate"]) == pytest.approx(metrics.accuracy_score(true, said))
        matrix = table(hearts.results / "confusion_matrix.csv")
        assert [[int(row[f"predicted_{name}"]) for name in ("poor", "good")] for row in matrix] == \
            metrics.confusion_matrix(true, said).tolist()


def test_false_positives_and_false_negatives_have_their_sheets(hearts):
    predicted = predictions_of(hearts.results)
    wrong = predicted[predicted.truth != predicted.predicted]
    found = pd.read_csv(hearts.results / "misclassified.csv", dtype={"patient": str}).set_index("case")
    assert sorted(found.index) == sorted(wrong.index) and len(wrong)
    for kind, rows in found.groupby("kind"):
        assert rows.confidence.is_monotonic_decreasing and list(rows["rank"]) == list(range(1, len(rows) + 1))
        for case, row in rows.iterrows():
            assert kind == ("false_positives" if row.predicted == "good" else "false_negatives")
            least = row.threshold if row.predicted == "good" else 1 - row.threshold  # probability from which it is said
            assert row.confidence == pytest.approx((predicted.loc[case, f"p_{row.predicted}"] - least) / (1 - least), abs=1e-6)
            sheet = hearts.results / row.picture
            assert sheet.read_bytes() == (hearts.results / "heatmaps" / f"gradcam_{case}.png").read_bytes()
    assert len(list((hearts.results / "misclassified").rglob("*.png"))) == len(wrong)


def test_every_loop_has_a_sheet_and_a_picture_and_the_set_its_curves(hearts):
    for case in series_of(hearts):
        for path in (hearts.results / "heatmaps" / f"gradcam_{case}.png", hearts.results / "pictures" / f"{case}.png"):
            assert cv2.imread(str(path)) is not None, path
    figures = {path.stem for path in (hearts.results / "figures").iterdir()}
    assert {"roc", "precision_recall", "confusion_matrix", "reliability", "worst_cases"} <= figures


def test_every_loop_that_moves_has_a_moving_sheet(hearts):
    rates = {row["case"]: float(row["frame_rate"]) for row in table(hearts.prepared / "cases.csv")}
    moving = {path.stem for path in (hearts.results / "heatmaps").glob("*.gif")}
    assert moving == {f"gradcam_{case}" for case in series_of(hearts)} - {"gradcam_single"}
    colour = {}
    for case, part in series_of(hearts).items():
        if case == "single":
            continue
        with Image.open(hearts.results / "heatmaps" / f"gradcam_{case}.gif") as picture:
            assert picture.is_animated and picture.n_frames == part.stop - part.start
            assert picture.info["duration"] == 10 * round(100 / rates[case]) and picture.info["loop"] == 0
            frames = []
            for index in range(picture.n_frames):
                picture.seek(index)
                frames.append(np.asarray(picture.convert("RGB")).astype(int))
        assert (frames[0] != frames[-1]).any()
        colour[case] = max(np.ptp(frame[:-40], axis=2).max() for frame in frames)  # without the line of text
    assert max(colour.values()) > 60  # heat is drawn in colours


def test_the_same_command_gives_the_same_predictions(hearts, tmp_path):
    work = hearts.copy(tmp_path, "prepared", "onnx")
    work.run("4", "--no-heatmaps")
    for name in ("predictions.csv", "results.csv", "summary.csv", "confusion_matrix.csv"):
        assert (work.results / name).read_bytes() == (hearts.results / name).read_bytes(), name
    assert "nothing has changed: 17 cases" in work.run("1", *PREPARE).stdout
    shutil.rmtree(tmp_path)


def test_new_loops_are_predicted_by_both_folds_and_scored_where_a_row_is(hearts, tmp_path):
    """Loops of two new patients, other loops of a known one, and a known loop under another name: who may have trained a model
    is judged by the other one alone."""
    work = hearts.copy(tmp_path, "prepared", "onnx")
    new = tmp_path / "ward"
    make_echo_loops(new, 3, 40, size="small")
    old = set()
    for path in sorted((new / "echo_videos").iterdir()):
        dataset = pydicom.dcmread(path)
        if dataset.PatientID == "PHANTOM01":
            old.add(f"new_{path.stem}")
        else:
            dataset.PatientID = dataset.PatientID.replace("PHANTOM", "PHANTOM9")
            dataset.save_as(path)
        path.rename(path.with_name(f"new_{path.name}"))
    rows = [(row["video_path"].replace("echo_videos/", "echo_videos/new_"), row["quality_score"]) for row in table(new / TABLE)]
    write_rows(new, rows[1:])
    shutil.copy(work.root / "echo_videos" / "echo_002.dcm", new / "known.dcm")
    said = work.run("4", "--predict", new, "--no-heatmaps").stdout
    assert f"{len(rows) + 1} cases predicted by 2 folds together on CPU ({len(old) + 1} of them by one fold alone), " \
        f"{len(rows) - 1} of them scored" in said and old
    written = work.results / "predict-ward"
    predicted, known = predictions_of(written), predictions_of(hearts.results)
    assert predicted.p_good["known"] == pytest.approx(known.p_good["echo_002"], abs=1e-6)
    assert predicted.fold["known"] == known.fold["echo_002"]
    # frames as script 1 prepares them; it needs both classes
    alone = Work(hearts.study, tmp_path / "alone")
    shutil.copytree(new, alone.root)
    write_rows(alone.root, [(path, index % 2, "train") for index, (path, _) in enumerate(rows)], "video_path,quality_score,part")
    alone.run("1", *PREPARE[4:], "--set", "data.reader.columns={subset: part}", *NO_FIGURES)
    frames, models = np.load(alone.prepared / "frames.npy"), [open_model(work.onnx(fold)) for fold in (0, 1)]
    for case, part in series_of(alone).items():
        row, truth = predicted.loc[case], {Path(path).stem: score for path, score in rows[1:]}.get(case)
        fold = next(iter(known[known.patient == patients_of(alone)[case]].fold), None)
        assert (fold is not None) == (case in old) and row.patient == patients_of(alone)[case]  # hashes of the same salt
        voters = models if fold is None else [models[fold]]
        assert np.isnan(row.fold) if fold is None else row.fold == fold
        assert row.p_good == pytest.approx(np.mean([good_by(session, frames[part]) for session, _ in voters]), abs=1e-5)
        assert row.threshold == pytest.approx(np.mean([meta["calibration"]["threshold"] for _, meta in voters]), abs=1e-6)
        assert row.truth == ("good" if truth == "1" else "poor") if truth else pd.isna(row.truth)
        assert row.predicted == ("good" if row.p_good > row.threshold else "poor")
    assert b"PHANTOM" not in b"".join(raw for _, raw in contents(written))
    shutil.rmtree(tmp_path)


# --- bad input -------------------------------------------------------------------------------------------------------

def refused(work: Work, *args, environment: dict | None = None) -> str:
    """What script 1, which must stop with exit code 2, says on stderr; nothing is left."""
    done = work.run("1", *PREPARE, *NO_FIGURES, *args, expect=2, environment=environment)
    assert "Traceback" not in done.text and done.stderr.startswith("error: ") and not work.prepared.exists()
    return done.stderr


def test_bad_rows_and_videos_are_listed_at_once_or_left_out(hearts, tmp_path):
    work = hearts.copy(tmp_path)
    videos = work.root / "echo_videos"
    rows = [(row["video_path"], row["quality_score"]) for row in table(work.root / TABLE)]
    truncated, word, empty, twice = (Path(path).stem for path, _ in rows[:4])
    (videos / f"{truncated}.dcm").write_bytes((videos / f"{truncated}.dcm").read_bytes()[:-2000])
    rows[1], rows[2] = (rows[1][0], "fine"), (rows[2][0], "")
    write_dicom(videos / "huge.dcm", speckle(1, 8, 8), JPEGBaseline8Bit, coded=[jpeg(speckle(8, 8))], Rows=60000, Columns=60000,
                NumberOfFrames=10**6)
    write_dicom(videos / "none.dcm", speckle(1, 8, 8), NumberOfFrames=0)
    (videos / "hollow.avi").write_bytes(b"")
    (videos / "text.mp4").write_text("no video")
    (videos / "cut.avi").write_bytes((videos / "moving.avi").read_bytes()[:-3000])
    rows += [(f"echo_videos/{name}", 1) for name in ("huge.dcm", "none.dcm", "hollow.avi", "text.mp4", "cut.avi", "gone.dcm")]
    rows += [("../outside.dcm", 1), ("/etc/passwd", 0), (rows[3][0], 1 - round(float(rows[3][1])))]
    write_rows(work.root, rows)
    said = refused(work)
    reasons = {truncated: "truncated or damaged", word: "row 3: quality_score is 'fine'", empty: "row 4: quality_score is empty",
               twice: "says other things", "huge": r"GiB decoded, more than", "none": "none.dcm: ", "hollow": "is empty",
               "text": "is no DICOM, AVI, MP4", "cut": "truncated or damaged", "gone": "is not there",
               "outside": "leaves the input folder", "passwd": "leaves the input folder"}
    for case, words in reasons.items():
        assert re.search(rf"^ *{case}: .*{words}", said, re.M), (case, said)
    assert f"{len(reasons)} cases cannot be used" in said and "--skip-bad" in said
    work.run("1", *PREPARE, *NO_FIGURES, "--skip-bad")
    assert {row["case"] for row in table(work.prepared / "rejected.csv")} == set(reasons)
    kept = set(scores_of(hearts.root)) - set(reasons)
    assert set(series_of(work)) == kept and len(kept) == 13
    frames, before = np.load(work.prepared / "frames.npy"), np.load(hearts.prepared / "frames.npy")
    for case, part in series_of(work).items():  # none is replaced by zeros, or has moved
        assert np.array_equal(frames[part], before[series_of(hearts)[case]])


def test_videos_whose_pixels_are_broken_are_all_named(hearts, tmp_path):
    work = hearts.copy(tmp_path)
    rows = [(row["video_path"], row["quality_score"]) for row in table(work.root / TABLE)]
    for name in ("torn", "burst"):
        coded = [jpeg(speckle(16, 16)), b"\xff\xd8 no picture \xff\xd9", jpeg(speckle(16, 16))]
        write_dicom(work.root / "echo_videos" / f"{name}.dcm", speckle(3, 16, 16), JPEGBaseline8Bit, coded=coded, PatientID=name)
        rows.append((f"echo_videos/{name}.dcm", 1))
    write_rows(work.root, rows)
    said = refused(work)
    assert "2 cases cannot be used" in said and all(f"{name}: echo_videos/{name}.dcm: " in said for name in ("torn", "burst"))
    said = work.run("1", *PREPARE, *NO_FIGURES, "--skip-bad").stdout
    assert "2 cases left out" in said and {row["case"] for row in table(work.prepared / "rejected.csv")} == {"torn", "burst"}
    assert set(series_of(work)) == set(series_of(hearts))


def test_a_missing_decoder_is_named_with_its_package(hearts, tmp_path):
    work = hearts.copy(tmp_path)
    path = work.root / "echo_videos" / "lossless.dcm"
    write_dicom(path, speckle(3, 64, 64), JPEGLSLossless, PatientID="J")
    rows = [(row["video_path"], row["quality_score"]) for row in table(work.root / TABLE)]
    write_rows(work.root, [*rows, ("echo_videos/lossless.dcm", 1)])
    for name in ("jpeg_ls", "gdcm"):  # as if they were not installed
        (tmp_path / "absent" / name).mkdir(parents=True)
        (tmp_path / "absent" / name / "__init__.py").write_text(f"raise ModuleNotFoundError('no {name}', name='{name}')\n")
    said = refused(work, environment={"PYTHONPATH": str(tmp_path / "absent")})
    assert "lossless: echo_videos/lossless.dcm: is coded as JPEG-LS" in said and "pip install pyjpegls" in said
    work.run("1", *PREPARE, *NO_FIGURES)  # with the decoder it is read
    frames = np.load(work.prepared / "frames.npy")[series_of(work)["lossless"], 0]
    assert frames.shape == (3, GRID, GRID) and len(np.unique(frames)) > 50


def test_what_concerns_all_rows_stops_at_once(hearts, tmp_path):
    work = hearts.copy(tmp_path)
    rows = [(row["video_path"], row["quality_score"]) for row in table(work.root / TABLE)]
    write_rows(work.root, rows, "path,score")
    said = refused(work)
    assert TABLE in said and "'video_path'" in said and "'quality_score'" in said
    said = refused(work, "--set", "data.reader.table=../annotations.csv")
    assert "data.reader.table" in said and "../annotations.csv" in said
    said = refused(work, "--set", "data.reader.threshold=high")
    assert "data.reader.threshold" in said and "high" in said
    (work.root / TABLE).unlink()
    assert TABLE in refused(work) and "data.reader.table" in refused(work)


def test_a_training_part_of_one_class_is_refused(hearts, tmp_path):
    work = hearts.copy(tmp_path)
    scores, patients = scores_of(work.root), patients_of(hearts)
    good = {patient for case, patient in patients.items() if scores[case] >= 0.5}
    poor = {patient for case, patient in patients.items() if scores[case] < 0.5}
    subsets = {patient: "train" if patient not in poor else "val" if patient in good else "test" for patient in patients.values()}
    assert set(subsets.values()) >= {"train", "test"}
    paths = {Path(row["video_path"]).stem: row["video_path"] for row in table(work.root / TABLE)}
    write_rows(work.root, [(path, scores[case], subsets[patients[case]]) for case, path in paths.items()],
               "video_path,quality_score,part")
    args = ("1", "-j", 1, "--set", "data.size=[32,32]", "--set", "data.reader.columns={subset: part}",
            "--set", f"data.reader.patient_salt={SALT}", *NO_FIGURES)
    done = work.run(*args, expect=2)
    assert re.search(r"fold 0: all \d+ training cases are good", done.stderr) and "Traceback" not in done.text
    assert not work.prepared.exists()
    write_rows(work.root, [(path, 1) for path in paths.values()])
    said = refused(work)
    assert "fold 0: all" in said and "fold 1: all" in said  # of both folds at once
