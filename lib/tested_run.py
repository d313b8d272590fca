"""The results of tested runs as script 4 left them, opened and checked: whole, unchanged, and such that two can be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.data.folds import EXTERNAL
from lib.data.store import Prepared
from lib.evaluation.agreement import TRUE
from lib.evaluation.paired import Key
from lib.evidence import EVIDENCE, read_evidence
from lib.study import InputError, Study, study_from_dict, training_differences
from lib.tasks import make_task
from lib.workspace import Workspace, file_hash, read_json, read_table

Place = tuple[str, str]  # fold ("" where all folds are fused), case


@dataclass
class TestedRun:
    """A results folder. label: what prints call it. values: (class, metric) -> place -> value, NaN where undefined; patients and
    evidence: of each place; digest: hash of evidence.npz."""
    folder: Path
    label: str
    manifest: dict
    study: Study
    task: Any
    values: dict[Key, dict[Place, float]]
    patients: dict[Place, str]
    evidence: dict[Place, dict]
    digest: str


def open_run(space: Workspace, name: str, subset: str | None) -> TestedRun:
    """Results of a run, as script 4 left them. subset: as in `compare_runs`. Raises InputError."""
    folder = find_folder(space, name, subset or "test")
    again = "test it again with script 4" if folder.parent != space.root / "results" else \
        f"run  python 4-InferenceTest.py {space.arguments} -n {name}"
    try:
        manifest = read_json(folder / "manifest.json")
    except (OSError, ValueError):
        raise InputError(f"--compare: {folder / 'manifest.json'} is not readable: {again}") from None
    named = Path(name).name == name and folder.is_relative_to(space.root)
    if named and manifest.get("run") != name:
        raise InputError(f"--compare: {folder} holds the results of run {manifest.get('run')!r}, not {name!r}: {again}")
    if "folder" in manifest and "subset" not in manifest:
        raise InputError(f"--compare: {folder} holds predictions of new cases; only results of prepared cases are compared")
    missing = [key for key in ("study", "trained", "files", "subset", "fingerprint", "tolerance_mm") if key not in manifest]
    if missing or not (folder / EVIDENCE).is_file() or not (folder / "results.csv").is_file():
        lack = f"no {missing[0]} in manifest.json" if missing else f"no {EVIDENCE} or results.csv"
        raise InputError(f"--compare: {folder} was written by an older version ({lack}): {again}")
    if subset and manifest["subset"] != subset:
        raise InputError(f"--split {subset}: {folder} holds results of {manifest['subset']} cases")
    for file, digest in manifest["files"].items():
        if file_hash(folder / file) != digest:
            raise InputError(f"--compare: {folder / file} was changed after script 4 wrote it: {again}")
    try:
        study = study_from_dict(manifest["study"])
        task = make_task(study)
    except InputError as error:
        raise InputError(f"--compare: {folder} was written by another version ({error}): {again}") from None
    values, patients = read_values(folder / "results.csv")
    found = read_evidence(folder / EVIDENCE)
    evidence = {(str(one.get("fold", "")), one.get("case", "")): one for one in found}
    if not set(evidence) == set(patients) or len(found) != len(evidence):
        raise InputError(f"--compare: {folder / EVIDENCE} and results.csv are not of the same cases: {again}")
    return TestedRun(folder, label_of(space, folder, manifest["subset"]), manifest, study, task, values, patients, evidence,
                file_hash(folder / EVIDENCE))


def find_folder(space: Workspace, name: str, subset: str) -> Path:
    """The results of a run of this workspace, or the folder itself. Raises InputError."""
    if Path(name).name == name and name not in (".", "..") and not name.endswith(".partial"):  # else of a test that was killed
        run = space.results(name)
        folder = run if subset == "test" else run / subset
        if (folder / "manifest.json").is_file():
            return folder
        others = [one for one in ("test", "validation", EXTERNAL)
                  if (run / ("" if one == "test" else one) / "manifest.json").is_file()]
        if others:
            raise InputError(f"--compare {name}: it was not tested on {subset} cases; --split {others[0]} would compare those")
    if (Path(name) / "manifest.json").is_file():
        return Path(name)
    tested = sorted(path.parent.name for path in (space.root / "results").glob("*/manifest.json")
                    if not path.parent.name.endswith(".partial"))
    raise InputError(f"--compare {name}: neither a tested run nor a folder of results with a manifest.json; tested runs here: "
                     f"{', '.join(tested) or 'none'}. Test a run with  python 4-InferenceTest.py {space.arguments} -n RUN")


def label_of(space: Workspace, folder: Path, subset: str) -> str:
    """What a run is called: its name, for results apart (of one model) with their folder's; of another workspace with its."""
    inside, root = folder.resolve(), (space.root / "results").resolve()
    parts = inside.relative_to(root).parts if inside.is_relative_to(root) else inside.parts[-3:]
    return "-".join(part for part in parts if part not in (subset, "results", "/")) or inside.name


def read_values(path: Path) -> tuple[dict[Key, dict[Place, float]], dict[Place, str]]:
    """((class, metric) -> place -> value, place -> patient) of the case rows of results.csv. Raises InputError."""
    values: dict[Key, dict[Place, float]] = {}
    patients: dict[Place, str] = {}
    try:
        for row in read_table(path):
            if row["patient"]:
                place = row["fold"], row["case"]
                patients[place] = row["patient"]
                values.setdefault((row["class"], row["metric"]), {})[place] = float(row["value"] or "nan")
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"--compare: {path} is not as script 4 wrote it ({error}): test the run again") from None
    return values, patients


def check_pair(a: TestedRun, b: TestedRun, prepared: Prepared) -> None:
    """Raise InputError for runs whose differences would not be those of their models."""
    both = f"--compare: {a.folder} and {b.folder}"
    if a.folder.resolve() == b.folder.resolve():
        raise InputError(f"{both} are the same results: name two runs")
    keys = [side.manifest["fingerprint"] for side in (a, b)]
    if keys[0] != keys[1]:
        changed = training_differences(a.manifest["trained"], b.manifest["trained"])
        what = "; ".join(line for line in changed if line.startswith("data.")) or "the raw data, or who is in which fold"
        raise InputError(f"{both} are of different prepared data (fingerprints {keys[0]} and {keys[1]}; what differs: {what}): a "
                         "difference could come from the data. Train and test both on the same")
    if keys[0] != prepared.fingerprint:
        raise InputError(f"{both} are stale: {prepared.folder} was prepared anew since (fingerprint {prepared.fingerprint}, not "
                         f"{keys[0]}). Train and test both again")
    facts = {"subset": lambda side: side.manifest["subset"], "kind of task": lambda side: side.study.task.get("kind"),
             "classes": lambda side: list(side.study.data.classes), "tolerance in mm": lambda side: side.manifest["tolerance_mm"]}
    for what, fact in facts.items():
        if fact(a) != fact(b):
            raise InputError(f"{both} differ in their {what}: {fact(a)} and {fact(b)}; test both in the same way")


def common_places(a: TestedRun, b: TestedRun, subset: str) -> list[Place]:
    """Where both have judged a case with the model of the same fold. Raises InputError."""
    common = [place for place in a.patients if place in b.patients]
    if subset != "validation":  # a patient validates in several folds, but is tested in one
        folds = {case: fold for fold, case in b.patients}
        moved = [case for fold, case in a.patients if folds.get(case, fold) != fold]
        if moved:
            raise InputError(f"--compare: {moved[0]} was judged by another fold's model in {a.folder} than in {b.folder} "
                             f"({len(moved)} such cases): test both runs again")
    if not common:
        raise InputError(f"--compare: {a.folder} and {b.folder} have no case in common: test the same folds of both")
    other = [place for place in common if a.patients[place] != b.patients[place]]
    if other:
        raise InputError(f"--compare: {other[0][1]} is of another patient in {a.folder} than in {b.folder}: test both again")
    return common


def check_truths(a: TestedRun, b: TestedRun, places: list[Place]) -> None:
    """Raise InputError where the same case was measured in two ways: its truth has two values."""
    for (name, metric), truths in a.values.items():
        others = b.values.get((name, metric))
        if metric.endswith(TRUE) and others:
            pairs = np.array([[values.get(place, math.nan) for place in places] for values in (truths, others)])
            unlike = ~np.isclose(*pairs, rtol=1e-6, equal_nan=True)
            if unlike.any():
                raise InputError(f"--compare: {metric} of {name} is not the same in {a.folder} and {b.folder} "
                                 f"({places[int(unlike.argmax())][1]}): they were measured in different ways; test both again")
