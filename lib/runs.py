"""[2a] Start one fold of a run, go on with it, or see that it is finished: its folder, log and trackers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import yaml

from lib.checkpoints import check_best, check_fingerprint, load_checkpoint
from lib.data.store import Prepared
from lib.devices import choose_device, choose_kernels
from lib.progress import no_progress, print_line
from lib.study import InputError, Study, plain, training_differences, without_paths
from lib.run_tracking import begin_run, open_fold_run, open_parent, track_checkpoint
from lib.tracking import check_trackers
from lib.training import Best, Fold, Trainer, open_fold
from lib.workspace import Workspace, alone_in, empty


def train_fold(prepared: Prepared, study: Study, space: Workspace, index: int, name: str, *, device: str = "auto",
               resume: bool = True, debug: bool = False, progress=no_progress) -> Best | None:
    """Train one fold of run `name`, or go on with it, or see that it is finished. `debug` leaves no trace.

    Raises InputError for bad input, a stale or exchanged checkpoint, a loss that is not finite, or while another process
    trains the same fold.
    """
    check_trackers(study.tracking.trackers)
    chosen = choose_device(device)
    choose_kernels(chosen)
    check_start(study, prepared, index)
    fold, folder = open_fold(prepared, index), space.fold(name, index)
    if debug:
        Trainer(study, fold, folder, chosen).debug()
        return None
    with alone_in(folder, "training"):  # from before last.pt is read until all is written
        return go_on(fold, study, space, folder, name, chosen, resume, progress)


def go_on(fold: Fold, study: Study, space: Workspace, folder: Path, name: str, chosen: torch.device, resume: bool,
          progress) -> Best:
    """The rest of `train_fold`, while no other process is in the fold's folder."""
    index = fold.index
    remedy = f"python 2a-Training.py {space.arguments} -n {name} -k {index} --no-resume"
    state = last_state(folder, fold, study, remedy) if resume else None
    if state and state["finished"]:
        return Best(state["best_epoch"], state["metric"], state["best_score"], folder / "best.pt", True)
    trainer = Trainer(study, fold, folder, chosen, weights_follow=state is not None)
    if state:
        trainer.resume(state)
    elif resume:
        check_same_run(space.run(name) / "study.yaml", study)
    else:
        empty(folder)  # only now, when the new settings are known to be good
    begin_run(space, study, name)
    failed: set[str] = set()
    parent = open_parent(space, study, name, failed)
    with RunLog(folder / "train.log") as trainer.log, open_fold_run(
            space, study, name, index, tracker_config(study, trainer), state["tracker_id"] if state else None, parent,
            failed) as trainer.tracker:
        trainer.wants_pictures = study.tracking.pictures and set(study.tracking.trackers) != {"none"}
        trainer.log(f"fold {index} of {name}: {len(fold.train)} training samples, {len(fold.validation)} validation "
                    f"cases, {chosen}{', bf16' if trainer.amp else ''}" + (f", from epoch {trainer.epoch + 1}" if state else ""))
        loaded = any(value for key, value in study.network.items() if key.endswith("weights"))
        if study.training.unfrozen_layers is not None and not loaded:
            trainer.log("WARNING: training.unfrozen_layers without network.weights (--load): the other layers stay as random as "
                        "they begin")
        if trainer.groups is not None and len(np.unique(trainer.groups)) == 1:
            trainer.log("sampler: balanced has nothing to balance: every training sample counts alike")
        if trainer.tracker.where:
            trainer.log(f"tracker: {trainer.tracker.where}")
        best = trainer.fit(progress)
        track_checkpoint(trainer.tracker, space, study, best.path)
        return best


def check_start(study: Study, prepared: Prepared, fold: int) -> None:
    """Raise InputError for `network.weights` of a checkpoint that was trained on patients whom this fold tests, or on other
    classes."""
    given = study.network.get("weights")
    if not isinstance(given, str) or not Path(given).is_file():
        return
    try:
        found = load_checkpoint(Path(given))
    except InputError:  # a state dict of another program, which says nothing of patients
        return
    if found["fingerprint"] == prepared.fingerprint and found["test_patients"] != prepared.test_hash(fold):
        raise InputError(f"{given} is a checkpoint of fold {found['fold']} of this very data, and was trained on patients whom "
                         f"fold {fold} tests: a model would be judged on patients it knows. Begin with weights of other data, or "
                         f"with the checkpoint of fold {fold}")
    classes = list(found["study"]["data"]["classes"])
    if classes != list(study.data.classes):
        raise InputError(f"{given} is a checkpoint for the classes {', '.join(classes)}, not {', '.join(study.data.classes)} in "
                         "this order: save its state_dict() without the last layer, or name the classes alike")
    if found["fingerprint"] != prepared.fingerprint:
        print_line(f"{given} was trained on other prepared data: if some of its patients are here too, scores are too good")


def check_same_run(path: Path, study: Study) -> None:
    """The folds of a run are trained alike. Raises InputError if another fold's study.yaml says otherwise."""
    trained = [fold for fold in path.parent.glob("fold*/last.pt")]
    if trained and path.is_file():
        changed = training_differences(yaml.safe_load(path.read_text(encoding="utf-8")), plain(study.to_dict()))
        if changed:
            raise InputError(f"other folds of {path.parent} were trained with other settings ({'; '.join(changed)}): "
                             "name a new run with -n, or --no-resume if this is meant")


def tracker_config(study: Study, trainer: Trainer) -> dict:
    """Settings for the tracker: no paths of this machine, no patients."""
    return {**without_paths(study), "fold": trainer.fold.index, "fingerprint": trainer.fold.prepared.fingerprint,
            "parameters": sum(p.numel() for p in trainer.network.parameters())}


def last_state(folder: Path, fold: Fold, study: Study, remedy: str) -> dict | None:
    """What last.pt says of the fold, if there is one, and in `ahead` the epoch and score of a best.pt that was kept just before
    a kill. Raises InputError if last.pt is stale, or best.pt beside it is not the one that it tells of.
    """
    path, prepared = folder / "last.pt", fold.prepared
    if not path.is_file():
        return None
    state = readable(path, remedy)
    check_fingerprint(path, state["fingerprint"], prepared.fingerprint, remedy)
    if state["fold"] != fold.index or state["test_patients"] != prepared.test_hash(fold.index):
        raise InputError(f"{path} belongs to fold {state['fold']}, not {fold.index}: start the fold anew with  {remedy}")
    changed = training_differences(state["study"], study.to_dict())
    if changed:
        raise InputError(f"{path} was trained with other settings ({'; '.join(changed)}): to go on, give the arguments of the "
                         f"first call again; name a new run with -n to keep both; or throw the old one away with  {remedy} (and "
                         "the other arguments of this call)")
    kept = folder / "best.pt"
    if not kept.is_file():
        raise InputError(f"{kept} is missing: start the fold anew with  {remedy}")
    best = readable(kept, remedy)
    ahead = not state["finished"] and best.get("epoch") == state["epoch"] and "score" in best  # the epoch to be repeated
    check_best(kept, best, state, remedy, ahead)
    if state["finished"] and not best.get("finished"):
        raise InputError(f"{kept} is from before the end of this training, without its thresholds: put the file back that was "
                         f"there, or train the fold anew with  {remedy}")
    return {**state, "ahead": (best["epoch"], best["score"]) if ahead else None}


def readable(path: Path, remedy: str) -> dict:
    """Raises InputError, with the remedy, for a damaged checkpoint."""
    try:
        return load_checkpoint(path)
    except InputError as error:
        raise InputError(f"{error}: put a whole one there, or start the fold anew with  {remedy}") from None


class RunLog:
    """Lines to the screen and, with the time, to train.log (the only place where times are written)."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> RunLog:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("a", encoding="utf-8")
        return self

    def __call__(self, line: str) -> None:
        print_line(line)
        self.file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")
        self.file.flush()

    def __exit__(self, kind, error, trace) -> None:
        if error is not None:
            self("stopped: Ctrl-C" if isinstance(error, KeyboardInterrupt) else f"stopped: {kind.__name__}: {error}")
        self.file.close()
