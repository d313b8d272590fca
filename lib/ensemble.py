"""The folds' ONNX models, each checked against the prepared data: who may judge which case."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lib.data.case import Case
from lib.data.folds import EXTERNAL
from lib.data.grid import content_hash
from lib.data.store import CaseRecord, Prepared, Samples
from lib.onnx_model import OnnxModel
from lib.prediction import BATCH, predict_cases
from lib.reporting.report.source import Source
from lib.study import InputError, Study, training_differences
from lib.tasks import make_task
from lib.workspace import Workspace, file_hash


@dataclass
class Member:
    """A fold's model with the task that uses its thresholds."""
    model: OnnxModel
    task: object


def open_models(prepared: Prepared, study: Study, space: Workspace, name: str, onnx_dir: Path | None, device: str,
                chosen: Path | None = None) -> dict[int, Member]:
    """fold -> Member, each checked against the prepared data; `chosen` is the one model that the user named.

    Raises InputError for stale or foreign models.
    """
    folder = onnx_dir or space.onnx(name)
    remedy = f"python 3-ConvertModels.py {space.arguments} -n {name}"
    members: dict[int, Member] = {}
    paths = [p for p in sorted(folder.glob("fold*.onnx")) if not p.name.endswith(".candidate.onnx")]
    for path in paths if chosen is None else [chosen]:
        model = OnnxModel(path, device)
        if model.study.name != study.name:
            raise InputError(f"{path} belongs to study {model.study.name!r}, not {study.name!r}")
        if model.meta["fingerprint"] != prepared.fingerprint:
            raise InputError(f"{path} is stale: it was made from other prepared data. Train again, then run  {remedy}")
        if model.fold in members:
            raise InputError(f"{path} and {members[model.fold].model.path} are both of fold {model.fold}: run  {remedy}")
        if model.meta["test_patients"] != prepared.test_hash(model.fold):
            raise InputError(f"{path} was trained on patients that fold {model.fold} tests now: train again, then run  {remedy}")
        first = next(iter(members.values()), None)
        changed = training_differences(first.model.meta["study"], model.meta["study"]) if first else []
        if changed and not (model.meta["chosen"] or first.model.meta["chosen"]):
            raise InputError(f"{path} was trained with other settings than {first.model.path} ({'; '.join(changed)}): "
                             f"older models are mixed in. Run  {remedy}")
        trained = space.fold(name, model.fold) / "best.pt"
        if not (chosen or model.meta["chosen"]) and trained.is_file() and model.meta.get("checkpoint") != file_hash(trained):
            raise InputError(f"{path} is stale: {trained} was trained after it was converted. Run  {remedy}")
        judged = replace(model.study, measurements=study.measurements, report=study.report)  # how it is judged is free
        members[model.fold] = Member(model, make_task(judged).with_calibration(model.meta["calibration"]))
    if not members:
        raise InputError(f"no models in {folder}: first run  {remedy}")
    return dict(sorted(members.items()))


def provider(members: dict[int, Member]) -> str:
    """What computed: CPU or CUDA."""
    return next(iter(members.values())).model.provider.removesuffix("ExecutionProvider")


def source_of(prepared: Prepared, space: Workspace, name: str, members: dict[int, Member], onnx_dir: Path | None,
              loaded: str) -> Source:
    """Where results of these models come from, for the report."""
    return Source(prepared, space, name, {fold: member.model.meta for fold, member in members.items()},
                  onnx_dir or space.onnx(name), loaded)


def provenance(prepared: Prepared, members: dict[int, Member], header: dict) -> dict:
    """From which data and which models the results came."""
    trained = next(iter(members.values())).model.meta["study"]
    return {**header, "fingerprint": prepared.fingerprint, "folds": sorted(members), "trained": trained,
            "computed_on": provider(members),
            "checkpoints": {fold: member.model.meta.get("checkpoint") for fold, member in members.items()},
            "epochs": {fold: member.model.meta["epoch"] for fold, member in members.items()},
            "finished": {fold: member.model.meta["finished"] for fold, member in members.items()}}


def voters_task(voters: list[Member]):
    """The task with the mean of the voters' thresholds."""
    tasks = [member.task for member in voters]
    return tasks[0].with_calibration(tasks[0].pooled_calibration(tasks))


def finite(outputs: dict[str, np.ndarray], case: CaseRecord, member: Member) -> dict[str, np.ndarray]:
    """The outputs of a model for a case as they are. Raises InputError if one that the task reads is not finite."""
    for name in member.task.reads:
        if name in outputs and not np.isfinite(outputs[name]).all():
            raise InputError(f"{member.model.path} answers {case.case} with numbers that are not finite: look at this case, and "
                             f"at the training of fold {member.model.fold}")
    return outputs


def vote(voters: list[Member], task, frames: np.ndarray, case: CaseRecord, samples: Samples) -> tuple[list, Any, float]:
    """(each voter's prediction of a case, all of them fused by `task`, the seconds that it took). frames: (N, C, H, W) as
    stored, in which `samples` have their rows."""
    started = time.perf_counter()
    predictions = []
    for member in voters:
        outputs = predict_cases(member.model.run, frames, [(case, samples)], member.model.study.window, BATCH)
        predictions += [member.task.decode(finite(raw, case, member), case) for _, raw in outputs]
    return predictions, task.fuse(predictions), time.perf_counter() - started


def choose_voters(prepared: Prepared, members: dict[int, Member], case: Case, notes: list[str]) -> list[Member]:
    """All models for a new case; for one of the prepared data only the model that never saw its patient."""
    content = content_hash(case)
    twin = next((known for known in prepared.cases if known.content == content), None)
    entry = case.header
    if twin is None:
        named = any(known.patient == entry.patient for known in prepared.cases)
        if named and entry.patient == entry.case:  # a name such as Patient_01, and other images: most often someone else
            notes.append(f"{entry.case}: a patient of the prepared data has this name, but other images; if it is the "
                         "same patient, the models may have trained on them")
        if not named or entry.patient == entry.case:
            return list(members.values())
    patient = entry.patient if twin is None else twin.patient
    where = {f: prepared.splits[f].get(patient) for f in members}
    if EXTERNAL in where.values():  # no model has seen it
        return list(members.values())
    fold = next((f for f, subset in where.items() if subset == "test"), None)
    known = f"other images of patient {patient}" if twin is None else f"the images of {twin.case}"
    notes.append(f"{entry.case}: {known} of the prepared data; "
                 + ("left out, because no model here has it among its test patients" if fold is None else
                    f"predicted by fold {fold} alone"))
    return [] if fold is None else [members[fold]]
