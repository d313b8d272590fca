"""lib.tracking: what W&B gets (read back from its offline files), and that no tracker can stop training."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from hashlib import blake2b
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest

from lib import tracking
from lib.study import InputError
from lib.trackers import wandb as wandb_tracker
from lib.tracking import TRACKERS, Tracker, clean, start_tracker

ROOT = Path(__file__).resolve().parents[1]
RUN = dict(project="FVV", group="FVV", fold=2, config={})


class Recorder(Tracker):
    """Remembers every call; fails in those named in `failing`."""
    calls: list = []
    failing: tuple = ()
    failure: BaseException = ConnectionError("network\n gone")

    def __init__(self, run):
        super().__init__(run)
        self.call("start", run)
        self.id = run.resume_id or "new"

    def call(self, *what):
        type(self).calls.append(what)
        if what[0] in self.failing:
            raise self.failure

    def log(self, step, values):
        self.call("log", step, values)

    def pictures(self, step, pictures):
        self.call("pictures", step, sorted(pictures))

    def summary(self, values):
        self.call("summary", values)

    def artifact(self, path, name, about):
        self.call("artifact", path, name, about)

    def figures(self, figures):
        self.call("figures", sorted(figures))

    def finish(self, failed=False):
        self.call("finish", failed)


@pytest.fixture
def recorder(monkeypatch):
    """A fresh class of recording trackers, registered as `recorder`."""
    fresh = type("FreshRecorder", (Recorder,), {"calls": []})
    monkeypatch.setitem(TRACKERS, "recorder", fresh)
    return fresh


def test_unknown_tracker_lists_the_known(tmp_path):
    with pytest.raises(InputError, match="'wandv'.*did you mean 'wandb'.*known: none, wandb, tensorboard, mlflow"):
        start_tracker(["none", "wandv"], workspace=tmp_path, **RUN)


def test_none_does_nothing(tmp_path, capfd):
    with start_tracker(["none"], workspace=tmp_path, **RUN) as tracker:
        tracker.log(0, {"dice": 1.0})
        tracker.pictures(0, {"a": np.zeros((2, 3, 3), np.uint8)})
        tracker.summary({"best": 1})
    assert tracker.id == "" and list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


def test_calls_fan_out_without_nan(tmp_path, recorder, monkeypatch):
    second = type("Second", (Recorder,), {"calls": []})
    monkeypatch.setitem(TRACKERS, "second", second)
    with start_tracker(["recorder", "second"], workspace=tmp_path, **RUN) as tracker:
        tracker.log(3, {"dice": np.float32(0.5), "lost": float("nan"), "far": np.inf, "s": "", "n": 2})
        tracker.pictures(3, {"a": np.zeros((2, 3, 3), np.uint8)})
        tracker.summary({"epoch": 3, "score": float("nan"), "none": None, "select": "dice"})
    for calls in (recorder.calls, second.calls):
        assert calls[1:] == [("log", 3, {"dice": 0.5, "n": 2.0}), ("pictures", 3, ["a"]),
                             ("summary", {"epoch": 3, "select": "dice"}), ("finish", False)]


def test_ids_are_kept_for_a_resumed_run(tmp_path, recorder):
    assert start_tracker(["recorder"], workspace=tmp_path, **RUN).id == "recorder:new"
    resumed = start_tracker(["recorder"], workspace=tmp_path, resume_id="recorder:abc,other:7", **RUN)
    assert recorder.calls[-1][1].resume_id == "abc"
    assert resumed.id == "recorder:abc,other:7"
    assert start_tracker(["none"], workspace=tmp_path, resume_id=resumed.id, **RUN).id == resumed.id


def test_failure_in_log_warns_once_and_goes_on(tmp_path, recorder, capfd):
    recorder.failing = ("log",)
    with start_tracker(["recorder"], workspace=tmp_path, resume_id="recorder:abc", **RUN) as tracker:
        for step in range(3):
            tracker.log(step, {"dice": 1.0})
    assert [call[0] for call in recorder.calls] == ["start", "log"] and tracker.id == "recorder:abc"
    assert capfd.readouterr().err == "warning: tracker recorder stopped: network gone; metrics.csv goes on\n"


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", ["start", "log", "finish"])
def test_a_tracker_that_would_end_the_script_only_ends_itself(tmp_path, recorder, capfd, failing, ending):
    recorder.failing, recorder.failure = (failing,), ending
    with start_tracker(["recorder"], workspace=tmp_path, **RUN) as tracker:
        tracker.log(0, {"dice": 1.0})
    said = capfd.readouterr().err
    assert said == f"warning: tracker recorder stopped: {f'{type(ending).__name__} {ending}'.rstrip()}; metrics.csv goes on\n"


@pytest.fixture
def hanging(monkeypatch):
    """A tracker `hanging`; its calls named in `in_` wait until the test is over. `left`: the errors it was abandoned with."""
    over = threading.Event()

    class Hanging(Tracker):
        in_: tuple = ()
        left: list = []
        begun = threading.Event()

        def __init__(self, run):
            super().__init__(run)
            self.wait("start")

        @classmethod
        def wait(cls, call):
            if call in cls.in_:
                cls.begun.set()
                over.wait(60)

        def log(self, step, values):
            self.wait("log")

        def finish(self, failed=False):
            self.wait("finish")

        @classmethod
        def abandon(cls, error):
            cls.left.append(type(error))
            cls.wait("abandon")

    monkeypatch.setitem(TRACKERS, "hanging", Hanging)
    monkeypatch.setattr(tracking, "DEADLINE_S", 0.2)
    monkeypatch.setattr(tracking, "HURRY_S", 0.2)
    yield Hanging
    over.set()


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_that_hangs_is_abandoned_and_its_abandoning_may_hang_too(tmp_path, hanging, recorder, capfd, where):
    hanging.in_ = (where, "abandon")
    with start_tracker(["hanging", "recorder"], workspace=tmp_path, **RUN) as tracker:
        tracker.log(0, {"dice": 1.0})
    assert hanging.left == [TimeoutError]
    assert [call[0] for call in recorder.calls] == ["start", "log", "finish"]
    assert capfd.readouterr().err == "warning: tracker hanging stopped: no end in 0.2 s; metrics.csv goes on\n"


@pytest.mark.parametrize("where, said", [
    ("start", ""), ("finish", ""), ("log", "warning: tracker hanging stopped: no end in 0.2 s; metrics.csv goes on\n")])
def test_ctrl_c_while_a_tracker_hangs_does_not_wait_once_more(tmp_path, hanging, recorder, monkeypatch, capfd, request, where,
                                                              said):
    """The deadline of calls is longer than the test waits; Ctrl-C comes when the tracker hangs."""
    hanging.in_ = (where,)
    monkeypatch.setattr(tracking, "DEADLINE_S", 50)

    def interrupt():
        hanging.begun.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run side by side, workers ignore Ctrl-C
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), start_tracker(["recorder", "hanging"], workspace=tmp_path, **RUN) as tracker:
        tracker.log(0, {"dice": 1.0})
    assert hanging.left == [TimeoutError] and recorder.calls[-1] == ("finish", where != "finish")
    assert capfd.readouterr().err == said


def test_what_is_not_defined_any_more_is_told_as_nan(tmp_path, recorder):
    def told(**values):
        with start_tracker(["recorder"], workspace=tmp_path, told=tmp_path / "told", **RUN) as tracker:
            tracker.summary(values)
        return {key: "nan" if value != value else value for _, values in recorder.calls[1:-1] for key, value in values.items()}

    assert told(mean=0.5, sd=0.1, auc=math.nan) == {"mean": 0.5, "sd": 0.1}
    recorder.calls.clear()
    assert told(mean=0.6, sd=math.nan, auc=math.nan) == {"mean": 0.6, "sd": "nan"}
    recorder.calls.clear()
    assert told(sd=None) == {"sd": "nan"}  # still: a tracker may have been left out the last time
    start_tracker(["none"], workspace=tmp_path, told=tmp_path / "none", **RUN).summary({"auc": 0.5})
    assert (tmp_path / "told").read_text() == "mean\nsd\n" and not (tmp_path / "none").exists()


def test_what_failed_before_is_not_tried_again(tmp_path, recorder, capfd):
    recorder.failing, failed = ("start",), set()
    start_tracker(["recorder"], workspace=tmp_path, failed=failed, **RUN)
    start_tracker(["recorder"], workspace=tmp_path, failed=failed, **RUN).log(0, {"dice": 1.0})
    assert failed == {"recorder"} and [call[0] for call in recorder.calls] == ["start"]
    assert capfd.readouterr().err.count("\n") == 1


def test_artifacts_say_what_they_are_and_large_ones_go_by_reference(tmp_path, recorder, monkeypatch):
    path = tmp_path / "ws" / "onnx" / "fold2.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345")
    monkeypatch.setattr(tracking, "ARTIFACT_LIMIT_BYTES", 5)
    with start_tracker(["recorder"], workspace=tmp_path / "ws", **RUN) as tracker:
        tracker.artifact(path, "fold2.onnx", {"fold": 2, "score": float("nan"), "place": str(path)})
        path.write_bytes(b"123456")
        tracker.artifact(path, "fold2.onnx", {})
        tracker.figures({})
    about = {"name": "fold2.onnx", "path": "onnx/fold2.onnx", "bytes": 5, "fold": 2}
    first, second = recorder.calls[1:3]
    assert first == ("artifact", path, "fold2.onnx", about | {"hash": blake2b(b"12345", digest_size=16).hexdigest()})
    assert second[1] is None and second[3]["bytes"] == 6 and recorder.calls[3:] == [("finish", False)]


def test_failure_at_start_spares_the_others(tmp_path, recorder, monkeypatch, capfd):
    broken = type("Broken", (Recorder,), {"calls": [], "failing": ("start",)})
    monkeypatch.setitem(TRACKERS, "broken", broken)
    start_tracker(["broken", "recorder"], workspace=tmp_path, **RUN).log(0, {"dice": 1.0})
    assert recorder.calls[-1] == ("log", 0, {"dice": 1.0})
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
def test_not_installed(tmp_path, monkeypatch, capfd, name):
    for module in [module for module in sys.modules if module.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    start_tracker([name], workspace=tmp_path, **RUN).log(0, {"dice": 1.0})
    said = f"warning: tracker {name} is not installed: `pip install {name}` adds it; metrics.csv goes on\n"
    assert capfd.readouterr().err == said


def test_trackers_are_imported_only_when_they_are_chosen():
    probe = "import sys, lib.run_tracking; print({'wandb', 'mlflow', 'tensorboard', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


def test_exception_marks_the_run_failed(tmp_path, recorder):
    with pytest.raises(ZeroDivisionError), start_tracker(["recorder"], workspace=tmp_path, **RUN):
        1 / 0
    assert recorder.calls[-1] == ("finish", True)


@pytest.mark.parametrize("picture", [np.zeros((2, 3, 3), np.float32), np.zeros((2, 3), np.uint8)])
def test_wrong_picture_is_a_mistake_of_the_caller(tmp_path, picture):
    with pytest.raises(ValueError, match="expected uint8"):
        start_tracker(["none"], workspace=tmp_path, **RUN).pictures(0, {"a": picture})


def test_clean_configuration():
    dirty = {"a": {"path": Path("/data/p1"), "home": "~/x", "windows": "C:\\scans", "file": Path("b0.nii")},
             "classes": ("brain", "/secret"), "n": np.int64(3), "nan": float("nan"), "on": True, "no": None}
    assert clean(dirty) == {"a": {"file": "b0.nii"}, "classes": ["brain"], "n": 3, "on": True, "no": None}


SESSION = """
import sys
import numpy as np
from pathlib import Path
from PIL import Image
from lib.tracking import start_tracker
from lib.trackers import wandb
wandb.INIT_TIMEOUT_S = 1
workspace, resume_id = Path(sys.argv[1]), sys.argv[2]
config = {"training": {"epochs": 3}, "input": str(workspace)}
with start_tracker(["wandb"], project="FVV", group="FVV", fold=2, config=config, workspace=workspace,
                   resume_id=resume_id) as tracker:
    for step in range(3, 5) if resume_id else range(3):
        tracker.log(step, {"validation/dice": 0.5 + step / 8, "loss": float("nan")})
        tracker.pictures(step, {"case 0": np.full((4, 6, 3), step, np.uint8)})
    tracker.summary({"best_epoch": 2})
    model, figure = workspace / "onnx" / "fold2.onnx", workspace / "roc.png"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"a model")
    tracker.artifact(model, "fold2.onnx", {"fold": 2})
    Image.fromarray(np.full((4, 6, 3), 9, np.uint8)).save(figure)
    tracker.figures({"test/roc": figure})
print(tracker.id)
"""


def wandb_session(folder: Path, resume_id: str = "", **environment) -> subprocess.CompletedProcess:
    """A process without any W&B login or setting but `environment`; its home is beside `folder`."""
    home = str(folder.parent)
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
    bare |= {"HOME": home, "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", SESSION, str(folder), resume_id], env=bare | environment,
                          capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def wandb_records(path: Path) -> Iterator:
    """The protobuf records of a .wandb file: a 7-byte header, then LevelDB's log format in 32 KiB blocks.

    W&B has no reader in Python any more; the format is described in LevelDB's doc/log_format.md.
    """
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, content = 7, b""
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:  # too little for another chunk's header: padding
            position += room
            continue
        length, kind = struct.unpack("<HB", data[position + 4:position + 7])
        content += data[position + 7:position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last chunk
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            content = b""
            yield record


def read_run(path: Path) -> tuple[object, list[dict], list[str]]:
    """The run record, the history rows (nested keys joined by dots), and the files that would be uploaded."""
    records = list(wandb_records(path))
    rows = [{".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for record in records if record.WhichOneof("record_type") == "history"]
    files = [file.path for record in records for file in record.files.files]
    return next(record.run for record in records if record.WhichOneof("record_type") == "run"), rows, files


def read_summary(path: Path) -> dict:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for record in wandb_records(path)
            if record.WhichOneof("record_type") == "summary" for item in record.summary.update}


def test_wandb_offline_without_login_and_resumed(tmp_path):
    from PIL import Image

    workspace = tmp_path / "ws"
    folder = workspace / "runs" / "FVV"
    first = wandb_session(workspace)
    assert first.returncode == 0 and first.stderr == "", first.stderr
    identity = first.stdout.strip()
    [path] = folder.glob("wandb/offline-run-*/*.wandb")
    run, rows, files = read_run(path)
    assert identity == f"wandb:{run.run_id}"
    assert (run.project, run.display_name, run.run_group, run.job_type) == ("FVV", "FVV-k2", "FVV", "fold")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {key: config[key] for key in config if key != "_wandb"} == {"training": {"epochs": 3}}
    assert [(row["_step"], row["validation/dice"]) for row in rows] == [(0, 0.5), (1, 0.625), (2, 0.75)]
    assert not any("loss" in row for row in rows)
    for step, row in enumerate(rows):
        picture = path.parent / "files" / row["case 0.path"]
        assert row["case 0.path"] in files
        assert np.array_equal(Image.open(picture), np.full((4, 6, 3), step))  # as given, not stretched
    assert (path.parent / "files" / "models" / "fold2.onnx").read_bytes() == b"a model"
    about = json.loads((path.parent / "files" / "models" / "fold2.onnx.json").read_text())
    assert (about["path"], about["bytes"], about["fold"]) == ("onnx/fold2.onnx", 7, 2)
    assert {"models/fold2.onnx", "models/fold2.onnx.json"} <= set(files)
    summary = read_summary(path)
    assert summary["best_epoch"] == 2
    assert np.array_equal(Image.open(path.parent / "files" / summary["figures/test/roc"]["path"]), np.full((4, 6, 3), 9))
    raw = path.read_bytes()
    for private in (str(tmp_path), str(ROOT), socket.gethostname(), sys.executable):
        assert len(private) < 4 or private.encode() not in raw

    second = wandb_session(workspace, identity)
    assert second.stdout.strip() == identity and second.stderr == ""
    [resumed] = set(folder.glob("wandb/offline-run-*/*.wandb")) - {path}
    run, rows, files = read_run(resumed)
    assert identity == f"wandb:{run.run_id}" and [row["_step"] for row in rows] == [3, 4]


def test_wandb_login_without_network_goes_offline(tmp_path):
    done = wandb_session(tmp_path / "ws", WANDB_API_KEY="0" * 40, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "is written offline" in done.stderr
    [path] = tmp_path.glob("ws/runs/FVV/wandb/offline-run-*/*.wandb")
    assert len(read_run(path)[1]) == 3


HUNG = """
import os, signal, sys
from pathlib import Path
from lib import tracking
from lib.trackers.wandb import services
tracking.DEADLINE_S = 30
with tracking.start_tracker(["wandb"], project="FVV", group="FVV", fold=2, config={}, workspace=Path(sys.argv[1])) as tracker:
    tracker._deadline = 1
    tracker.log(0, {"dice": 0.5})
    [service] = services()
    os.kill(service.pid, signal.SIGSTOP)
    if sys.argv[2] == "log":
        tracker._live["wandb"].log = lambda *arguments: tracker._live["wandb"].finish()  # a call that waits for the service
    tracker.log(1, {"dice": 0.75})
print("done")
"""


@pytest.mark.parametrize("where", ["log", "finish"])
def test_a_script_ends_though_the_service_of_wandb_hangs(tmp_path, where):
    """It would wait for the service's end, in W&B's own exit hook."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run([sys.executable, "-c", HUNG, str(tmp_path / "ws"), where], capture_output=True, text=True, timeout=60,
                          env=bare | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "WANDB_MODE": "offline"})
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr == "warning: tracker wandb stopped: no end in 1 s; metrics.csv goes on\n"


def test_wandb_mode_is_respected(tmp_path):
    done = wandb_session(tmp_path / "ws", WANDB_MODE="disabled")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert not (tmp_path / "ws" / "runs").exists() or not any(p.is_file() for p in (tmp_path / "ws" / "runs").rglob("*"))


def test_settings_that_keep_the_host_private_exist(tmp_path):
    """Settings that a W&B version does not know are left out: the pinned one must know all that matter."""
    import wandb

    settings = object.__new__(wandb_tracker.WandbTracker)
    settings._wandb = wandb
    settings = settings._settings(tmp_path)
    assert settings.disable_git and settings.disable_code and settings.console == "off"
    assert settings.x_disable_stats and settings.x_disable_meta and settings.x_disable_machine_info
    assert settings.program == "FoldScan" and not settings.x_save_requirements
