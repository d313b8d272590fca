"""Experiment trackers behind one small face: copies of metrics.csv for the eye, never needed by any script.

Privacy. Numbers, the cleaned configuration and pictures leave the machine only when the user is logged in to
the tracker's server; without a login everything stays in files. `tracking.pictures: false` in the study
keeps pictures out altogether (the training loop then passes none). The caller names no patient in keys or
values; as a second guard, configuration values that are absolute paths are dropped here. Nothing about the
host, its user, the source code or the console output is recorded.

A new tracker is one subclass of `Tracker` in `TRACKERS`.
"""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Mapping, Sequence

import numpy as np

from lib.study import one_of

INIT_TIMEOUT_S = 30  # without an answer from the server by then, the run is written offline
FINISH_TIMEOUT_S = 120  # what is not uploaded by then stays on disk


class Tracker:
    """The face that training sees. As it stands it is the tracker `none`: it does nothing.

    `id` (str) goes into last.pt, so that a resumed fold continues the same run; `where` says where to look.
    Steps never go back. A `with` block finishes the run, and marks it failed when an exception leaves it.
    """
    package = ""  # what pip installs when the import fails

    def __init__(self, *, project: str, run: str, group: str, job_type: str, config: dict, folder: Path,
                 resume_id: str):
        self.id = ""
        self.where = ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one step (epoch)."""

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """uint8 RGB pictures (H, W, 3) of one step, by name."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Single values of the whole run, such as the best epoch and its score."""

    def finish(self, failed: bool = False) -> None:
        """Close the run. Later calls of any method do nothing."""

    def abandon(self, error: Exception) -> None:
        """Called in place of `finish` after a failure; must not wait."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.finish(failed=kind is not None)


class WandbTracker(Tracker):
    """Weights & Biases: `<folder>/wandb/`, online when a login is found, else offline; never a prompt.

    WANDB_API_KEY, netrc, WANDB_MODE, WANDB_BASE_URL and W&B's settings files act as in any W&B program. A
    resumed offline run is a second folder with the same id; `wandb sync` uploads both to one run, in order.
    W&B closes a step's row with the next step or at the end: a killed process loses its last row here.
    """
    package = "wandb"

    def __init__(self, *, project, run, group, job_type, config, folder, resume_id):
        import wandb

        self._wandb = wandb
        known = wandb.setup(wandb.Settings(silent=True)).settings  # silent must come before login and init
        logged_in = wandb.login(prompt=False, verify=False)  # looks, asks nobody, needs no network
        arguments = dict(project=project, name=run, group=group, job_type=job_type, config=config,
                         id=resume_id or None, resume="allow", settings=self._settings(folder))
        if not logged_in and known.mode not in ("disabled", "offline", "dryrun"):
            arguments["mode"] = "offline"
        try:
            self._run = wandb.init(**arguments)
        except wandb.errors.CommError as error:  # a login, but no way to the server: common on cluster nodes
            warn(f"tracker wandb: the server did not take the run ({one_line(error)}); it is written offline")
            self._run = wandb.init(**arguments | {"mode": "offline"})
        self.id = self.where = ""
        if known.mode != "disabled":
            self.id = self._run.id
            later = f"offline, `wandb sync {Path(self._run.dir).parent}` sends it later"
            self.where = f"wandb {self._run.url or later}"

    def _settings(self, folder: Path):
        """Only what we log is recorded: no console, code, git, host, command line or package list."""
        wanted = dict(
            root_dir=str(folder.absolute()), use_dot_wandb=False, symlink=False, silent=True, console="off",
            reinit="create_new", init_timeout=INIT_TIMEOUT_S, finish_timeout=FINISH_TIMEOUT_S,
            save_code=False, disable_code=True, disable_git=True, disable_job_creation=True,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
            program="FoldScan",  # in place of the path of the running script, which goes to the server
            x_transaction_log_flush_interval=2.0,  # a killed run loses what was not flushed; default 15 s
        )
        fields = self._wandb.Settings.model_fields  # x_ settings may go, and unknown ones are refused
        return self._wandb.Settings(**{key: value for key, value in wanted.items() if key in fields})

    def log(self, step, values):
        self._run.log(dict(values), step=step)

    def pictures(self, step, pictures):
        images = {name: self._wandb.Image(pixels, file_type="png") for name, pixels in pictures.items()}
        self._run.log(images, step=step)

    def summary(self, values):
        self._run.summary.update(dict(values))

    def finish(self, failed=False):
        self._run.finish(exit_code=int(failed))

    def abandon(self, error):
        if isinstance(error, ConnectionError) or type(error).__name__ == "HandleAbandonedError":
            # its service process died: without this, W&B's exit hook would print a traceback
            with contextlib.suppress(Exception, SystemExit):
                self._wandb.teardown()


TRACKERS: dict[str, type[Tracker]] = {"none": Tracker, "wandb": WandbTracker}


class GuardedTrackers(Tracker):
    """Several trackers as one. One that fails is left out from then on, after a line on stderr."""

    def __init__(self, names, *, resume_id="", config, **run):
        ids = dict(part.split(":", 1) for part in resume_id.split(",") if ":" in part)
        self._ids = ids  # those of trackers left out this time are kept for the next
        self._live: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            try:
                tracker = TRACKERS[name](config=clean(config), resume_id=ids.get(name, ""), **run)
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
        self._each("summary", finite(values))

    def finish(self, failed=False):
        self._each("finish", failed)
        self._live.clear()

    def _each(self, method: str, *arguments) -> None:
        for name, tracker in list(self._live.items()):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # network, quota, a crash of its service: training goes on without it
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        tracker = self._live.pop(name, None)
        if tracker is not None:
            tracker.abandon(error)
        package = TRACKERS[name].package
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            warn(f"tracker {name} is not installed: `pip install {package}` adds it; metrics.csv goes on")
        else:
            warn(f"tracker {name} stopped: {one_line(error)}; metrics.csv goes on")


def start_tracker(names: Sequence[str], *, project: str, run: str, group: str, job_type: str, config: dict,
                  folder: Path, resume_id: str = "") -> Tracker:
    """Start the trackers called `names` (keys of TRACKERS) on one run, as one tracker.

    `folder` is the run's folder; each tracker writes into a folder of its own name in it. `resume_id` is the
    `id` of an earlier tracker of this run. `config`: nested plain values, no patient names; see `clean`.
    `log` drops what is not a finite number. Raises InputError for an unknown name, ValueError for a picture
    of another dtype or shape; a tracker's own failures never pass through.
    """
    check_trackers(names)
    return GuardedTrackers(names, project=project, run=run, group=group, job_type=job_type, config=config,
                           folder=Path(folder), resume_id=resume_id)


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError that lists the known trackers, unless all names are known."""
    for name in names:
        one_of(name, list(TRACKERS), "tracker")


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


def one_line(error: BaseException) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
