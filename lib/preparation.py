"""[1] Raw files to memory-mapped arrays and patient folds: checked, in parallel, rebuilt only when something changed."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Sequence

import cv2
import numpy as np

from lib.data.case import CaseError, CaseProblem, Header
from lib.data.folds import check_folds, external_patients, predefined_subsets
from lib.data.grid import content_hash, to_grid
from lib.data.store import Rows, fit_of, save_truth
from lib.data.tables import write_tables
from lib.networks import check_network, check_outputs
from lib.packages import versions
from lib.progress import no_progress
from lib.readers import make_reader
from lib.selection import Selection
from lib.study import InputError, Study, differences, plain
from lib.tasks import make_task
from lib.workspace import (Workspace, broken_tables, building, file_hash, read_manifest, read_table, text_hash, write_json,
                           write_manifest)

PACKAGES = ("numpy", "nibabel", "opencv-python", "pydicom", "scikit-learn", "connected-components-3d")
DISK_RESERVE = 64 * 2**20  # bytes that must stay free beside the arrays


@dataclass
class Outcome:
    """What script 1 did. changed: why it (re)built; empty and `built` False: nothing to do."""
    built: bool
    cases: int
    samples: int
    folder: Path
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rejected: list[CaseProblem] = field(default_factory=list)


def prepare(study: Study, as_written: Study, space: Workspace, root: Path, jobs: int = 2, skip_bad: bool = False,
            progress=no_progress, asked_for: Sequence[str] = ()) -> Outcome:
    """Prepare the cases under `root`.

    as_written: the study before command-line overrides, kept so that later scripts notice an edited YAML.
    asked_for: flags that the user gave and that mean nothing where the raw data has subsets of its own.
    Raises InputError listing all cases with bad headers at once, then all with bad voxels, unless `skip_bad`.
    """
    cv2.setNumThreads(1)  # the cases are the parallel work
    # scikit-learn takes a second to import; it deals the folds once the cases are written
    threading.Thread(target=importlib.import_module, args=("sklearn.model_selection",), daemon=True).start()
    check_network(study)  # a misspelt name should not wait for script 2
    reader = make_reader(study.data)
    scan = reader.headers(root)
    notes = list(scan.notes)
    if scan.unused:
        notes.append(f"{len(scan.unused)} names that are not used are listed in {space.prepared / 'not_used.csv'}")
    if scan.ignored:
        notes.append(f"skipped (none of the study's files): {', '.join(scan.ignored)}")
    stop_if_bad(scan.problems, skip_bad)
    headers = scan.headers
    if not headers:
        raise InputError(f"no usable case in {root}: expected {reader.expected}"
                         + (f"; none of these is in {', '.join(scan.ignored[:5])}" if scan.ignored else ""))
    if not study.data.classes:
        found = reader.find_classes(root, headers)
        written = found if any(value is not None for value in found.values()) else list(found)
        notes.append(f"classes found in the data; to name them write into the study  classes: {json.dumps(written)}")
        study = replace(study, data=replace(study.data, classes=found))
        reader = make_reader(study.data)
    task = make_task(study)
    task.check_channels(len(reader.channel_names))
    check_outputs(study, task)
    Selection(study.training, task, 0, True)  # what no epoch can be chosen by should not wait for script 2 either
    check_subsets(headers, study, asked_for)
    sources = parallel(lambda header: source_hashes(root, header), headers, jobs, progress, "checking for changes")
    key = {"data": {k: v for k, v in study.to_dict()["data"].items() if k != "input"},
           "cases": {h.case: {"patient": h.patient, "subset": h.subset, "spacing_mm": h.geometry.spacing_mm, "files": s,
                              **({"labels": h.labels} if h.labels else {})}
                     for h, s in zip(headers, sources)}}
    key = plain(key)
    old = read_manifest(space.prepared)
    if old and old["study"]["name"] != study.name:
        raise InputError(f"{space.prepared} holds the prepared data of study {old['study']['name']!r}, not {study.name!r}: name "
                         "another workspace with -o, or remove that folder")
    unreadable = [str(problem) for problem in scan.problems]
    changed = [*differences(old["key"], key), *differences(old.get("unreadable", []), unreadable, "bad cases")] if old else []
    if old and not changed:
        changed = [f"{name} was changed by hand" for name in broken_tables(space.prepared, old)]
    if old and not changed:
        changed = missing_arrays(space.prepared)
    if old and not changed and (skip_bad or not old["rejected"]):
        refresh(space.prepared, old, study, as_written)
        return Outcome(False, len(headers), old["targets_shape"][0], space.prepared, [], notes, scan.problems)

    with building(space.prepared) as folder:
        kept, rejected = fill(folder, reader, task, study, root, headers, jobs, skip_bad, space.prepared.parent,
                              progress)
        rejected = [*scan.problems, *rejected]
        of_data = reader.remarks(kept.headers) if hasattr(reader, "remarks") else []
        of_data += write_tables(folder, study, task, kept.headers, kept.facts, kept.truths, rejected, scan.unused)
        notes += of_data
        manifest = {
            "study": study.to_dict(), "data_as_written": as_written.to_dict()["data"], "key": key,
            "fingerprint": text_hash(key, file_hash(folder / "splits.csv")), "channels": list(reader.channel_names),
            "patients_known": scan.patients_known, "notes": [*scan.notes, *of_data],
            "methods": reader.methods(kept.headers),  # what report.html says of the reading
            "unreadable": unreadable, "rejected": [str(problem) for problem in rejected],
            "frames_shape": list(kept.frames_shape), "targets_shape": list(kept.targets_shape),
            "whole_series": task.whole_series, "held": held_classes(task, kept.headers, kept.facts),
            "packages": versions(PACKAGES),
        }
        write_manifest(folder, plain(manifest))
    return Outcome(True, len(kept.headers), kept.targets_shape[0], space.prepared, changed, notes, rejected)


def held_classes(task, headers: Sequence[Header], facts: Sequence[dict]) -> dict[str, dict[str, int]]:
    """class -> how many patients and cases have it."""
    present = np.stack(task.present_in(facts))
    patients = np.array([header.patient for header in headers])
    return {name: {"patients": len(set(patients[has])), "cases": int(has.sum())} for name, has in zip(task.classes, present.T)}


def missing_arrays(prepared: Path) -> list[str]:
    """What of the arrays is gone."""
    gone = [name for name in ("frames.npy", "targets.npy") if not (prepared / name).is_file()]
    known = len(read_table(prepared / "cases.csv"))
    truths = len(list((prepared / "truth").glob("*.npy")))
    return [f"{name} is missing" for name in gone] + ([f"{known - truths} truths are missing"] if truths < known else [])


def refresh(prepared: Path, manifest: dict, study: Study, as_written: Study) -> None:
    """Keys that shape nothing may have moved (a value from the command line into the YAML): the manifest follows."""
    now = plain({"study": study.to_dict(), "data_as_written": as_written.to_dict()["data"]})
    if any(manifest[name] != value for name, value in now.items()):
        write_json(prepared / "manifest.json", {**manifest, **now})  # the seal of the tables stays as it is


def check_subsets(headers: list[Header], study: Study, asked_for: Sequence[str]) -> None:
    """Raise InputError for too few patients, a patient in two of the raw data's own subsets, or flags against these."""
    patients = [header.patient for header in headers]
    external = external_patients(headers, patients)
    subsets = set(predefined_subsets(headers, patients).values())
    for flag in asked_for:
        if flag == "-k" and subsets or flag == "-v" and "validation" in subsets:
            raise InputError(f"{flag}: the input has its own {', '.join(sorted(subsets))} folders, which make one fold; to "
                             "deal all of it into folds instead, add --set data.folds.pool=true")
    if not subsets:
        check_folds(len(set(patients) - external), study.data.folds)


def source_hashes(root: Path, header: Header) -> dict[str, str]:
    try:
        return {file: file_hash(root / file) for file in header.files.values()}
    except OSError as error:
        raise InputError(f"{header.case}: {error.filename}: cannot be read ({error.strerror})") from None


def stop_if_bad(problems: list[CaseProblem], skip_bad: bool) -> None:
    lines = "\n  ".join(str(problem) for problem in problems if not (skip_bad and problem.case))
    if lines and skip_bad:
        raise InputError(f"--skip-bad leaves out cases, but of these nobody knows the case:\n  {lines}")
    if lines:
        cases = len({problem.case for problem in problems})
        raise InputError(f"{cases} case{'s' if cases > 1 else ''} cannot be used (--skip-bad leaves such cases out):\n"
                         f"  {lines}")


def parallel(function, items, jobs: int, progress, headline: str) -> list:
    """function(item) for each item, in order, in `jobs` threads (the work is in zlib, OpenCV and NumPy)."""
    pool = ThreadPoolExecutor(jobs if jobs > 0 else max(1, cores() + 1 + jobs))
    try:
        results = pool.map(function, items)
        return list(progress(results, len(items), headline, unit="case"))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, no other item is begun


def cores() -> int:
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Filled:
    """Per case that was written: its header, its content hash with the task's facts, and its truth where that is rows."""
    headers: list[Header]
    facts: list[dict]
    truths: list[list[dict]]
    frames_shape: tuple[int, ...]
    targets_shape: tuple[int, ...]


def fill(folder, reader, task, study, root, headers, jobs, skip_bad, workspace, progress) -> tuple[Filled, list[CaseProblem]]:
    """Write the arrays, each worker straight into its rows. Bad cases found on the way are left out and it starts over."""
    rejected: list[CaseProblem] = []
    while True:
        lengths = [h.geometry.shape[0] for h in headers]
        starts, firsts = np.cumsum([0, *lengths]), np.cumsum([0, *map(task.samples, lengths)])
        data = study.data
        frames_shape = (int(starts[-1]), headers[0].channels, *data.size)
        targets_shape = task.targets_shape(int(firsts[-1]), data.size)
        check_disk(workspace, ((frames_shape, data.store), (targets_shape, task.targets_dtype)),
                   sum(task.truth_bytes(h.geometry.shape) for h in headers))
        frames_file = Rows(folder / "frames.npy", np.dtype(data.store), frames_shape)
        targets_file = Rows(folder / "targets.npy", np.dtype(task.targets_dtype), targets_shape)
        (folder / "truth").mkdir(exist_ok=True)

        def write(index: int) -> tuple[dict, list[dict]] | CaseProblem:
            try:
                case = reader.read(root, headers[index])
                headers[index] = case.header  # pixels may have told more about it
                truth = task.native_truth(case)
                fit = fit_of(case.header.geometry, data.size)
                frames = np.empty((starts[index + 1] - starts[index], *frames_shape[1:]), data.store)
                to_grid(case, fit, study, frames)
                frames_file.write(starts[index], frames)
                targets_file.write(firsts[index], task.encode(truth, fit))
                save_truth(folder, index, truth)
                return ({"content": content_hash(case), **task.facts(case, truth)},
                        task.truth_records(truth, case.header))
            except CaseError as error:
                return error.problem

        with frames_file, targets_file:
            written = parallel(write, range(len(headers)), jobs, progress, "preparing")
        bad = [one for one in written if isinstance(one, CaseProblem)]
        if not bad:
            facts, truths = zip(*written)
            return Filled(headers, list(facts), list(truths), frames_shape, targets_shape), rejected
        stop_if_bad(bad, skip_bad)
        rejected += bad
        names = {problem.case for problem in bad}
        headers = [h for h in headers if h.case not in names]
        if not headers:
            raise InputError("every case is bad:\n  " + "\n  ".join(map(str, rejected)))
        shutil.rmtree(folder / "truth")


def check_disk(workspace: Path, arrays: Sequence[tuple[tuple[int, ...], str]], truth: int) -> None:
    """Raise InputError if arrays of these (shape, dtype) and `truth` bytes beside them do not fit on the disk."""
    needed = truth + sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize for shape, kind in arrays)
    free = shutil.disk_usage(workspace).free
    if needed + DISK_RESERVE > free:
        raise InputError(f"{workspace} has {free / 2**30:.2f} GiB free, but the arrays need {needed / 2**30:.2f} GiB: "
                         "free some space, or put the workspace on another disk with -o/--workspace")


def describe(outcome: Outcome) -> tuple[list[str], str]:
    """(lines to print after `prepare`, what was done in one)."""
    lines = list(outcome.notes)
    if not outcome.built:
        return lines, f"nothing has changed: {outcome.cases} cases are prepared"
    if outcome.changed:
        shown = outcome.changed[:8] + ([f"and {len(outcome.changed) - 8} more"] if len(outcome.changed) > 8 else [])
        lines.append("prepared again, because of:  " + ";  ".join(shown))
    lines += [f"left out: {problem}" for problem in outcome.rejected]
    if outcome.rejected:
        cases = len({problem.case for problem in outcome.rejected})
        lines.append(f"{cases} case{'s' if cases > 1 else ''} left out, listed in {outcome.folder / 'rejected.csv'}")
    folds = len({row["fold"] for row in read_table(outcome.folder / "splits.csv")})
    patients = len({row["patient"] for row in read_table(outcome.folder / "cases.csv")})
    return lines, (f"{outcome.cases} cases of {patients} patient{'s' * (patients != 1)}, {outcome.samples} samples, {folds} "
                   f"fold{'s' * (folds > 1)}")
