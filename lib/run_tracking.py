"""What of a run goes to trackers, and when: the parent before its folds, models after training, final scores after testing."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import yaml

from lib.study import (InputError, Study, plain, study_from_dict, training_differences, without_paths,
                       without_secrets)
from lib.trackers.base import Tracker, one_line, warn
from lib.tracking import ARTIFACT_LIMIT_BYTES, TRACKERS, check_trackers, parse_ids, start_tracker, told_keys
from lib.workspace import Workspace, file_hash, write_text

IDS = "tracker_id.txt"  # of a run's parent in runs/<name>/, of a fold in runs/<name>/fold<k>/: a later call goes on with them
TOLD = "tracker_told.txt"  # beside it: the names of single values that trackers may have of this run, from whichever call
SCORED = ("test", "external")  # subsets whose scores are told
SPREAD = {"": "estimate", "_mean": "mean", "_sd": "sd", "_ci_low": "ci_low", "_ci_high": "ci_high"}  # columns of summary.csv


@contextlib.contextmanager
def open_fold_run(space: Workspace, study: Study, name: str, fold: int, config: Mapping, resume_id: str | None = None,
                  parent: str = "", failed: set[str] | None = None) -> Iterator[Tracker]:
    """The trackers of one fold. resume_id: the ids in its checkpoint, to go on with its earlier runs; None: new runs."""
    known = space.fold(name, fold) / IDS
    if resume_id is None:  # of a call that was killed before its first checkpoint, and may have had other settings
        known.unlink(missing_ok=True)
        known.with_name(TOLD).unlink(missing_ok=True)
    with start_tracker(study.tracking.trackers, project=study.tracking.project, group=name, fold=fold, workspace=space.root,
                       config=config, resume_id=join_ids(resume_id or "", read_ids(known)), parent_id=parent,
                       failed=failed, told=known.with_name(TOLD)) as tracker:
        remember(known, tracker)
        yield tracker


@contextlib.contextmanager
def open_parent_run(space: Workspace, study: Study, name: str, trackers: Sequence[str], config: Mapping,
                    failed: set[str] | None = None) -> Iterator[Tracker]:
    """The trackers of the run that stands for all folds. One process at a time, so that it is made once."""
    known = space.run(name) / IDS
    with alone(space.run(name)):
        with start_tracker(trackers, project=study.tracking.project, group=name, fold=None, workspace=space.root, config=config,
                           resume_id=read_ids(known), failed=failed, told=known.with_name(TOLD)) as tracker:
            remember(known, tracker)
            yield tracker


def begin_run(space: Workspace, study: Study, name: str) -> None:
    """Write runs/<name>/study.yaml. Trackers begin a new parent's run where the old one was trained with other settings."""
    path = space.run(name) / "study.yaml"
    if path.is_file():
        with contextlib.suppress(yaml.YAMLError, TypeError, KeyError, AttributeError):  # a damaged one tells nothing
            if training_differences(yaml.safe_load(path.read_text(encoding="utf-8")), plain(study.to_dict())):
                for file in (IDS, TOLD):
                    (space.run(name) / file).unlink(missing_ok=True)
                for tracker in study.tracking.trackers:
                    with contextlib.suppress(OSError):
                        TRACKERS[tracker].forget(space.root, name)
    write_text(path, yaml.safe_dump(without_secrets(plain(study.to_dict())), sort_keys=False))


def open_parent(space: Workspace, study: Study, name: str, failed: set[str] | None = None) -> str:
    """Make the parent's run, or see that it is there, in the trackers where folds are nested in it; its ids."""
    check_trackers(study.tracking.trackers)
    nesting = [tracker for tracker in study.tracking.trackers if TRACKERS[tracker].nests]
    if not nesting:
        return ""
    with open_parent_run(space, study, name, nesting, without_paths(study), failed) as tracker:
        return tracker.id


def track_checkpoint(tracker: Tracker, space: Workspace, study: Study, path: Path) -> None:
    """best.pt as an artifact of its fold. What is sent knows no paths of this machine, so that its bytes differ from those of
    the file, whose hash goes along."""
    if not wants_models(study.tracking):
        return
    with telling("best.pt"):
        send_checkpoint(tracker, space, path)


def send_checkpoint(tracker: Tracker, space: Workspace, path: Path) -> None:
    from lib.checkpoints import load_checkpoint, save_checkpoint
    checkpoint = load_checkpoint(path)
    about = {"fold": checkpoint["fold"], "fingerprint": checkpoint["fingerprint"], "epoch": checkpoint["epoch"],
             "metric": checkpoint["metric"], "score": checkpoint["score"], "bytes": path.stat().st_size,
             "hash": file_hash(path)}
    if path.stat().st_size > ARTIFACT_LIMIT_BYTES:
        tracker.artifact(path, path.name, about)
        return
    folder = path.with_name(f".{os.getpid()}.partial.tracked")
    try:
        shared = folder / path.name
        save_checkpoint(shared, {**checkpoint, "study": without_paths(study_from_dict(checkpoint["study"]))})
        tracker.artifact(shared, path.name, {**about, "path": path.relative_to(space.root).as_posix()})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def track_models(space: Workspace, study: Study, name: str, models: Mapping[int, Path],
                 trackers: Sequence[str] | None = None) -> None:
    """The ONNX file of each fold as an artifact of its run. trackers: those of training, if None.

    Raises InputError for an unknown tracker. Nothing happens to a run that was not trained in this workspace.
    """
    trained = trained_study(space, name, trackers)
    if trained is None or not (study.tracking.artifacts and wants_models(trained.tracking)):
        return
    failed: set[str] = set()
    for fold, path in models.items():
        if path.is_file() and space.fold(name, fold).is_dir():
            with later_fold_run(space, trained, name, fold, failed) as tracker:
                with telling(path.name):
                    tracker.artifact(path, path.name, {"fold": fold})


def track_results(space: Workspace, study: Study, name: str, rows: Sequence[Mapping], figures: Mapping[str, Path], subset: str,
                  folds: Sequence[int], trackers: Sequence[str] | None = None) -> None:
    """Final scores: of each fold in its run, mean, SD, pooled estimate and interval in the parent's, with the figures.

    What trackers have of an earlier test and this one does not define (an SD of fewer folds, a fold that is not tested any
    more) becomes NaN. rows: of summary.csv, with a column per fold. figures: PNG files by name, none with pictures of
    patients or names of cases. subset: test, or external, which is told to the parent only; of others nothing is told.
    trackers: those of training, if None. Raises InputError for an unknown tracker.
    """
    trained = trained_study(space, name, trackers)
    if trained is None or subset not in SCORED:
        return
    failed: set[str] = set()
    told = {path.parent.name.removeprefix("fold") for path in space.run(name).glob(f"fold*/{TOLD}")}
    for fold in sorted({*folds, *(int(number) for number in told if number.isdigit())}) if subset == "test" else ():
        values = earlier(space.fold(name, fold), subset) | (fold_scores(rows, fold, subset) if fold in folds else {})
        if values and space.fold(name, fold).is_dir():
            with later_fold_run(space, trained, name, fold, failed) as tracker:
                tracker.summary(values)
    with open_parent_run(space, trained, name, trained.tracking.trackers, without_paths(trained), failed) as tracker:
        tracker.summary(earlier(space.run(name), subset) | pooled_scores(rows, subset))
        tracker.figures({f"{subset}/{figure}": path for figure, path in figures.items()})


def earlier(folder: Path, subset: str) -> dict[str, float]:
    """{"test_dice": nan}: the scores of a subset that trackers may have of the run of `folder`, as not known."""
    return {key: math.nan for key in sorted(told_keys(folder / TOLD)) if key.startswith(f"{subset}_")}


def fold_scores(rows: Sequence[Mapping], fold: int, subset: str) -> dict[str, float]:
    """{"test_dice": 0.9, "test_dice/brain": 0.95}: the column of a fold, of the overall rows without the class's name."""
    return {score_name(row, subset, ""): number(row.get(f"fold{fold}")) for row in rows
            if math.isfinite(number(row.get(f"fold{fold}")))}


def pooled_scores(rows: Sequence[Mapping], subset: str) -> dict[str, float]:
    """{"test_dice": 0.9, "test_dice_mean": ..., "test_dice_sd": ..., "test_dice_ci_low": ..., "test_dice_mean/brain": ...}"""
    found = {score_name(row, subset, ending): number(row.get(column)) for row in rows for ending, column in SPREAD.items()}
    return {key: value for key, value in found.items() if math.isfinite(value)}


def score_name(row: Mapping, subset: str, ending: str) -> str:
    return f"{subset}_{row['metric']}{ending}" + ("" if row["class"] == "all" else f"/{row['class']}")


def number(value: Any) -> float:
    """A cell of summary.csv, which may be empty."""
    return math.nan if value in (None, "") else float(value)


def trained_study(space: Workspace, name: str, trackers: Sequence[str] | None) -> Study | None:
    """The study that run `name` was trained with, with other trackers if some are named; None if there is nothing to tell."""
    check_trackers(trackers or ())
    path = space.run(name) / "study.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if trackers is not None:
            values["tracking"] = {**values["tracking"], "trackers": list(trackers)}
        study = study_from_dict(values)
        check_trackers(study.tracking.trackers)
    except (OSError, yaml.YAMLError, InputError, TypeError, KeyError):  # not trained here, or by another version
        return None
    return study if set(study.tracking.trackers) - {"none"} else None


def later_fold_run(space: Workspace, trained: Study, name: str, fold: int, failed: set[str]):
    """The run of a fold that was trained before."""
    parents = read_ids(space.run(name) / IDS)
    return open_fold_run(space, trained, name, fold, {**without_paths(trained), "fold": fold},
                         checkpoint_ids(space.fold(name, fold) / "last.pt"), parents, failed)


def checkpoint_ids(path: Path) -> str:
    if (path.parent / IDS).is_file():  # knows as much, and is quicker to read
        return ""
    from lib.checkpoints import load_checkpoint
    try:
        return load_checkpoint(path).get("tracker_id", "")
    except InputError:
        return ""


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """What goes wrong while a file is read or copied for a tracker is a line on stderr; the work is done without it."""
    try:
        yield
    except (OSError, InputError) as error:
        warn(f"{what} is not tracked: {one_line(error)}")


def wants_models(tracking) -> bool:
    return tracking.artifacts and bool(set(tracking.trackers) - {"none"})


def read_ids(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def join_ids(*texts: str) -> str:
    """The ids of several texts; the last text wins."""
    ids = {name: value for text in texts for name, value in parse_ids(text).items()}
    return ",".join(f"{name}:{value}" for name, value in ids.items())


def remember(path: Path, tracker: Tracker) -> None:
    if tracker.id and tracker.id != read_ids(path):
        write_text(path, tracker.id)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Others who ask for the same folder wait; a process that ends lets go."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
