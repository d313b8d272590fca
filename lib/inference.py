"""[4] Each fold's model on its own test patients, or all folds together on new patients."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib.data.case import Case, CaseError, Header
from lib.data.grid import content_hash, to_grid
from lib.data.store import CaseRecord, Prepared, Samples
from lib.imaging.geometry import Fit
from lib.imaging.nifti import write_like
from lib.onnx_model import OnnxModel
from lib.prediction import predict_cases
from lib.reporting.heatmaps import write_heatmap
from lib.study import InputError, Study, training_differences
from lib.tasks import make_task
from lib.workspace import Workspace, building, write_json, write_table

RESULTS = ("study", "run", "fold", "patient", "case", "class", "metric", "value")
BATCH = 8


@dataclass
class Member:
    """A fold's model with the task that uses its thresholds."""
    model: OnnxModel
    task: object


def open_models(prepared: Prepared, study: Study, space: Workspace, name: str, onnx_dir: Path | None,
                device: str) -> dict[int, Member]:
    """fold -> Member, each checked against the prepared data. Raises InputError for stale or foreign models."""
    folder = onnx_dir or space.onnx(name)
    remedy = f"python 3-ConvertModels.py {space.arguments} -n {name}"
    members: dict[int, Member] = {}
    for path in sorted(folder.glob("fold*.onnx")):
        if path.name.endswith(".candidate.onnx"):
            continue
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
        members[model.fold] = Member(model, make_task(replace(model.study, measurements=study.measurements))
                                     .with_calibration(model.meta["calibration"]))
    if not members:
        raise InputError(f"no models in {folder}: first run  {remedy}")
    return dict(sorted(members.items()))


def test_folds(prepared: Prepared, study: Study, space: Workspace, name: str, onnx_dir: Path | None, device: str,
               progress) -> str:
    """Score every patient with the one model that never saw it; returns what to print. Raises InputError."""
    members = open_models(prepared, study, space, name, onnx_dir, device)
    header = {"study": study.name, "run": name}
    rows, evidence, cases_tested = [], [], 0
    with building(space.results(name), keep="predict-*") as folder:
        for fold, member in members.items():
            series = [(case, prepared.samples_of([case])) for case in prepared.cases_of(fold, "test")]
            outputs = predict_cases(member.model.run, prepared.frames, series, member.model.study.window, BATCH)
            seen = []
            for case, raw in progress(outputs, len(series), f"fold {fold}"):
                prediction, truth = member.task.decode(raw, case), prepared.truth(case)
                rows += tidy({**header, "fold": fold, "patient": case.patient, "case": case.case},
                             member.task.score(prediction, truth, case))
                seen.append(member.task.evidence(prediction, truth, case))
                write_outputs(folder, study, member.task, prepared.frames[case.samples], prediction, truth, case)
            rows += tidy({**header, "fold": fold}, member.task.score_set(seen))
            evidence += seen
            cases_tested += len(series)
        rows += tidy(header, next(iter(members.values())).task.score_set(evidence))
        prepared.check_unchanged()
        write_table(folder / "results.csv", RESULTS, rows)
        summary = write_summary(folder / "summary.csv", rows)
        write_json(folder / "manifest.json", provenance(prepared, members, header))
        from lib.reporting.results import draw_results
        draw_results(folder / "figures", rows)
    absent = [fold for fold in sorted(prepared.splits) if fold not in members]
    unfinished = [fold for fold, member in members.items() if not member.model.meta["finished"]]
    notes = [f"UNFINISHED training behind the model of fold {', '.join(map(str, unfinished))}"] if unfinished else []
    notes += [f"ONLY {len(members)} of {len(prepared.splits)} folds have a model; fold {', '.join(map(str, absent))} was "
             "not tested"] if absent else []
    return "\n".join([f"{cases_tested} held-out cases, each by the model of the fold that never saw it, on {provider(members)}",
                      *notes, headline(summary), f"results: {space.results(name)}"])


def provider(members: dict[int, Member]) -> str:
    """What computed: CPU or CUDA."""
    return next(iter(members.values())).model.provider.removesuffix("ExecutionProvider")


def provenance(prepared: Prepared, members: dict[int, Member], header: dict) -> dict:
    """From which data and which models the results came."""
    return {**header, "fingerprint": prepared.fingerprint, "folds": sorted(members), "computed_on": provider(members),
            "finished": {fold: member.model.meta["finished"] for fold, member in members.items()}}


def predict_folder(prepared: Prepared, study: Study, space: Workspace, name: str, root: Path, onnx_dir: Path | None,
                   device: str, progress) -> str:
    """Predict new patients with all folds together; scored where truth is present. Returns what to print.

    A case whose images were prepared for training is predicted only by the fold that tests its patient.
    """
    from lib.readers import make_reader
    members = open_models(prepared, study, space, name, onnx_dir, device)
    if not root.is_dir():
        raise InputError(f"--predict {root}: there is no such folder")
    reader = make_reader(study.data)
    scan, with_truth = reader.headers(root, labels=False), reader.headers(root, labels=True)
    if not scan.headers:
        raise InputError(f"no usable case in {root}" + "".join(f"\n  {p}" for p in scan.problems))
    labelled, usable = {h.case: h for h in with_truth.headers}, {h.case for h in scan.headers}
    notes = [f"left out: {problem}" for problem in scan.problems]
    notes += [f"predicted but not scored: {problem}" for problem in with_truth.problems
              if problem.case in usable and reader.has_truth(root, problem.case)]
    target = space.results(name) / f"predict-{root.resolve().name}"
    header, rows, evidence = {"study": study.name, "run": name}, [], []
    with building(target) as folder:
        for entry in progress(scan.headers, len(scan.headers), "predict"):
            case = read_new(reader, root, entry, labelled.get(entry.case), notes)
            voters = choose_voters(prepared, members, case, notes) if case else []
            if voters:
                scores, seen = predict_new(folder, study, voters, case)
                alone = voters[0].model.fold if len(voters) == 1 else ""
                rows += tidy({**header, "fold": alone, "patient": entry.patient, "case": entry.case}, scores)
                evidence += seen
        if not rows:
            raise InputError(f"nothing could be predicted in {root}:\n  " + "\n  ".join(notes))
        if evidence:
            rows += tidy(header, voters_task(list(members.values())).score_set(evidence))
        write_table(folder / "results.csv", RESULTS, rows)
        summary = write_summary(folder / "summary.csv", rows)
        write_json(folder / "manifest.json", provenance(prepared, members, header))
    alone = {row["case"] for row in rows if row.get("case") and row["fold"] != ""} if len(members) > 1 else set()
    return "\n".join([*notes, f"{len({row['case'] for row in rows if row.get('case')})} cases predicted by "
                      f"{len(members)} folds together on {provider(members)}"
                      f"{f' ({len(alone)} of them by one fold alone)' if alone else ''}, {len(evidence)} of them scored",
                      *([headline(summary)] if evidence else []), f"results: {target}"])


def read_new(reader, root: Path, entry: Header, labelled: Header | None, notes: list[str]) -> Case | None:
    """The case with its truth if that can be read, else without; None (and a note) if its images cannot be read."""
    if labelled is not None:
        try:
            return reader.read(root, labelled, labels=True)
        except CaseError as error:
            notes.append(f"predicted but not scored: {error.problem}")
    try:
        return reader.read(root, entry, labels=False)
    except CaseError as error:
        notes.append(f"left out: {error.problem}")
        return None


def choose_voters(prepared: Prepared, members: dict[int, Member], case: Case, notes: list[str]) -> list[Member]:
    """All models for a new case; for one of the prepared data only the model that never saw its patient."""
    content = content_hash(case)
    twin = next((known for known in prepared.cases if known.content == content), None)
    entry = case.header
    if twin is None:
        if any(known.patient == entry.patient for known in prepared.cases):
            notes.append(f"{entry.case}: a patient of the prepared data has this name, but other images; if it is the "
                         "same patient, the models may have trained on them")
        return list(members.values())
    fold = next((f for f in members if prepared.splits[f].get(twin.patient) == "test"), None)
    notes.append(f"{entry.case}: the images of {twin.case} of the prepared data; "
                 + ("left out, because the fold that tests it has no model here" if fold is None else f"predicted by fold {fold} alone"))
    return [] if fold is None else [members[fold]]


def voters_task(voters: list[Member]):
    """The task with the mean of the voters' thresholds."""
    tasks = [member.task for member in voters]
    return tasks[0].with_calibration(tasks[0].pooled_calibration(tasks))


def predict_new(folder: Path, study: Study, voters: list[Member], case: Case) -> tuple[dict, list[dict]]:
    """Predict a case that is not in the prepared arrays and write it; returns its scores, and evidence if it has truth."""
    record, task = record_of(case.header, study), voters_task(voters)
    frames = np.empty((record.shape[0], case.header.channels, *study.data.size), study.data.store)
    to_grid(case, record.fit, study, frames)
    series = [(record, whole_series(len(frames)))]
    predictions = []
    for member in voters:
        outputs = predict_cases(member.model.run, frames, series, member.model.study.window, BATCH)
        predictions += [member.task.decode(raw, record) for _, raw in outputs]
    prediction = task.fuse(predictions)
    truth = task.native_truth(case) if case.truth else None
    write_outputs(folder, study, task, frames, prediction, truth, record)
    write_volume(folder / "agreement" / f"{record.case}.nii.gz", task.agreement(predictions), record)
    if truth is None:
        return task.measure(prediction, record), []
    return task.score(prediction, truth, record), [task.evidence(prediction, truth, record)]


def record_of(header: Header, study: Study) -> CaseRecord:
    """A case that is not in the prepared arrays, as the tasks know cases."""
    return CaseRecord(0, header.case, header.patient, header.shape, header.spacing_mm, header.source, header.turn,
                      Fit.of(header.shape[1:], study.data.size, header.spacing_mm[1:]), slice(0, header.shape[0]), "")


def whole_series(frames: int) -> Samples:
    index = np.arange(frames)
    return Samples(index, index, np.zeros(frames, np.int64), np.full(frames, frames))


def tidy(cells: dict, scores: dict) -> list[dict]:
    """Rows of results.csv from {(class, metric): value}."""
    return [{**cells, "class": name, "metric": metric, "value": float(value)} for (name, metric), value in scores.items()]


def write_outputs(folder: Path, study: Study, task, frames, prediction, truth, case: CaseRecord) -> None:
    write_volume(folder / "predictions" / f"{case.case}.nii.gz", task.volume(prediction), case)
    if study.report.heatmaps:
        write_heatmap(folder / "heatmaps", task, frames, prediction, truth, case)


def write_volume(path: Path, volume: np.ndarray, case: CaseRecord) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_like(path, volume, case.source)


def write_summary(path: Path, rows: list[dict]):
    from lib.evaluation.statistics import SUMMARY_COLUMNS, summarise
    summary = summarise([{column: row.get(column, "") for column in RESULTS} for row in rows])
    records = json.loads(summary.to_json(orient="records", double_precision=15))
    write_table(path, SUMMARY_COLUMNS, records)
    return records


def headline(summary: list[dict]) -> str:
    """The numbers that a person looks for first."""
    shown = ("dice", "hd95_mm", "false_positive_ml", "presence_roc_auc", "presence_kappa", "empty_truth_cases")
    lines = [f"{'class':<16} {'metric':<18} {'mean over folds':>16} {'pooled [95 % interval]':>28} {'patients':>9}"]
    for row in summary:
        if row["metric"] not in shown or row["estimate"] is None:
            continue
        spread = "" if row["mean"] is None else f"{row['mean']:.3f}" + ("" if row["sd"] is None else f" (SD {row['sd']:.3f})")
        interval = "" if row["ci_low"] is None else f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        patients = "" if row["patients"] is None else f"{row['patients']:.0f}"
        lines.append(f"{row['class']:<16} {row['metric']:<18} {spread:>16} {row['estimate']:>10.3f}{interval:<18} {patients:>9}")
    return "\n".join(lines)
