"""Experiment trackers behind one small face: copies of metrics.csv for the eye, never needed by any script.

Privacy. Numbers, the cleaned configuration, pictures and models leave the machine only when the user is logged in to
W&B's server, or has set MLFLOW_TRACKING_URI to one; else everything stays in files. `tracking.pictures: false` in the study
keeps pictures out altogether (the training loop then passes none), `tracking.artifacts: false` models. The caller names no
patient in keys or values; as a second guard, configuration values that are absolute paths are dropped here. Nothing about
the host, its user, the source code or the console output is recorded.

A new tracker is one subclass of lib.trackers.base.Tracker in `TRACKERS`.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from concurrent.futures import Future, wait
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from lib.study import one_of
from lib.trackers.base import TrackedRun, Tracker, one_line, warn
from lib.trackers.mlflow import MlflowTracker
from lib.trackers.tensorboard import TensorboardTracker
from lib.trackers.wandb import WandbTracker
from lib.workspace import file_hash, write_text

ARTIFACT_LIMIT_BYTES = 100_000_000  # a larger file is tracked by reference
DEADLINE_S = 300  # of one call, long enough for the largest file by a slow line; a tracker's own timeouts may count silence only
HURRY_S = 5  # of a call after Ctrl-C, and of what is left to do for a tracker that failed

TRACKERS: dict[str, type[Tracker]] = {"none": Tracker, "wandb": WandbTracker, "tensorboard": TensorboardTracker,
                                      "mlflow": MlflowTracker}


class OwnThread:
    """Calls functions on a thread of its own, one after the other. The thread ends with the process, whatever it waits for."""

    def __init__(self):
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            answer, function, arguments = call
            try:
                answer.set_result(function(*arguments))
            except Exception as error:
                answer.set_exception(error)
            except BaseException as error:  # a tracker that would end its caller, as by sys.exit, only ends itself
                answer.set_exception(RuntimeError(f"{type(error).__name__} {error}".rstrip()))

    def call(self, deadline: float, function: Callable, *arguments) -> Any:
        """What the function gives or raises, the latter always as an Exception; TimeoutError after `deadline` seconds, when it is
        left behind."""
        answer: Future = Future()
        self._calls.put((answer, function, arguments))
        if not wait([answer], deadline).done:
            raise TimeoutError(f"no end in {deadline} s")
        return answer.result()

    def close(self) -> None:
        """No more calls."""
        self._calls.put(None)


class GuardedTrackers(Tracker):
    """Several trackers as one. One that fails or hangs is left out from then on, after a line on stderr. Ctrl-C while one is
    waited for ends the waiting: the calls after it, such as `finish`, have HURRY_S."""

    def __init__(self, names: Sequence[str], run: TrackedRun, failed: set[str], told: Path | None):
        self._workspace, self._failed, self._told, self._deadline = run.workspace, failed, told, DEADLINE_S
        ids, parents = parse_ids(run.resume_id), parse_ids(run.parent_id)
        self._ids = ids  # those of trackers left out this time are kept for the next
        self._live: dict[str, Tracker] = {}
        self._threads = {name: OwnThread() for name in names if name not in failed}
        for name in dict.fromkeys(names):
            if name in failed:
                continue
            try:
                tracker = self._threads[name].call(self._deadline, TRACKERS[name], TrackedRun(
                    run.project, run.group, run.fold, run.workspace, clean(run.config), ids.get(name, ""),
                    parents.get(name, "")))
            except KeyboardInterrupt as interrupt:
                self._deadline = HURRY_S
                self._abandon(name, TimeoutError(f"{interrupt}"))
                self.finish(failed=True)
                raise
            except Exception as error:  # whatever a tracker meets at its start, training goes on without it
                self._drop(name, error)
                continue
            self._live[name] = tracker
            if tracker.id:
                ids[name] = tracker.id
        self.where = "; ".join(tracker.where for tracker in self._live.values() if tracker.where)

    @property
    def id(self) -> str:
        """`name:id` of each tracker that has one, with commas between."""
        return ",".join(f"{name}:{value}" for name, value in self._ids.items())

    def log(self, step, values):
        numbers = {key: float(value) for key, value in finite(values).items()
                   if isinstance(value, (int, float))}
        self._each("log", step, numbers)

    def pictures(self, step, pictures):
        for name, pixels in pictures.items():
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise ValueError(f"picture {name}: {pixels.dtype} {pixels.shape}, expected uint8 (H, W, 3)")
        if pictures:
            self._each("pictures", step, pictures)

    def summary(self, values):
        """What is not a finite number is left out, or NaN in place of the number that was told before."""
        known = finite(values)
        before = told_keys(self._told)
        if self._ids and self._told is not None and not before >= known.keys():  # first: a call may be killed between the two
            write_text(self._told, "".join(f"{key}\n" for key in sorted(before | known.keys())))
        known |= {key: math.nan for key in values if key in before and key not in known}
        if known:
            self._each("summary", known)

    def artifact(self, path, name, about):
        """`about` gains the file's name, bytes, hash and place in the workspace, unless it says them itself. A file above
        ARTIFACT_LIMIT_BYTES goes by reference."""
        path = Path(path)
        size = path.stat().st_size
        place = path.absolute()
        inside = place.is_relative_to(self._workspace.absolute())
        about = {"name": name, "path": place.relative_to(self._workspace.absolute()).as_posix() if inside else path.name,
                 "bytes": size, **({} if "hash" in about else {"hash": file_hash(path)}), **about}
        self._each("artifact", path if size <= ARTIFACT_LIMIT_BYTES else None, name, clean(about))

    def figures(self, figures):
        if figures:
            self._each("figures", figures)

    def finish(self, failed=False):
        try:
            self._each("finish", failed)
        except KeyboardInterrupt as interrupt:
            for name in self._live:
                self._abandon(name, TimeoutError(f"{interrupt}"))
            raise
        finally:
            for name in list(self._live):
                self._leave(name)

    def _each(self, method: str, *arguments) -> None:
        for name, tracker in list(self._live.items()):
            try:
                self._threads[name].call(self._deadline, getattr(tracker, method), *arguments)
            except KeyboardInterrupt:
                self._deadline = HURRY_S
                raise
            except Exception as error:  # network, quota, a crash of its service: training goes on without it
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        self._failed.add(name)
        self._leave(name)
        self._abandon(name, error)
        package = TRACKERS[name].package
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package:
            warn(f"tracker {name} is not installed: `pip install {package}` adds it; metrics.csv goes on")
        else:
            warn(f"tracker {name} stopped: {one_line(error)}; metrics.csv goes on")

    def _abandon(self, name: str, error: Exception) -> None:
        """On a thread of its own: that of the tracker may hang."""
        thread = OwnThread()
        with contextlib.suppress(Exception):
            thread.call(HURRY_S, TRACKERS[name].abandon, error)
        thread.close()

    def _leave(self, name: str) -> None:
        self._threads.pop(name).close()
        self._live.pop(name, None)


def start_tracker(names: Sequence[str], *, project: str, group: str, fold: int | None, workspace: Path, config: Mapping,
                  resume_id: str = "", parent_id: str = "", failed: set[str] | None = None, told: Path | None = None) -> Tracker:
    """Start the trackers called `names` (keys of TRACKERS) on one run, as one tracker.

    group: name of the run; fold: which of its folds, None for the parent of all. workspace: where trackers keep their files.
    resume_id: the `id` of an earlier tracker of this run; parent_id: that of the parent's. config: nested plain values, no
    patient names; see `clean`. failed: trackers that failed before, which are not tried again; those that fail now are added.
    told: file that remembers the keys of `summary` from call to call. `log` drops what is not a finite number. Raises
    InputError for an unknown name, ValueError for a picture of another dtype or shape; a tracker's own failures never pass
    through.
    """
    check_trackers(names)
    run = TrackedRun(project, group, fold, Path(workspace), config, resume_id, parent_id)
    return GuardedTrackers(names, run, set() if failed is None else failed, told)


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError that lists the known trackers, unless all names are known."""
    for name in names:
        one_of(name, list(TRACKERS), "tracker")


def parse_ids(text: str) -> dict[str, str]:
    """"wandb:a,mlflow:b" -> {"wandb": "a", "mlflow": "b"}"""
    return dict(part.split(":", 1) for part in text.split(",") if ":" in part)


def told_keys(path: Path | None) -> set[str]:
    """Keys that `summary` has told of a run, one a line; empty if there is no such file."""
    return set(path.read_text(encoding="utf-8").splitlines()) if path is not None and path.is_file() else set()


def clean(value: Any) -> Any:
    """`value` as plain nested dicts, lists, numbers and strings, without NaN, infinities and absolute paths.

    Only a string that is a path as a whole is seen (POSIX, Windows, ~, file:), not one inside a sentence.
    """
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items() if not unwanted(item)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [clean(item) for item in value if not unwanted(item)]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def unwanted(value: Any) -> bool:
    if isinstance(value, (float, np.floating)):
        return not math.isfinite(value)
    if not isinstance(value, (str, PurePath)):
        return False
    text = str(value)
    return (PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
            or text.startswith(("~", "file:")))


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without None, NaN and infinities; scalars of NumPy and torch as plain numbers."""
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in values.items()}
    return {key: value for key, value in plain.items()
            if value is not None and not (isinstance(value, float) and not math.isfinite(value))}
