"""What MLflow and TensorBoard get, read back with their own readers and seen by their own servers; what fails is one line."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, run_script, table
from lib import tracking
from lib.run_tracking import (begin_run, fold_scores, open_parent, open_parent_run, pooled_scores, track_checkpoint, track_models,
                              track_results)
from lib.trackers.mlflow import plain_name, prepare
from lib.tracking import start_tracker
from lib.workspace import Workspace
from test_tracking import read_run, read_summary

ROOT = Path(__file__).resolve().parents[1]
FOLD = dict(project="FVV", group="FVV", fold=2)
CONFIG = {"training": {"epochs": 3, "optimizer": "adam"}, "data": {"size": [32, 32]}, "amp": True}
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
PATIENCE_S = 90  # of servers on a busy machine


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """MLflow's SQLite file without any run: its migrations take seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    prepare(path, str(path.parent / "artifacts"))
    return path


@pytest.fixture
def workspace(tmp_path, empty_database) -> Path:
    (tmp_path / "ws" / "mlflow").mkdir(parents=True)
    shutil.copy(empty_database, tmp_path / "ws" / "mlflow" / "mlflow.db")
    return tmp_path / "ws"


def client(workspace: Path):
    from mlflow import MlflowClient
    return MlflowClient(f"sqlite:///{workspace / 'mlflow' / 'mlflow.db'}")


def png(path: Path, pixels: np.ndarray = PICTURE) -> Path:
    from PIL import Image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def whole_run(name: str, workspace: Path, **more) -> str:
    """Everything that a fold tells a tracker; returns the tracker's id."""
    with start_tracker([name], workspace=workspace, config=CONFIG, **FOLD | more) as tracker:
        for epoch in range(3):
            tracker.log(epoch, {"learning_rate": 0.1 / (epoch + 1), "dice/flair visible": epoch / 4, "map@[.5:.95]": 0.5,
                                "lost": float("nan")})
        tracker.pictures(2, {"validation case 1": PICTURE})
        tracker.summary({"best_epoch": 2, "chosen": "dice"})
        tracker.artifact(file(workspace / "onnx" / "fold2.onnx", b"a model"), "fold2.onnx", {"fold": 2})
        tracker.figures({"test/roc": png(workspace / "figures" / "roc.png")})
    return tracker.id


# --- MLflow ---------------------------------------------------------------------------------------------------------

def test_mlflow_gets_all(workspace, capfd):
    from PIL import Image
    name, _, identity = whole_run("mlflow", workspace, parent_id="wandb:x,mlflow:theparent").partition(":")
    assert name == "mlflow" and capfd.readouterr().err == ""
    reader = client(workspace)
    run = reader.get_run(identity)
    assert run.info.run_name == "FVV-k2" and run.info.status == "FINISHED"
    assert reader.get_experiment(run.info.experiment_id).name == "FVV"
    assert run.data.params == {"training.epochs": "3", "training.optimizer": "adam", "data.size": "[32, 32]", "amp": "true"}
    assert {m.step: m.value for m in reader.get_metric_history(identity, "dice/flair visible")} == {0: 0.0, 1: 0.25, 2: 0.5}
    assert {m.step: m.value for m in reader.get_metric_history(identity, "learning_rate")} == {0: 0.1, 1: 0.05, 2: 0.1 / 3}
    assert run.data.metrics["map_at_.5:.95"] == 0.5 and run.data.metrics["best_epoch"] == 2 and "lost" not in run.data.metrics
    assert run.data.tags == {"mlflow.runName": "FVV-k2", "mlflow.parentRunId": "theparent", "group": "FVV", "job_type": "fold",
                             "chosen": "dice", "mlflow.loggedImages": "True"}  # no user, source file or commit
    assert run.info.user_id == "unknown"
    [picture] = [a.path for a in reader.list_artifacts(identity, "images") if a.path.endswith(".png")]
    assert picture.startswith("images/validation case 1") and "step+2" in picture.replace("%", "+")
    assert np.array_equal(Image.open(reader.download_artifacts(identity, picture)), PICTURE)
    assert Path(reader.download_artifacts(identity, "models/fold2.onnx")).read_bytes() == b"a model"
    about = json.loads(Path(reader.download_artifacts(identity, "models/fold2.onnx.json")).read_text())
    assert (about["path"], about["bytes"], about["fold"]) == ("onnx/fold2.onnx", 7, 2)
    assert np.array_equal(Image.open(reader.download_artifacts(identity, "figures/test/roc.png")), PICTURE)


def test_mlflow_a_large_model_goes_by_reference(workspace, monkeypatch):
    monkeypatch.setattr(tracking, "ARTIFACT_LIMIT_BYTES", 6)
    identity = whole_run("mlflow", workspace).partition(":")[2]
    assert [a.path for a in client(workspace).list_artifacts(identity, "models")] == ["models/fold2.onnx.json"]


def test_mlflow_goes_on_with_the_same_run(workspace):
    first = whole_run("mlflow", workspace)
    with start_tracker(["mlflow"], workspace=workspace, config={"other": 1}, resume_id=first, **FOLD) as tracker:
        assert tracker.id == first
        assert client(workspace).get_run(first[7:]).info.status == "RUNNING"
        tracker.log(3, {"learning_rate": 0.0})
    reader = client(workspace)
    assert [m.step for m in reader.get_metric_history(first[7:], "learning_rate")] == [0, 1, 2, 3]
    assert reader.get_run(first[7:]).info.status == "FINISHED" and len(reader.search_runs(["1"])) == 1
    reader.delete_run(first[7:])
    with start_tracker(["mlflow"], workspace=workspace, config={}, resume_id=first, **FOLD) as tracker:
        assert tracker.id not in (first, "")
    with start_tracker(["mlflow"], workspace=workspace, config={}, resume_id="mlflow:" + 32 * "0", **FOLD) as tracker:
        assert tracker.id not in (first, "mlflow:" + 32 * "0", "")


def test_mlflow_marks_a_run_that_failed(workspace):
    with pytest.raises(ZeroDivisionError):
        with start_tracker(["mlflow"], workspace=workspace, config={}, **FOLD) as tracker:
            1 / 0
    assert client(workspace).get_run(tracker.id[7:]).info.status == "FAILED"


def test_mlflow_finds_its_files_in_a_workspace_that_was_moved(workspace):
    first = whole_run("mlflow", workspace)
    moved = workspace.rename(workspace.with_name("moved"))
    from mlflow.tracking._tracking_service import utils
    utils._artifact_repos_cache.clear()  # it is another process that finds the moved workspace
    with start_tracker(["mlflow"], workspace=moved, config={}, resume_id=first, **FOLD) as tracker:
        tracker.artifact(file(moved / "best.pt", b"best"), "best.pt", {})
    assert tracker.id == first and not workspace.exists()
    kept = {a.path for a in client(moved).list_artifacts(first[7:], "models")}
    assert {"models/best.pt", "models/fold2.onnx"} <= kept
    assert Path(client(moved).download_artifacts(first[7:], "models/fold2.onnx")).read_bytes() == b"a model"


@pytest.mark.parametrize("name, expected", [
    ("dice/flair visible", "dice/flair visible"), ("map@[.5:.95]", "map_at_.5:.95"), ("ap@0.5/head", "ap_at_0.5/head"),
    ("a//../b", "a/b"), ("größe (mm)", "größe _mm_")])
def test_mlflow_takes_every_name(name, expected):
    from mlflow.utils.validation import _validate_metric_name
    assert plain_name(name) == expected
    _validate_metric_name(plain_name(name))


# --- TensorBoard ----------------------------------------------------------------------------------------------------

def read_events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def scalars(events, tag: str) -> dict[int, float]:
    return {event.step: round(event.value, 6) for event in events.Scalars(tag)}


def texts(events, tag: str) -> str:
    return events.Tensors(tag)[0].tensor_proto.string_val[0].decode()


def test_tensorboard_gets_all(tmp_path, capfd):
    import io
    from PIL import Image
    assert whole_run("tensorboard", tmp_path) == "tensorboard:fold2" and capfd.readouterr().err == ""
    folder = tmp_path / "tb_logs" / "FVV" / "fold2"
    events = read_events(folder)
    assert scalars(events, "dice/flair visible") == {0: 0.0, 1: 0.25, 2: 0.5}
    assert scalars(events, "learning_rate") == {0: 0.1, 1: 0.05, 2: 0.033333}
    assert scalars(events, "best_epoch") == {0: 2} and "lost" not in events.Tags()["scalars"]
    [shown] = events.Images("validation case 1")
    assert (shown.step, shown.width, shown.height) == (2, 6, 4)
    assert np.array_equal(Image.open(io.BytesIO(shown.encoded_image_string)), PICTURE)
    assert np.array_equal(Image.open(io.BytesIO(events.Images("figures/test/roc")[0].encoded_image_string)), PICTURE)
    assert "| training.epochs | 3 |" in texts(events, "configuration") and "| chosen | dice |" in texts(events, "summary")
    assert "| path | onnx/fold2.onnx |" in texts(events, "models/fold2.onnx")
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data
    session = parse_session_start_info_plugin_data(events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content)
    assert session.hparams["training.epochs"].number_value == 3 and session.hparams["amp"].bool_value
    assert [path.name for path in folder.iterdir()] == ["events.out.tfevents.0000000001.foldscan"]  # no host in the name


def test_tensorboard_takes_back_what_came_after_the_last_checkpoint(tmp_path):
    with start_tracker(["tensorboard"], workspace=tmp_path, config=CONFIG, **FOLD) as tracker:
        for epoch in range(4):
            tracker.log(epoch, {"loss": epoch})
    with start_tracker(["tensorboard"], workspace=tmp_path, config=CONFIG, resume_id=tracker.id, **FOLD) as tracker:
        for epoch in (2, 3):
            tracker.log(epoch, {"loss": 10 + epoch})
    folder = tmp_path / "tb_logs" / "FVV" / "fold2"
    assert [(event.step, event.value) for event in read_events(folder).Scalars("loss")] == [(0, 0), (1, 1), (2, 12), (3, 13)]
    with start_tracker(["tensorboard"], workspace=tmp_path, config=CONFIG, resume_id=tracker.id, **FOLD) as later:
        later.summary({"test_dice": 0.5})
    assert len(read_events(folder).Scalars("loss")) == 4  # a later script takes nothing back
    with start_tracker(["tensorboard"], workspace=tmp_path, config=CONFIG, **FOLD) as anew:
        anew.log(0, {"loss": 5})
    assert scalars(read_events(folder), "loss") == {0: 5}


def test_an_undefined_value_takes_the_place_of_the_last(workspace, tmp_path):
    """In each tracker, as a later call of a script tells it; W&B writes null for NaN."""
    identity, names = "", ["mlflow", "tensorboard", "wandb"]
    for values in ({"test_dice_sd": 0.5, "test_dice_mean": 0.25}, {"test_dice_sd": float("nan"), "test_dice_mean": 0.75}):
        with start_tracker(names, workspace=workspace, config=CONFIG, resume_id=identity, told=tmp_path / "told",
                           **FOLD | {"fold": None}) as tracker:
            tracker.summary(values)
        identity = tracker.id
    ids = tracking.parse_ids(identity)
    metrics = client(workspace).get_run(ids["mlflow"]).data.metrics
    assert np.isnan(metrics["test_dice_sd"]) and metrics["test_dice_mean"] == 0.75
    events = read_events(workspace / "tb_logs" / "FVV" / "summary")
    assert scalars(events, "test_dice_mean") == {0: 0.25, 1: 0.75}  # the number of the call
    assert [(event.step, str(event.value)) for event in events.Scalars("test_dice_sd")] == [(0, "0.5"), (1, "nan")]
    first, second = [read_summary(path) for path in sorted(workspace.glob("runs/FVV/wandb/offline-run-*/*.wandb"),
                                                           key=lambda path: path.stat().st_mtime_ns)]
    assert (first["test_dice_sd"], first["test_dice_mean"]) == (0.5, 0.25)
    assert (second["test_dice_sd"], second["test_dice_mean"]) == (None, 0.75)


# --- failures -------------------------------------------------------------------------------------------------------

def test_a_broken_database_is_one_line(workspace, capfd):
    file(workspace / "mlflow" / "mlflow.db", b"this is no database, but a text that is somewhat longer than its header" * 99)
    with start_tracker(["mlflow"], workspace=workspace, config=CONFIG, **FOLD) as tracker:
        tracker.log(0, {"dice": 1.0})
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("warning: tracker mlflow stopped: ") and "metrics.csv goes on" in said


def test_a_database_that_breaks_in_the_middle_is_one_line(workspace, capfd):
    with start_tracker(["mlflow"], workspace=workspace, config=CONFIG, **FOLD) as tracker:
        tracker.log(0, {"dice": 1.0})
        with sqlite3.connect(workspace / "mlflow" / "mlflow.db") as connection:
            connection.execute("DROP TABLE latest_metrics")
        for epoch in range(1, 4):
            tracker.log(epoch, {"dice": 1.0})
        tracker.summary({"best": 1})
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("warning: tracker mlflow stopped: "), said
    assert tracker.id.startswith("mlflow:")  # a later call may try again


def test_a_path_that_mlflow_would_misread_is_one_line(tmp_path, capfd):
    start_tracker(["mlflow"], workspace=tmp_path / "what?", config=CONFIG, **FOLD)
    assert "with ? or %" in capfd.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capfd):
    file(tmp_path / "tb_logs", b"a file where a folder should be")
    with start_tracker(["tensorboard"], workspace=tmp_path, config=CONFIG, **FOLD) as tracker:
        tracker.log(0, {"dice": 1.0})
    assert capfd.readouterr().err.count("\n") == 1


def test_a_full_disk_is_one_line(tmp_path, capfd):
    with start_tracker(["tensorboard"], workspace=tmp_path, config=CONFIG, **FOLD) as tracker:
        with open("/dev/full", "wb", buffering=0) as full:
            tracker._live["tensorboard"]._writer._writer = full
            for epoch in range(3):
                tracker.log(epoch, {"dice": 1.0})
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "No space left" in said


def test_a_server_that_never_answers_is_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, says nothing
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start_tracker(["mlflow"], workspace=tmp_path, config=CONFIG, **FOLD).log(0, {"dice": 1.0})
    assert capfd.readouterr().err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_server_whose_answer_never_ends_is_one_line(tmp_path, monkeypatch, capfd):
    """A byte now and then is no silence, which is all that the timeouts of a tracker's client see."""
    import mlflow  # so that the deadline is the server's alone
    asked, over = threading.Event(), threading.Event()

    def trickle(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            asked.set()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
            while not over.wait(0.1):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=trickle, args=(listening,), daemon=True)
        serving.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setattr(tracking, "DEADLINE_S", 5)
        failed: set[str] = set()
        with start_tracker(["mlflow", "tensorboard"], workspace=tmp_path, config=CONFIG, **FOLD, failed=failed) as tracker:
            tracker.log(0, {"dice": 1.0})
        assert asked.is_set() and failed == {"mlflow"} and mlflow
        over.set()
        serving.join(PATIENCE_S)
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("warning: tracker mlflow stopped: no end in 5 s"), said
    assert scalars(read_events(tmp_path / "tb_logs" / "FVV" / "fold2"), "dice") == {0: 1.0}  # the other one goes on


# --- which number goes where ----------------------------------------------------------------------------------------

ROWS = [{"class": "all", "metric": "dice", "folds": 2, "mean": 0.5, "sd": 0.1, "patients": 4, "estimate": 0.52, "ci_low": 0.4,
         "ci_high": 0.6, "fold0": 0.4, "fold1": 0.6},
        {"class": "stroke", "metric": "dice", "folds": 1, "mean": 0.3, "sd": None, "patients": None, "estimate": "",
         "ci_low": float("nan"), "ci_high": None, "fold0": 0.3, "fold1": ""}]


def test_scores_of_folds_and_of_all():
    assert fold_scores(ROWS, 0, "test") == {"test_dice": 0.4, "test_dice/stroke": 0.3}
    assert fold_scores(ROWS, 1, "test") == {"test_dice": 0.6} and fold_scores(ROWS, 7, "test") == {}
    assert pooled_scores(ROWS, "external") == {
        "external_dice": 0.52, "external_dice_mean": 0.5, "external_dice_sd": 0.1, "external_dice_ci_low": 0.4,
        "external_dice_ci_high": 0.6, "external_dice_mean/stroke": 0.3}


class Recorded(tracking.Tracker):
    calls: list = []

    def __init__(self, run):
        super().__init__(run)
        self.run, self.id = run, run.resume_id or f"{run.name}-id"

    def summary(self, values):
        self.calls.append((self.run.name, "summary", values))

    def artifact(self, path, name, about):
        self.calls.append((self.run.name, name, about))

    def figures(self, figures):
        self.calls.append((self.run.name, "figures", sorted(figures)))


@pytest.fixture
def recorded(trained, tmp_path, monkeypatch):
    """A copy of a run that was trained without trackers, and a tracker `recorded`."""
    monkeypatch.setitem(tracking.TRACKERS, "recorded", Recorded)
    monkeypatch.setattr(Recorded, "calls", [])
    return trained.copy(tmp_path, "runs", "prepared")


def tracked(place, *trackers: str, **keys):
    overrides = [f"tracking.{key}={json.dumps(value)}" for key, value in keys.items()]
    return place.open(f"tracking.trackers=[{','.join(trackers)}]", *overrides)[1]


def test_later_scripts_tell_the_trackers_of_training(recorded):
    place, study = recorded, tracked(recorded, "none")
    model = file(place.space.onnx("FVV") / "fold1.onnx", b"model")
    track_models(place.space, study, "FVV", {1: model})
    track_results(place.space, study, "FVV", ROWS, {}, "test", [0, 1])
    assert Recorded.calls == []  # it was trained with none
    track_models(place.space, study, "FVV", {0: model.with_name("missing.onnx"), 1: model}, ["recorded"])
    [(run, name, about)] = Recorded.calls
    assert (run, name, about["fold"], about["path"]) == ("FVV-k1", "fold1.onnx", 1, "onnx/FVV/fold1.onnx")
    Recorded.calls.clear()
    track_results(place.space, study, "FVV", ROWS, {"roc": Path("roc.png")}, "test", [0, 1], ["recorded"])
    assert Recorded.calls == [("FVV-k0", "summary", fold_scores(ROWS, 0, "test")), ("FVV-k1", "summary", {"test_dice": 0.6}),
                              ("FVV-cv", "summary", pooled_scores(ROWS, "test")), ("FVV-cv", "figures", ["test/roc"])]
    Recorded.calls.clear()
    track_results(place.space, study, "FVV", ROWS, {}, "external", [0, 1], ["recorded"])
    assert Recorded.calls == [("FVV-cv", "summary", pooled_scores(ROWS, "external"))]
    track_results(place.space, study, "FVV", ROWS, {}, "validation", [0, 1], ["recorded"])
    track_results(place.space, study, "other", ROWS, {}, "test", [0, 1], ["recorded"])  # trained elsewhere
    assert len(Recorded.calls) == 1 and not place.space.run("other").exists()
    assert (place.fold(1) / "tracker_id.txt").read_text() == "recorded:FVV-k1-id"  # a later call goes on with it


def test_what_an_earlier_test_told_and_the_last_does_not_know_becomes_nan(recorded):
    """Fold 1 and with it the SD are gone; the classes' own scores too. What training told stays."""
    place, study = recorded, tracked(recorded, "recorded")
    file(place.fold(1) / "tracker_told.txt", b"best_epoch\n")
    track_results(place.space, study, "FVV", ROWS, {}, "test", [0, 1], ["recorded"])
    track_results(place.space, study, "FVV", ROWS, {}, "external", [0, 1], ["recorded"])
    Recorded.calls.clear()
    alone = [{"class": "all", "metric": "dice", "folds": 1, "mean": 0.4, "sd": None, "estimate": 0.42, "ci_low": 0.3,
              "ci_high": "", "fold0": 0.4}]
    track_results(place.space, study, "FVV", alone, {}, "test", [0], ["recorded"])
    said = [(run, {key: None if np.isnan(value) else value for key, value in values.items()})
            for run, _, values in Recorded.calls]
    assert said == [
        ("FVV-k0", {"test_dice": 0.4, "test_dice/stroke": None}), ("FVV-k1", {"test_dice": None}),
        ("FVV-cv", {"test_dice": 0.42, "test_dice_mean": 0.4, "test_dice_sd": None, "test_dice_ci_low": 0.3,
                    "test_dice_ci_high": None, "test_dice_mean/stroke": None})]


def test_models_stay_here_where_the_study_says_so(recorded):
    place = recorded
    model = file(place.space.onnx("FVV") / "fold1.onnx", b"model")
    track_models(place.space, tracked(place, "recorded", artifacts=False), "FVV", {1: model}, ["recorded"])
    track_models(place.space, tracked(place, "none"), "FVV", {1: model})
    track_checkpoint(Recorded(tracking.TrackedRun("p", "g", 1, place.space.root)), place.space,
                     tracked(place, "recorded", artifacts=False), place.fold(1) / "best.pt")
    assert Recorded.calls == []


def test_an_interrupted_fold_goes_on_in_its_runs(prepared, tmp_path, empty_database):
    place = prepared.copy(tmp_path, "prepared")
    file(place.space.root / "mlflow" / "mlflow.db", empty_database.read_bytes())
    epochs = []

    def killed(items, total, headline="", status=None, unit="it"):
        if unit in ("it", "batch"):
            epochs.append(0)
            if len(epochs) == 3:
                raise KeyboardInterrupt
        return items

    settings = ("tracking.trackers=[tensorboard, mlflow]", "training.epochs=4")
    with pytest.raises(KeyboardInterrupt):
        place.train(0, "FVV", *settings, progress=killed)
    known = tracking.parse_ids((place.fold(0) / "tracker_id.txt").read_text())
    reader = client(place.space.root)
    assert reader.get_run(known["mlflow"]).info.status == "FAILED"
    place.train(0, "FVV", *settings)
    assert tracking.parse_ids((place.fold(0) / "tracker_id.txt").read_text()) == known
    assert [m.step for m in reader.get_metric_history(known["mlflow"], "train_loss")] == [0, 1, 2, 3]
    assert reader.get_run(known["mlflow"]).info.status == "FINISHED"
    assert len(reader.search_runs([reader.get_experiment_by_name("FVV").experiment_id])) == 2  # and the parent
    assert list(scalars(read_events(place.space.root / "tb_logs" / "FVV" / "fold0"), "train_loss")) == [0, 1, 2, 3]
    place.train(0, "FVV", *settings, resume=False)  # anew: another run
    assert tracking.parse_ids((place.fold(0) / "tracker_id.txt").read_text())["mlflow"] != known["mlflow"]
    assert len(scalars(read_events(place.space.root / "tb_logs" / "FVV" / "fold0"), "train_loss")) == 4


# --- folds at once --------------------------------------------------------------------------------------------------

FOLDS_AT_ONCE = """
import sys
from lib.study import load_study
from lib.run_tracking import open_fold_run, open_parent
from lib.workspace import Workspace
space, fold = Workspace(__import__("pathlib").Path(sys.argv[1])), int(sys.argv[2])
study = load_study("flair_visibility", ["tracking.trackers=[mlflow]"])
parent = open_parent(space, study, "FVV")
with open_fold_run(space, study, "FVV", fold, {"fold": fold}, None, parent) as tracker:
    for epoch in range(30):
        tracker.log(epoch, {f"metric {i}": i for i in range(30)})
print(parent, tracker.id)
"""


def test_folds_that_start_at_once_share_one_parent(tmp_path):
    """In a new workspace, so that they make the database at the same time too. Nothing is written at home."""
    home = tmp_path / "home"
    home.mkdir()
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "XDG_", "PYTEST", "CI"))}
    environment = bare | {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = [subprocess.Popen([sys.executable, "-c", FOLDS_AT_ONCE, str(tmp_path / "ws"), str(fold)], env=environment,
                                cwd=tmp_path, **pipes) for fold in range(3)]
    ended = [process.communicate(timeout=240) for process in started]
    assert [err for _, err in ended] == ["", "", ""] and [process.returncode for process in started] == [0, 0, 0]
    parents, folds = zip(*(out.split() for out, _ in ended))
    assert len(set(parents)) == 1 and len(set(folds)) == 3
    reader = client(tmp_path / "ws")
    runs = {run.info.run_name: run for run in reader.search_runs([reader.get_experiment_by_name("FVV").experiment_id])}
    assert sorted(runs) == ["FVV-cv", "FVV-k0", "FVV-k1", "FVV-k2"]
    for fold in range(3):
        run = runs[f"FVV-k{fold}"]
        assert run.data.tags["mlflow.parentRunId"] == runs["FVV-cv"].info.run_id == parents[0][7:]
        assert len(run.data.metrics) == 30 and len(reader.get_metric_history(run.info.run_id, "metric 7")) == 30
    assert not (home / ".config" / "mlflow").exists() and not list(tmp_path.glob("mlruns")), "telemetry is off"


# --- the whole way, with all trackers -------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """Scripts 2b, 3 and 4 with three trackers, three folds at once, in a folder whose name is looked for afterwards."""
    place = trained.copy(tmp_path_factory.mktemp("confidential"), "prepared")
    environment = {"MLFLOW_TRACKING_URI": "", "PYTEST_CURRENT_TEST": ""}
    said = [run_script("2b", "-j", 3, *TINY, "--tracker", "wandb,tensorboard,mlflow", cwd=place.folder, environment=environment),
            run_script("3", cwd=place.folder, environment=environment),
            run_script("4", "--no-heatmaps", cwd=place.folder, environment=environment)]
    return place, said


def test_training_is_the_same_with_and_without_trackers(whole, trained):
    place, said = whole
    assert all("tracker" not in one.stderr for one in said), [one.stderr for one in said]
    for fold in range(3):
        assert (place.fold(fold) / "metrics.csv").read_bytes() == (trained.fold(fold) / "metrics.csv").read_bytes()


def test_mlflow_has_folds_under_their_parent_and_the_final_scores(whole):
    place, _ = whole
    reader = client(place.space.root)
    runs = {run.info.run_name: run for run in reader.search_runs([reader.get_experiment_by_name("FVV").experiment_id])}
    assert sorted(runs) == ["FVV-cv", "FVV-k0", "FVV-k1", "FVV-k2"]
    summary = {(row["class"], row["metric"]): row for row in table(place.space.results("FVV") / "summary.csv")}
    dice = summary["all", "dice"]
    parent = runs["FVV-cv"].data
    assert parent.metrics["test_dice_mean"] == pytest.approx(float(dice["mean"]), rel=1e-8)
    assert parent.metrics["test_dice_sd"] == pytest.approx(float(dice["sd"]), rel=1e-8)
    assert parent.metrics["test_dice"] == pytest.approx(float(dice["estimate"]), rel=1e-8)
    assert parent.metrics["test_dice/stroke"] == pytest.approx(float(summary["stroke", "dice"]["estimate"]), rel=1e-8)
    assert parent.metrics["folds_finished"] == 3 and parent.params["training.epochs"] == "2"
    assert reader.list_artifacts(runs["FVV-cv"].info.run_id, "figures/test")
    for fold in range(3):
        run = runs[f"FVV-k{fold}"]
        assert run.info.status == "FINISHED" and run.data.tags["mlflow.parentRunId"] == runs["FVV-cv"].info.run_id
        assert run.data.metrics["test_dice"] == pytest.approx(float(dice[f"fold{fold}"]), rel=1e-8)
        expected = [float(row["learning_rate"]) for row in table(place.fold(fold) / "metrics.csv")]
        assert [m.value for m in reader.get_metric_history(run.info.run_id, "learning_rate")] == pytest.approx(expected)
        kept = {a.path for a in reader.list_artifacts(run.info.run_id, "models")}
        assert kept == {f"models/{name}" for name in ("best.pt", "best.pt.json", f"fold{fold}.onnx", f"fold{fold}.onnx.json")}
        model = Path(reader.download_artifacts(run.info.run_id, f"models/fold{fold}.onnx"))
        assert model.read_bytes() == (place.space.onnx("FVV") / f"fold{fold}.onnx").read_bytes()


def test_the_checkpoint_that_is_sent_is_a_checkpoint_without_paths(whole):
    from lib.checkpoints import load_checkpoint
    place, _ = whole
    ids = tracking.parse_ids((place.fold(1) / "tracker_id.txt").read_text())
    sent = load_checkpoint(Path(client(place.space.root).download_artifacts(ids["mlflow"], "models/best.pt")))
    kept = load_checkpoint(place.fold(1) / "best.pt")
    assert "input" not in sent["study"]["data"] and sent["fold"] == 1 and sent["calibration"] == kept["calibration"]
    assert all((sent["network"][key] == kept["network"][key]).all() for key in kept["network"])
    from lib.conversion import restore_network
    from lib.study import study_from_dict
    from lib.tasks import make_task
    study = study_from_dict(sent["study"])
    restore_network(study, sent, make_task(study))  # scripts take it


def test_tensorboard_and_wandb_have_the_final_scores_too(whole):
    place, _ = whole
    dice = {row["class"]: row for row in table(place.space.results("FVV") / "summary.csv") if row["metric"] == "dice"}["all"]
    logs = place.space.root / "tb_logs" / "FVV"
    assert sorted(path.name for path in logs.iterdir()) == ["fold0", "fold1", "fold2", "summary"]
    parent = read_events(logs / "summary")
    assert parent.Scalars("test_dice_mean")[0].value == pytest.approx(float(dice["mean"]), rel=1e-5)
    assert any(tag.startswith("figures/test/") for tag in parent.Tags()["images"])
    fold = read_events(logs / "fold2")
    assert fold.Scalars("test_dice")[0].value == pytest.approx(float(dice["fold2"]), rel=1e-5)
    assert len(fold.Scalars("learning_rate")) == 2 and "models/fold2.onnx" in fold.Tags()["tensors"]
    found: dict[str, dict] = {}
    for path in place.space.run("FVV").glob("wandb/offline-run-*/*.wandb"):
        run, _, files = read_run(path)
        assert run.run_group == "FVV"
        found.setdefault(run.display_name, {}).update(read_summary(path) | {file: True for file in files})
    assert sorted(found) == ["FVV-cv", "FVV-k0", "FVV-k1", "FVV-k2"]
    assert found["FVV-k2"]["test_dice"] == pytest.approx(float(dice["fold2"]), rel=1e-8)
    assert found["FVV-k2"]["models/fold2.onnx"] and found["FVV-k2"]["models/best.pt"] and "best_epoch" in found["FVV-k2"]
    assert found["FVV-cv"]["test_dice_sd"] == pytest.approx(float(dice["sd"]), rel=1e-8)


def test_a_fold_goes_on_in_the_same_runs(whole):
    place, _ = whole
    import torch
    for fold in range(3):
        from_file = (place.fold(fold) / "tracker_id.txt").read_text()
        assert torch.load(place.fold(fold) / "last.pt", weights_only=True)["tracker_id"] == from_file
        assert set(tracking.parse_ids(from_file)) == {"wandb", "tensorboard", "mlflow"}


def test_nothing_private_is_in_any_tracker(whole):
    """Bytes of all that trackers wrote: no user, host, path, patient or raw file. MLflow's SQLite file stays here, and names
    its own folder; W&B's logs stay here too."""
    place, _ = whole
    names = {str(place.folder), "confidential", str(ROOT), str(Path.home()), sys.executable, socket.gethostname(),
             getpass.getuser(), "Patient_0", "stroke_roi.nii"}
    private = [name.encode() for name in names if len(name) > 5]
    root = place.space.root
    files = [path for folder in (root / "mlflow", root / "tb_logs", root / "runs" / "FVV" / "wandb") for path in folder.rglob("*")
             if path.is_file() and path.suffix not in (".db", ".log")]
    assert {".wandb", ".foldscan", ".onnx", ".pt", ".png", ".json"} <= {path.suffix for path in files}
    leaks = {(str(path), name) for path in files for name in private
             if name in path.read_bytes() or name in str(path.relative_to(root)).encode()}
    assert not leaks
    with sqlite3.connect(root / "mlflow" / "mlflow.db") as connection:
        tables = [name for name, in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        cells = [(name, column[1], row[column[0]]) for name in tables for row in connection.execute(f'SELECT * FROM "{name}"')
                 for column in connection.execute(f'PRAGMA table_info("{name}")').fetchall()]
    found = {(name, column) for name, column, value in cells if any(word in str(value).encode() for word in private)}
    assert found <= {("runs", "artifact_uri"), ("experiments", "artifact_location")}


# --- real servers ---------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def server(command: list[str], address: str, folder: Path):
    """A server on loopback that has begun to answer; it and what it started are ended with the block."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True,
                                   env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(folder)})
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                get(address)
                break
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    pytest.fail(f"{command[:4]} did not answer:\n{(folder / 'server.log').read_text()[-2000:]}")
                time.sleep(0.2)
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """The server and its workers, which are a session of their own."""
    import signal
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def get(address: str, body: dict | None = None) -> bytes:
    request = urllib.request.Request(address, headers={"Content-Type": "application/json"},
                                     data=json.dumps(body).encode() if body is not None else None)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return answer.read()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def mlflow_server(database: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}", "--host", "127.0.0.1",
            "--port", str(port), "--workers", "1"]


def test_an_mlflow_server_shows_the_runs(whole, tmp_path):
    place, _ = whole
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with server(mlflow_server(place.space.root / "mlflow" / "mlflow.db", port), f"{address}/health", tmp_path):
        experiments = json.loads(get(f"{address}/api/2.0/mlflow/experiments/search", {"max_results": 9}))["experiments"]
        [number] = [one["experiment_id"] for one in experiments if one["name"] == "FVV"]
        runs = json.loads(get(f"{address}/api/2.0/mlflow/runs/search", {"experiment_ids": [number]}))["runs"]
        assert sorted(run["info"]["run_name"] for run in runs) == ["FVV-cv", "FVV-k0", "FVV-k1", "FVV-k2"]
        [fold] = [run for run in runs if run["info"]["run_name"] == "FVV-k1"]
        model = get(f"{address}/get-artifact?path=models/fold1.onnx&run_id={fold['info']['run_id']}")
        assert model == (place.space.onnx("FVV") / "fold1.onnx").read_bytes()
        assert b"<html" in get(f"{address}/").lower()


def test_a_server_of_the_users_choice_that_dies_in_the_middle(tmp_path, empty_database, monkeypatch, capfd):
    database = Path(shutil.copy(empty_database, tmp_path / "server.db"))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with server(mlflow_server(database, port), f"{address}/health", tmp_path) as process:
        with start_tracker(["mlflow"], workspace=tmp_path / "ws", config=CONFIG, **FOLD) as tracker:
            tracker.log(0, {"dice": 0.5})
            tracker.pictures(0, {"validation case 1": PICTURE})
            tracker.artifact(file(tmp_path / "ws" / "best.pt", b"best"), "best.pt", {})
            kept = json.loads(get(f"{address}/api/2.0/mlflow/artifacts/list?run_id={tracker.id[7:]}&path=models"))
            assert {one["path"] for one in kept["files"]} == {"models/best.pt", "models/best.pt.json"}
            run = json.loads(get(f"{address}/api/2.0/mlflow/runs/get?run_id={tracker.id[7:]}"))["run"]
            assert [(m["key"], m["value"]) for m in run["data"]["metrics"]] == [("dice", 0.5)]
            assert capfd.readouterr().err == "" and tracker.where.startswith(f"mlflow {address}/#/experiments/")
            kill(process)
            for epoch in range(1, 5):
                tracker.log(epoch, {"dice": 0.5})
            tracker.summary({"best_epoch": 1})
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("warning: tracker mlflow stopped: "), said
    assert not (tmp_path / "ws" / "mlflow").exists()


def test_a_tensorboard_shows_the_runs(whole, tmp_path):
    """Also what goes on after a kill: its fast reader is another program than the one that the tests above use."""
    place, _ = whole
    logs = shutil.copytree(place.space.root / "tb_logs", tmp_path / "tb_logs")
    group = dict(project="FVV", group="killed", fold=0, config={}, workspace=tmp_path)
    for first, resume_id in ((0, ""), (1, "tensorboard:fold0")):
        with start_tracker(["tensorboard"], resume_id=resume_id, **group) as tracker:
            for epoch in range(first, 3):
                tracker.log(epoch, {"loss": epoch + 10 * first})
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with server([sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port)],
                f"{address}/data/environment", tmp_path):
        end, runs = time.monotonic() + PATIENCE_S, []
        while len(runs) < 5 and time.monotonic() < end:
            runs = json.loads(get(f"{address}/data/runs"))
            time.sleep(0.2)
        assert sorted(runs) == ["FVV/fold0", "FVV/fold1", "FVV/fold2", "FVV/summary", "killed/fold0"]
        points: list = []
        while len(points) < 3 and time.monotonic() < end:
            points = json.loads(get(f"{address}/data/plugin/scalars/scalars?run=killed/fold0&tag=loss"))
        assert [(step, value) for _, step, value in points] == [(0, 0), (1, 11), (2, 12)]
        images = json.loads(get(f"{address}/data/plugin/images/tags"))
        assert any(tag.startswith("validation case 1") for tag in images["FVV/fold0"])
        assert "training.epochs" in get(f"{address}/data/plugin/text/text?run=FVV/fold0&tag=configuration").decode()


def test_the_parent_is_made_once_and_only_where_folds_are_nested(workspace, trained):
    study = tracked(trained, "tensorboard", "wandb")
    assert open_parent(Workspace(workspace), study, "FVV") == "" and not (workspace / "runs").exists()
    study = tracked(trained, "tensorboard", "mlflow")
    first = open_parent(Workspace(workspace), study, "FVV")
    assert first.startswith("mlflow:") and open_parent(Workspace(workspace), study, "FVV") == first
    assert len(client(workspace).search_runs(["1"])) == 1


def test_other_settings_have_another_parent(workspace, trained):
    """What is trained anew is not told to the run that knows the old settings and their scores."""
    space, study = Workspace(workspace), tracked(trained, "mlflow")
    begin_run(space, study, "FVV")
    first = open_parent(space, study, "FVV")
    begin_run(space, replace(study, report=replace(study.report, pdf=True)), "FVV")  # trains nothing else
    assert open_parent(space, study, "FVV") == first
    begin_run(space, replace(study, training=replace(study.training, learning_rate=0.5)), "FVV")
    assert open_parent(space, study, "FVV") != first and len(client(workspace).search_runs(["1"])) == 2


def test_other_settings_take_the_place_of_the_old_parent_in_tensorboard(tmp_path, trained):
    space, study = Workspace(tmp_path), tracked(trained, "tensorboard")
    summary, told = tmp_path / "tb_logs" / "FVV" / "summary", space.run("FVV") / "tracker_told.txt"
    begin_run(space, study, "FVV")
    with open_parent_run(space, study, "FVV", ["tensorboard"], {}) as tracker:
        tracker.summary({"test_dice": 0.5})
    begin_run(space, study, "FVV")  # the same
    assert scalars(read_events(summary), "test_dice") == {0: 0.5} and told.read_text() == "test_dice\n"
    begin_run(space, replace(study, training=replace(study.training, learning_rate=0.5)), "FVV")
    assert list(summary.iterdir()) == [] and not told.exists()
