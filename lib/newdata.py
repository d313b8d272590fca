"""[4] New patients, predicted by all folds together; scored where truth is present."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.data.case import Case, CaseError, CaseProblem, Header
from lib.data.grid import to_grid
from lib.data.store import CaseRecord, Prepared, Samples, fit_of
from lib.ensemble import Member, choose_voters, open_models, provenance, provider, source_of, vote, voters_task
from lib.readers import make_reader
from lib.reporting.report import REPORT
from lib.results import Results, Told, check_tolerance, evidence_of, headline
from lib.study import InputError, Study
from lib.workspace import Workspace, building, read_json, text_hash, write_table


def predict_folder(prepared: Prepared, study: Study, space: Workspace, name: str, root: Path, onnx_dir: Path | None,
                   device: str, progress, chosen: Path | None = None, loaded: str = "") -> Told:
    """Predict new patients with all folds together, or with the `chosen` model, named `loaded`; returns what to tell.

    A case whose images were prepared for training is predicted only by the fold that tests its patient.
    Raises InputError.
    """
    members = open_models(prepared, study, space, name, onnx_dir, device, chosen)
    if not root.is_dir():
        raise InputError(f"--predict {root}: there is no such folder")
    reader = make_reader(study.data)
    scan = reader.headers(root, labels=False, new=True)
    if not scan.headers:
        raise InputError(f"no usable case in {root}" + "".join(f"\n  {p}" for p in scan.problems))
    notes, rejected = [*scan.notes, *(f"left out: {problem}" for problem in scan.problems)], list(scan.problems)
    labelled = with_truth(reader, root, {h.case for h in scan.headers}, notes)
    target = results_of(space.results(name), root, loaded)
    evidence, alone = [], 0
    with building(target) as folder:
        results = Results(folder, study, source_of(prepared, space, name, members, onnx_dir, loaded))
        for entry in progress(scan.headers, len(scan.headers), "predict", unit="case"):
            case = read_new(reader, root, entry, labelled.get(entry.case), notes, rejected)
            voters = choose_voters(prepared, members, case, notes) if case else []
            if voters:
                try:
                    evidence += predict_new(results, study, voters, case)
                    alone += len(voters) == 1 < len(members)
                except CaseError as error:  # such as an image without contrast, which has no z-score
                    notes.append(f"left out: {error.problem}")
                    rejected.append(error.problem)
        if not results.sheet:
            raise InputError(f"nothing could be predicted in {root}:\n  " + "\n  ".join(notes))
        if rejected:
            write_table(folder / "rejected.csv", ["case", "file", "reason"], [vars(problem) for problem in rejected])
        task = voters_task(list(members.values()))
        for fold, member in members.items() if len(members) > 1 else ():  # cases that only one fold may judge
            own = [one for one in evidence if one["fold"] == fold]
            if own:
                results.add_set(fold, member.task, own)
        if evidence:
            results.add_set("", task, evidence)
        summary = results.finish(task, evidence, {**provenance(prepared, members, results.header), "folder": place_hash(root),
                                        "loaded": loaded}, "new cases")
    by = loaded or (f"{len(members)} folds together" if alone < len(results.sheet) else "the fold that tests the patient")
    some = f" ({alone} of them by one fold alone)" if 0 < alone < len(results.sheet) else ""
    done = f"{len(results.sheet)} cases predicted by {by} on {provider(members)}{some}, {len(evidence)} of them scored"
    return Told("\n".join([*notes, *([headline(summary, task.headline)] if evidence else [])]), done, str(target / REPORT))


def place_hash(root: Path) -> str:
    """Of the folder that was predicted, without naming it."""
    return text_hash(str(root.resolve()))[:8]


def results_of(folder: Path, root: Path, loaded: str) -> Path:
    """`predict-<name>`, with a hash behind it if another folder of the same name was predicted before."""
    target = folder / f"predict-{root.resolve().name}{f'-by-{loaded}' if loaded else ''}"
    manifest = target / "manifest.json"
    other = manifest.is_file() and read_json(manifest).get("folder") != place_hash(root)
    return target.with_name(f"{target.name}-{place_hash(root)}") if other else target


def with_truth(reader, root: Path, usable: set[str], notes: list[str]) -> dict[str, Header]:
    """case -> header of those whose truth is there; what stands in the way of a truth goes into `notes`."""
    try:
        scan = reader.headers(root, labels=True, new=True)
    except InputError as error:  # no folder of masks, no table of boxes, or one that cannot be used
        notes.append(f"predicted, not scored: no truth ({error})")
        return {}
    notes += [note for note in scan.notes if note not in notes]
    nameless = [problem for problem in scan.problems if not problem.case]
    if nameless:
        notes.append(f"predicted, not scored: {len(nameless)} rows of unknown images, the first: {nameless[0]}")
        return {}
    notes += [f"predicted but not scored: {problem}" for problem in scan.problems
              if problem.case in usable and reader.has_truth(root, problem.case)]
    return {header.case: header for header in scan.headers}


def read_new(reader, root: Path, entry: Header, labelled: Header | None, notes: list[str],
             rejected: list[CaseProblem]) -> Case | None:
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
        rejected.append(error.problem)
        return None


def predict_new(results: Results, study: Study, voters: list[Member], case: Case) -> list[dict]:
    """Predict a case that is not in the prepared arrays, and write it; returns evidence if it has truth."""
    record, task = record_of(case.header, study), voters_task(voters)
    fold = voters[0].model.fold if len(voters) == 1 else ""
    frames = np.empty((record.geometry.shape[0], case.header.channels, *study.data.size), study.data.store)
    to_grid(case, record.fit, study, frames)
    predictions, prediction, seconds = vote(voters, task, frames, record, samples_of(task, len(frames)))
    truth = task.native_truth(case) if case.truth else None
    if truth is not None:
        check_tolerance(study, [record])
    scores = task.measure(prediction, record) if truth is None else task.score(prediction, truth, record)
    results.add_case(fold, record, scores, task, seconds)
    results.write(task, frames, prediction, truth, record, fold)
    results.add_agreement(task, predictions, record)
    return [] if truth is None else [evidence_of(task, fold, prediction, truth, record)]


def record_of(header: Header, study: Study) -> CaseRecord:
    """A case that is not in the prepared arrays, as the tasks know cases."""
    return CaseRecord(0, header.case, header.patient, header.geometry, fit_of(header.geometry, study.data.size),
                      slice(0, header.geometry.shape[0]), slice(0, 0), "", header.files)


def samples_of(task, frames: int) -> Samples:
    """Those of a case of so many frames, which are rows of an array of its own."""
    index = np.arange(task.samples(frames))
    return Samples(index, index, np.zeros_like(index), np.full_like(index, frames), task.whole_series)
