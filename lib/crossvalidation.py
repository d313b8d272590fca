"""[2b] Train the folds as independent processes, and tell what became of each."""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path

import torch

from lib.checkpoints import check_fingerprint, load_checkpoint
from lib.cluster import Job, run_jobs, visible_gpus
from lib.data.store import Prepared
from lib.study import InputError, Study, training_differences, without_paths
from lib.run_tracking import begin_run, open_parent, open_parent_run
from lib.tracking import check_trackers
from lib.training import Trainer, open_fold
from lib.workspace import Workspace, write_table

TRAINING_SCRIPT = Path(__file__).resolve().parents[1] / "2a-Training.py"
COLUMNS = ("fold", "status", "attempts", "epochs", "best_epoch", "metric", "score")


def cross_validate(prepared: Prepared, study: Study, space: Workspace, name: str, folds: list[int],
                   arguments: list[str], jobs: int, resume: bool) -> list[dict]:
    """Train `folds` and return a row for each, also written to crossvalidation.csv (with the folds trained before)."""
    check_trackers(study.tracking.trackers)
    check_run(prepared, study, space, name, folds if resume else [])
    # every key is tried once here, rather than by each fold's process
    Trainer(study, open_fold(prepared, folds[0]), space.fold(name, folds[0]), torch.device("cpu"), weights_follow=True)
    failed: set[str] = set()
    if not resume:  # else a fold that goes on checks first whether the settings are those of the others
        begin_run(space, study, name)
    open_parent(space, study, name, failed)  # once, rather than by the first folds at the same time
    gpus = visible_gpus() if jobs > 1 else []
    command = [sys.executable, str(TRAINING_SCRIPT)]
    outcomes = run_jobs([Job(f"fold {k}", [*command, "-k", str(k), *arguments]) for k in folds], at_once=jobs, gpus=gpus)
    rows = {fold: fold_row(space, name, fold) for fold in sorted(prepared.splits)}
    for fold, outcome in zip(folds, outcomes):
        rows[fold]["attempts"] = outcome.attempts
        if not outcome.ok:
            rows[fold]["status"] = f"failed: {outcome.reason}"
    write_table(space.run(name) / "crossvalidation.csv", COLUMNS, rows.values())
    chosen = [rows[fold] for fold in folds]
    track_summary(study, space, name, list(rows.values()), failed)
    return chosen


def check_run(prepared: Prepared, study: Study, space: Workspace, name: str, folds: list[int]) -> None:
    """Stop before anything is trained if a fold to go on with is stale."""
    for fold in folds:
        path = space.fold(name, fold) / "last.pt"
        remedy = f"python 2b-TrainingKFolds.py {space.arguments} -n {name} --folds {fold} --no-resume"
        if path.is_file():
            try:
                found = load_checkpoint(path)
            except InputError as error:
                raise InputError(f"{error}: train the fold anew with  {remedy}") from None
            check_fingerprint(path, found["fingerprint"], prepared.fingerprint, remedy)
            changed = training_differences(found["study"], study.to_dict())
            if changed:
                raise InputError(f"{path} was trained with other settings ({'; '.join(changed)}): name a new run with "
                                 f"-n, or start it anew with  {remedy} (and the other arguments of this call)")


def fold_row(space: Workspace, name: str, fold: int) -> dict:
    path = space.fold(name, fold) / "last.pt"
    row = {"fold": fold, "status": "not trained", "attempts": 0, "epochs": 0, "best_epoch": "", "metric": "", "score": math.nan}
    if path.is_file():
        try:
            state = load_checkpoint(path)
        except InputError:
            return {**row, "status": "last.pt is not readable"}
        row |= {"status": "finished" if state["finished"] else "unfinished", "epochs": state["epoch"],
                "best_epoch": state["best_epoch"], "metric": state["metric"], "score": state["best_score"]}
    return row


def mean_sd(rows: list[dict]) -> tuple[float, float]:
    """Mean and SD (n - 1) of the validation scores of finished folds; NaN where there are too few."""
    scores = [row["score"] for row in rows if row["status"] == "finished" and math.isfinite(row["score"])]
    return (statistics.fmean(scores) if scores else math.nan,
            statistics.stdev(scores) if len(scores) > 1 else math.nan)


def table(rows: list[dict]) -> str:
    """The fold table for the screen."""
    lines = [f"{'fold':>4}  {'epochs':>6}  {'best epoch':>10}  {'validation':>24}  status"]
    for row in rows:
        score = f"{row['metric']} {row['score']:.4f}" if row["metric"] and math.isfinite(row["score"]) else row["metric"] or "-"
        best = row["best_epoch"] + 1 if row["best_epoch"] != "" else "-"
        again = f" (attempt {row['attempts']})" if row["attempts"] > 1 else ""
        lines.append(f"{row['fold']:>4}  {row['epochs']:>6}  {best:>10}  {score:>24}  {row['status']}{again}")
    mean, sd = mean_sd(rows)
    if math.isfinite(mean):
        lines.append(f"validation, mean over folds {mean:.4f}" + (f", SD {sd:.4f}" if math.isfinite(sd) else ""))
    return "\n".join(lines)


def track_summary(study: Study, space: Workspace, name: str, rows: list[dict], failed: set[str]) -> None:
    """Mean and SD over folds in the parent's run. failed: trackers that failed before."""
    mean, sd = mean_sd(rows)
    with open_parent_run(space, study, name, study.tracking.trackers, {**without_paths(study), "folds": len(rows)},
                         failed) as tracker:
        tracker.summary({"validation_mean": mean, "validation_sd": sd,
                         "folds_finished": sum(row["status"] == "finished" for row in rows)})
