"""[4] Each fold's model on the patients it never saw (or, on request, on those that chose its epoch)."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Sequence

from lib.data.folds import EXTERNAL
from lib.data.store import Prepared
from lib.ensemble import Member, finite, open_models, provenance, provider, source_of, vote, voters_task
from lib.prediction import BATCH, predict_cases
from lib.reporting.report import REPORT
from lib.results import Results, Told, check_tolerance, evidence_of, headline
from lib.study import InputError, Study
from lib.run_tracking import track_results
from lib.workspace import Workspace, building, read_json

APART = ("predict-*", "validation*", "external*", "load-*")  # folders of other calls inside a results folder: they stay
SUBSETS = ("test", "validation", EXTERNAL)
CASES = {"test": "held-out cases", "validation": "VALIDATION cases", EXTERNAL: "external test cases"}


def test_folds(prepared: Prepared, study: Study, space: Workspace, name: str, onnx_dir: Path | None, device: str,
               progress, subset: str | None = None, chosen: Path | None = None, loaded: str = "",
               trackers: Sequence[str] | None = None) -> Told:
    """Score every patient of a subset with the model that it belongs to; returns what to tell. Raises InputError.

    subset: test, validation or external; by default test, or validation where the raw data has no test cases, and external
    cases if there are any. chosen: one model that the user named, as `loaded`; its results go into a folder of their own.
    trackers: that are told of it; None: those of training.
    """
    members = open_models(prepared, study, space, name, onnx_dir, device, chosen)
    subsets = [subset] if subset else default_subsets(prepared, members)
    series = {one: {fold: [(case, prepared.samples_of([case])) for case in prepared.cases_of(fold, one)] for fold in members}
              for one in subsets}
    for one, of_folds in series.items():
        if not any(of_folds.values()):
            raise InputError(f"there are no {one} cases in fold {', '.join(map(str, of_folds))}" + {
                "validation": ": it was prepared without validation patients",
                EXTERNAL: ": no image of data.reader.test_folders was prepared"}.get(
                    one, "; --split validation scores those that chose the epoch"))
        check_tolerance(study, [case for cases in of_folds.values() for case, _ in cases])
    parts, done, reports = [], [], []
    for one, of_folds in series.items():
        target, keep = results_folder(space, name, one, loaded)
        stale = sorted(target.glob("compare-*"))  # they go with the results that they are of
        with building(target, keep=keep) as folder:
            results = Results(folder, study, source_of(prepared, space, name, members, onnx_dir, loaded))
            test = test_together if one == EXTERNAL else test_apart
            evidence = test(results, prepared, members, of_folds, progress, one)
            task = next(iter(members.values())).task
            prepared.check_unchanged()
            summary = results.finish(task, evidence, {**provenance(prepared, members, results.header), "subset": one,
                                                      "tolerance_mm": study.report.tolerance_mm, "loaded": loaded},
                                     CASES[one])
        stale += forget_comparisons(space, target)
        if not loaded:
            figures = {figure: target / "figures" / f"{figure}.png" for figure in results.figures}
            track_results(space, study, name, summary, figures, one, list(of_folds), trackers)
        parts.append("\n".join([sentence(len(evidence), one, members), *notes(prepared, members, one, bool(chosen)),
                                *(f"removed, because it compares the results of before: {path}" for path in stale),
                                headline(summary, task.headline)]))
        done.append(f"{len(evidence)} {CASES[one]} scored")
        reports.append(target / REPORT)
    return Told("\n\n".join(parts), ", ".join(done), ", ".join(map(str, reports)))


def default_subsets(prepared: Prepared, members: dict[int, Member]) -> list[str]:
    held = {subset for subset in SUBSETS if any(prepared.cases_of(fold, subset) for fold in members)}
    return ["test" if "test" in held else "validation", *([EXTERNAL] if EXTERNAL in held else [])]


def test_apart(results: Results, prepared: Prepared, members: dict[int, Member], series: dict, progress,
               subset: str) -> list[dict]:
    """Each model on its own cases, and all cases as one set; returns the evidence."""
    evidence = []
    for fold, member in members.items():
        beneath = f"fold{fold}" if subset == "validation" else ""  # a patient may validate in several folds
        seen = test_fold(results, prepared, fold, member, series[fold], progress, beneath)
        if seen:
            results.add_set(fold, member.task, seen)
        evidence += seen
    task = next(iter(members.values())).task
    if len({(e["patient"], e["fold"]) for e in evidence}) == len({e["patient"] for e in evidence}):
        results.add_set("", task, evidence)  # a patient who validates in several folds has no one model
    return evidence


def test_fold(results: Results, prepared: Prepared, fold: int, member: Member, series: list, progress,
              beneath: str) -> list[dict]:
    """One model on its own cases; returns the evidence that the set's scores need."""
    clock = Stopwatch(member.model.run)
    outputs = predict_cases(clock.run, prepared.frames, series, member.model.study.window, BATCH)
    seen = []
    for case, raw in progress(outputs, len(series), f"fold {fold}", unit="case"):
        started = time.perf_counter()
        prediction, truth = member.task.decode(finite(raw, case, member), case), prepared.truth(case)
        seconds = clock.read() + time.perf_counter() - started
        results.add_case(fold, case, member.task.score(prediction, truth, case), member.task, seconds)
        seen.append(evidence_of(member.task, fold, prediction, truth, case))
        results.write(member.task, prepared.frames[case.frames], prediction, truth, case, fold, beneath)
    return seen


def test_together(results: Results, prepared: Prepared, members: dict[int, Member], series: dict, progress,
                  subset: str) -> list[dict]:
    """All models on the same cases: rows of each case are those of the fused prediction, rows of the set are those of
    every model alone (with its fold) and of the fused predictions (without one). Returns the latter's evidence."""
    task, evidence, alone = voters_task(list(members.values())), [], {fold: [] for fold in members}
    cases = next(iter(series.values()))  # the same for every model
    for case, samples in progress(cases, len(cases), subset, unit="case"):
        truth = prepared.truth(case)
        predictions, prediction, seconds = vote(list(members.values()), task, prepared.frames, case, samples)
        for (fold, member), own in zip(members.items(), predictions):
            alone[fold].append(evidence_of(member.task, fold, own, truth, case))
        results.add_case("", case, task.score(prediction, truth, case), task, seconds)
        results.write(task, prepared.frames[case.frames], prediction, truth, case)
        results.add_agreement(task, predictions, case)
        evidence.append(evidence_of(task, "", prediction, truth, case))
    for fold, member in members.items():
        results.add_set(fold, member.task, alone[fold])
    results.add_set("", task, evidence)
    return evidence


class Stopwatch:
    """A model's `run` that adds up the seconds it takes, until they are read."""

    def __init__(self, run):
        self._run, self._seconds = run, 0.0

    def run(self, windows):
        started = time.perf_counter()
        outputs = self._run(windows)
        self._seconds += time.perf_counter() - started
        return outputs

    def read(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def results_folder(space: Workspace, name: str, subset: str, loaded: str) -> tuple[Path, tuple[str, ...]]:
    """Where results go, and what stays there: only the folds' models on their test cases are `results/<name>`."""
    parts = [f"load-{loaded}"] if loaded else []
    parts += [subset] if subset != "test" else []
    return (space.results(name) / "-".join(parts), ()) if parts else (space.results(name), APART)


def forget_comparisons(space: Workspace, target: Path) -> list[Path]:
    """Remove comparisons of other runs with the results in `target`, which were replaced. (Its own went with them.) Returns
    those that were removed."""
    removed = []
    place = target.relative_to(space.root).as_posix()
    for path in (space.root / "results").glob("**/compare-*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not one of ours, or damaged
            if read_json(path)["b"]["folder"] == place:
                shutil.rmtree(path.parent)
                removed.append(path.parent)
    return removed


def sentence(count: int, subset: str, members: dict[int, Member]) -> str:
    where = f", on {provider(members)}"
    if subset == EXTERNAL:
        if len(members) == 1:
            return f"{count} external test cases, by the model of fold {next(iter(members))}{where}"
        return (f"{count} external test cases, each by all {len(members)} models together{where} (mean over folds: each "
                "model alone; pooled: all together)")
    if subset == "test":
        return f"{count} held-out cases, each by the model of the fold that never saw it{where}"
    return (f"{count} VALIDATION cases{where}: they have chosen epochs, and any thresholds, so these scores are too good; the "
            "numbers for a paper are those of test cases")


def notes(prepared: Prepared, members: dict[int, Member], subset: str, chosen: bool) -> list[str]:
    """Unfinished and missing models."""
    absent = [fold for fold in sorted(prepared.splits) if fold not in members]
    unfinished = [fold for fold, member in members.items() if not member.model.meta["finished"]]
    lines = [f"UNFINISHED training behind the model of fold {', '.join(map(str, unfinished))}"] if unfinished else []
    if absent and not chosen:
        lines.append(f"ONLY {len(members)} of {len(prepared.splits)} folds have a model; fold "
                     f"{', '.join(map(str, absent))} {'did not vote' if subset == EXTERNAL else 'was not tested'}")
    return lines
