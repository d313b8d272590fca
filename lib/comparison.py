"""[4] Two tested runs side by side, paired by case: what `--compare` writes and prints. No model runs, no run is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.data.folds import EXTERNAL
from lib.data.store import Prepared
from lib.evaluation.agreement import DECISIONS, TRUE
from lib.evaluation.paired import COLUMNS, FEWEST, Key, Ranking, compare_cases, compare_sets
from lib.evaluation.statistics import RESAMPLES
from lib.evidence import EVIDENCE, read_evidence
from lib.reporting.comparison import draw_comparison, left_out, table
from lib.reporting.style import with_pdf
from lib.results import Told
from lib.study import InputError, Study, study_from_dict, training_differences
from lib.tasks import make_task
from lib.tasks.base import ALL
from lib.workspace import Workspace, building, file_hash, read_json, read_table, write_json, write_table

DIFFERENCES = ("fold", "patient", "case", "class", "metric", "a", "b", "difference_b_minus_a")
NO_SCORES = ("score", "confidence", "tolerance_truth", *DECISIONS)  # metrics of cases that say nothing of how good a run is
CLOSING = {"test": "these are numbers of test patients: report them, do not choose by them",
           EXTERNAL: "these are numbers of external test patients: report them, do not choose by them",
           "validation": "these are VALIDATION cases, which have chosen epochs and thresholds: the numbers for a paper are those "
                         "of test cases"}
MOST_LINES = 8  # of what is told in passing
Place = tuple[str, str]  # fold ("" where all folds are fused), case


@dataclass
class Side:
    """One of both: results as script 4 left them. values: (class, metric) -> place -> value, NaN where undefined; patients and
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


def compare_runs(prepared: Prepared, study: Study, space: Workspace, one: str, other: str, subset: str, progress) -> Told:
    """Compare two tested runs, B (`other`) minus A (`one`), on the cases that both have judged; returns what to tell.

    one, other: names of runs of this workspace, or results folders (with a manifest.json). subset: of named runs, test,
    validation or external; folders say themselves which it is. Writes comparison.csv, differences.csv, figures/ and
    manifest.json to compare-<B>/ in A's folder. Raises InputError for runs that cannot be compared.
    """
    a, b = (open_side(space, name, subset) for name in (one, other))
    check_pair(a, b, prepared)
    subset = a.manifest["subset"]
    places = common_places(a, b, subset)
    patients = [a.patients[place] for place in places]
    of_a, of_b = (scores_of(side.values, places) for side in (a, b))
    unlike = leave_out_unlike(of_a, of_b)
    check_truths(a, b, places)
    rows = compare_cases(of_a, of_b, patients)
    pooled = len({(place[0], patient) for place, patient in zip(places, patients)}) == len(set(patients))
    if pooled:  # a patient who validates in several folds has no one model
        rows += compare_set_numbers(a, b, places, patients, progress)
    differences = difference_rows(of_a, of_b, places, patients)
    shown = [row for row in rows if {row["metric"], f"{row['metric']}/{row['class']}"} & set(a.task.headline)]
    target = a.folder / f"compare-{b.label}"
    with building(target) as folder, with_pdf(study.report.pdf):
        write_table(folder / "comparison.csv", COLUMNS, rows)
        write_table(folder / "differences.csv", DIFFERENCES, differences)
        draw_comparison(folder / "figures", shown, differences, (a.label, b.label))
        write_json(folder / "manifest.json", manifest_of(a, b, space, places, patients))
    text = [f"A is {a.label}, B is {b.label}: {len(places)} {subset} cases of {len(set(patients))} patients, judged by both",
            *notes(a, b, patients, (of_a, of_b), pooled), table(shown), *unlike, *left_out(shown),
            CLOSING[subset]]
    return Told("\n".join(text), f"{a.label} and {b.label} compared on {len(places)} {subset} cases", str(target))


# --- what was tested ---------------------------------------------------------------------------------------------


def open_side(space: Workspace, name: str, subset: str) -> Side:
    """Results of a run, as script 4 left them. Raises InputError."""
    folder = find_folder(space, name, subset)
    again = "test it again with script 4" if folder.parent != space.root / "results" else \
        f"run  python 4-InferenceTest.py {space.arguments} -n {name}"
    try:
        manifest = read_json(folder / "manifest.json")
    except (OSError, ValueError):
        raise InputError(f"--compare: {folder / 'manifest.json'} is not readable: {again}") from None
    named = Path(name).name == name and folder.is_relative_to(space.root)
    if named and manifest.get("run") != name:
        raise InputError(f"--compare: {folder} holds the results of run {manifest.get('run')!r}, not {name!r}: {again}")
    missing = [key for key in ("study", "trained", "files", "subset", "fingerprint", "tolerance_mm") if key not in manifest]
    if missing or not (folder / EVIDENCE).is_file() or not (folder / "results.csv").is_file():
        lack = f"no {missing[0]} in manifest.json" if missing else f"no {EVIDENCE} or results.csv"
        raise InputError(f"--compare: {folder} was written by an older version ({lack}): {again}")
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
    return Side(folder, label_of(space, folder, manifest["subset"]), manifest, study, task, values, patients, evidence,
                file_hash(folder / EVIDENCE))


def find_folder(space: Workspace, name: str, subset: str) -> Path:
    """The results of a run of this workspace, or the folder itself. Raises InputError."""
    if Path(name).name == name and name not in (".", ".."):
        run = space.results(name)
        folder = run if subset == "test" else run / subset
        if (folder / "manifest.json").is_file() and not name.endswith(".partial"):  # else of a test that was killed
            return folder
        others = [one for one in ("test", "validation", EXTERNAL)
                  if (run / ("" if one == "test" else one) / "manifest.json").is_file()]
        if others and not name.endswith(".partial"):
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


def check_pair(a: Side, b: Side, prepared: Prepared) -> None:
    """Raise InputError for runs whose differences would not be those of their models."""
    both = f"--compare: {a.folder} and {b.folder}"
    if a.folder.resolve() == b.folder.resolve():
        raise InputError(f"{both} are the same results: name two runs")
    keys = [side.manifest["fingerprint"] for side in (a, b)]
    if keys[0] != keys[1]:
        raise InputError(f"{both} are of different prepared data (fingerprints {keys[0]} and {keys[1]}): a difference could come "
                         "from the data. Train and test both on the same")
    if keys[0] != prepared.fingerprint:
        raise InputError(f"{both} are stale: {prepared.folder} was prepared anew since (fingerprint {prepared.fingerprint}, not "
                         f"{keys[0]}). Train and test both again")
    facts = {"subset": lambda side: side.manifest["subset"], "kind of task": lambda side: side.study.task.get("kind"),
             "classes": lambda side: list(side.study.data.classes), "tolerance in mm": lambda side: side.manifest["tolerance_mm"]}
    for what, fact in facts.items():
        if fact(a) != fact(b):
            raise InputError(f"{both} differ in their {what}: {fact(a)} and {fact(b)}; test both in the same way")


def common_places(a: Side, b: Side, subset: str) -> list[Place]:
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


def check_truths(a: Side, b: Side, places: list[Place]) -> None:
    """Raise InputError where the same case was measured in two ways: its truth has two values."""
    for (name, metric), truths in a.values.items():
        others = b.values.get((name, metric))
        if metric.endswith(TRUE) and others:
            pairs = np.array([[values.get(place, math.nan) for place in places] for values in (truths, others)])
            unlike = ~np.isclose(*pairs, rtol=1e-6, equal_nan=True)
            if unlike.any():
                raise InputError(f"--compare: {metric} of {name} is not the same in {a.folder} and {b.folder} "
                                 f"({places[int(unlike.argmax())][1]}): they were measured in different ways; test both again")


# --- numbers -----------------------------------------------------------------------------------------------------


def scores_of(values: dict[Key, dict[Place, float]], places: list[Place]) -> dict[Key, np.ndarray]:
    """(class, metric) -> (n,) values of the places, of what is better or worse. What is read off prediction and truth alike
    (a volume, a length) counts by its error, predicted - true, and its absolute error; without a truth it does not count."""
    columns = {key: np.array([found.get(place, math.nan) for place in places], np.float64) for key, found in values.items()}
    scores = {}
    for (name, metric), column in columns.items():
        if metric.endswith(TRUE) or metric in NO_SCORES:
            continue
        if (name, metric + TRUE) in columns:
            error = column - columns[name, metric + TRUE]
            scores |= {(name, f"{metric}_error"): error, (name, f"{metric}_abs_error"): np.abs(error)}
        else:
            scores[name, metric] = column
    return scores


def leave_out_unlike(a: dict[Key, np.ndarray], b: dict[Key, np.ndarray]) -> list[str]:
    """Of means over classes, leave out (as NaN) the cases in which they are of other classes in A than in B, such as HD95 where
    only one of both has found a class: their difference would be one of classes, not of runs. Returns lines that say so."""
    lines = []
    for name, metric in list(a):
        others = [key for key in a if key[1] == metric and key[0] != ALL and key in b]
        if name == ALL and (ALL, metric) in b and others:
            unlike = np.any([np.isnan(a[key]) != np.isnan(b[key]) for key in others], axis=0)
            if unlike.any():
                for side in (a, b):
                    side[ALL, metric] = np.where(unlike, np.nan, side[ALL, metric])
                lines.append(f"{metric} of {ALL}: left out are {np.count_nonzero(unlike)} cases in which it is a mean over other "
                             "classes in A than in B")
    return lines


def compare_set_numbers(a: Side, b: Side, places: list[Place], patients: list[str], progress) -> list[dict]:
    """Rows of comparison.csv for numbers over the whole set, of the same cases in the same order."""
    metrics, ranked = [], []
    for side in (a, b):
        evidence = [side.evidence[place] for place in places]
        metrics.append(side.task.set_metrics(evidence))
        ranked.append({key: Ranking(*found) for key, found in side.task.rankings(evidence).items()})
    return compare_sets(*metrics, patients, {key: (ranked[0][key], ranked[1][key]) for key in ranked[0] if key in ranked[1]},
                        progress)


def difference_rows(a: dict[Key, np.ndarray], b: dict[Key, np.ndarray], places: list[Place], patients: list[str]) -> list[dict]:
    """Rows of differences.csv: every case of every metric that both have, where at least one has a value."""
    return [{"fold": place[0], "patient": patient, "case": place[1], "class": key[0], "metric": key[1], "a": of_a, "b": of_b,
             "difference_b_minus_a": of_b - of_a}
            for key in a if key in b
            for place, patient, of_a, of_b in zip(places, patients, a[key].tolist(), b[key].tolist())
            if not (math.isnan(of_a) and math.isnan(of_b))]


def manifest_of(a: Side, b: Side, space: Workspace, places: list[Place], patients: list[str]) -> dict:
    """From what the comparison was made; folders outside the workspace are only named."""
    def about(side: Side) -> dict:
        inside, root = side.folder.resolve(), space.root.resolve()
        return {"run": side.manifest.get("run", ""), "folder": inside.relative_to(root).as_posix() if inside.is_relative_to(root)
                else inside.name, "fingerprint": side.manifest["fingerprint"], "evidence": side.digest,
                "cases": len(side.patients)}
    return {"study": a.study.name, "subset": a.manifest["subset"], "difference": "B minus A", "a": about(a), "b": about(b),
            "cases": len(places), "patients": len(set(patients)), "resamples": RESAMPLES}


# --- what is printed ---------------------------------------------------------------------------------------------


def notes(a: Side, b: Side, patients: list[str], scores: tuple[dict[Key, np.ndarray], ...], pooled: bool) -> list[str]:
    """What a reader of the numbers must know first. patients: of every case in common; scores: of A and of B."""
    lines = []
    for letter, side in (("A", a), ("B", b)):
        if len(side.patients) > len(patients):
            lines.append(f"LEFT OUT: {len(side.patients) - len(patients)} cases that only {letter} ({side.label}) has judged")
        unfinished = [fold for fold, finished in side.manifest.get("finished", {}).items() if not finished]
        if unfinished:
            lines.append(f"UNFINISHED training behind the model of fold {', '.join(unfinished)} of {letter} ({side.label})")
    if len(set(patients)) < FEWEST:
        lines.append(f"ONLY {len(set(patients))} patient{'s' * (len(set(patients)) != 1)}: intervals of so few are too narrow, and no p of theirs says much")
    if not pooled:
        lines.append("patients validate in several folds: numbers over the whole set are not compared")
    for letter, mine, others in (("A", *scores), ("B", *scores[::-1])):
        lonely = list(dict.fromkeys(metric for name, metric in mine if (name, metric) not in others))
        if lonely:
            lines.append(f"not compared, because only {letter} has them: {', '.join(lonely)}")
    changed = training_differences(a.manifest["trained"], b.manifest["trained"])
    lines += [f"trained differently (A -> B): {line}" for line in changed[:MOST_LINES]]
    return lines + ([f"... and in {len(changed) - MOST_LINES} other keys"] if len(changed) > MOST_LINES else [])
