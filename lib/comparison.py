"""[4] Two tested runs side by side, paired by case: what `--compare` writes and prints. No model runs, no run is chosen."""

from __future__ import annotations

import math

import numpy as np

from lib.data.folds import EXTERNAL
from lib.data.store import Prepared
from lib.evaluation.agreement import DECISIONS, TRUE
from lib.evaluation.paired import COLUMNS, Key, Ranking, compare_cases, compare_sets
from lib.evaluation.statistics import FEW_PATIENTS, RESAMPLES, mean_of_defined
from lib.evaluation.summary import is_asked
from lib.reporting.comparison import MOST_LINES, draw_comparison, left_out, table
from lib.reporting.style import with_pdf
from lib.results import Told
from lib.study import Study, training_differences
from lib.tasks.base import ALL
from lib.tested_run import Place, TestedRun, check_pair, check_truths, common_places, open_run
from lib.workspace import Workspace, building, write_json, write_table

FOLD_MEANS = ("fold_mean_a", "fold_mean_b")  # columns of comparison.csv behind COLUMNS
DIFFERENCES = ("fold", "patient", "case", "class", "metric", "a", "b", "difference_b_minus_a")
NO_SCORES = ("score", "confidence", "tolerance_truth", *DECISIONS)  # metrics of cases that say nothing of how good a run is
CLOSING = {"test": "these are numbers of test patients: report them, do not choose by them",
           EXTERNAL: "these are numbers of external test patients: report them, do not choose by them",
           "validation": "these are VALIDATION cases, which have chosen epochs, and any thresholds: the numbers for a paper are "
                         "those of test cases"}


def compare_runs(prepared: Prepared, study: Study, space: Workspace, one: str, other: str, subset: str | None,
                 progress) -> tuple[Told, str]:
    """Compare two tested runs, B (`other`) minus A (`one`), on the cases that both have judged; returns what to tell, and the
    name of run A.

    one, other: names of runs of this workspace, or results folders (with a manifest.json). subset: test, validation or external;
    None: test of named runs, while folders say themselves which it is. Writes comparison.csv, differences.csv, figures/ and
    manifest.json to compare-<B>/ in A's folder. Raises InputError for runs that cannot be compared.
    """
    a, b = (open_run(space, name, subset) for name in (one, other))
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
    for row, of_folds in zip(rows, fold_means(rows, a, b, places, (of_a, of_b))):
        row |= dict(zip(FOLD_MEANS, of_folds))
    differences = difference_rows(of_a, of_b, places, patients)
    shown = [row for row in rows if is_asked(row, a.task.headline)]
    target = a.folder / f"compare-{b.label}"
    with building(target) as folder, with_pdf(study.report.pdf):
        write_table(folder / "comparison.csv", (*COLUMNS, *FOLD_MEANS), rows)
        write_table(folder / "differences.csv", DIFFERENCES, differences)
        draw_comparison(folder / "figures", shown, differences, (a.label, b.label))
        write_json(folder / "manifest.json", manifest_of(a, b, space, places, patients))
    text = [f"A is {a.label}, B is {b.label}: {len(places)} {subset} cases of {len(set(patients))} patients, judged by both",
            *notes(a, b, patients, (of_a, of_b), pooled), table(shown), *unlike, *left_out(shown),
            *ranked_together(shown, a, places), CLOSING[subset]]
    told = Told("\n".join(text), f"{a.label} and {b.label} compared on {len(places)} {subset} cases", str(target))
    return told, a.manifest["run"]


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


def compare_set_numbers(a: TestedRun, b: TestedRun, places: list[Place], patients: list[str], progress) -> list[dict]:
    """Rows of comparison.csv for numbers over the whole set, of the same cases in the same order."""
    metrics, ranked = [], []
    for side in (a, b):
        evidence = [side.evidence[place] for place in places]
        metrics.append(side.task.set_metrics(evidence))
        ranked.append({key: Ranking(*found) for key, found in side.task.rankings(evidence).items()})
    return compare_sets(*metrics, patients, {key: (ranked[0][key], ranked[1][key]) for key in ranked[0] if key in ranked[1]},
                        progress)


def fold_means(rows: list[dict], a: TestedRun, b: TestedRun, places: list[Place],
               scores: tuple[dict[Key, np.ndarray], ...]) -> list[tuple[float, float]]:
    """Of each row the means over the folds' values in A and in B, NaN where all folds judged together. scores: of A and of B."""
    folds = list(dict.fromkeys(fold for fold, _ in places if fold != ""))
    inside = [np.array([place[0] == fold for place in places]) for fold in folds]
    # numbers over the set: of A and of B, of each fold
    whole = [[side.task.score_set([side.evidence[place] for place in places if place[0] == fold]) for fold in folds]
             for side in (a, b)] if any(row["level"] == "set" for row in rows) else []

    def mean(row: dict, side: int) -> float:
        key = row["class"], row["metric"]
        values = ([of_fold.get(key, math.nan) for of_fold in whole[side]] if row["level"] == "set" else
                  [mean_of_defined(scores[side][key][there]) for there in inside])
        return mean_of_defined(values)
    return [(mean(row, 0), mean(row, 1)) for row in rows]


def ranked_together(rows: list[dict], a: TestedRun, places: list[Place]) -> list[str]:
    """For ROC AUCs over several folds, what the folds' own values are: pooled, they rank scores of several models together, which
    can make a difference that no fold has."""
    metrics = {metric for _, metric in a.task.rankings([a.evidence[place] for place in places])}
    if len({fold for fold, _ in places}) < 2:
        return []
    return [f"{row['metric']} of {row['class']} ranks scores of several models together; mean over folds: "
            f"A {row['fold_mean_a']:.3f}, B {row['fold_mean_b']:.3f}"
            for row in rows if row["level"] == "set" and row["metric"] in metrics
            and not math.isnan(row["fold_mean_a"] + row["fold_mean_b"])][:MOST_LINES]


def difference_rows(a: dict[Key, np.ndarray], b: dict[Key, np.ndarray], places: list[Place], patients: list[str]) -> list[dict]:
    """Rows of differences.csv: every case of every metric that both have, where at least one has a value."""
    return [{"fold": place[0], "patient": patient, "case": place[1], "class": key[0], "metric": key[1], "a": of_a, "b": of_b,
             "difference_b_minus_a": of_b - of_a}
            for key in a if key in b
            for place, patient, of_a, of_b in zip(places, patients, a[key].tolist(), b[key].tolist())
            if not (math.isnan(of_a) and math.isnan(of_b))]


def manifest_of(a: TestedRun, b: TestedRun, space: Workspace, places: list[Place], patients: list[str]) -> dict:
    """From what the comparison was made; folders outside the workspace are only named."""
    def about(side: TestedRun) -> dict:
        inside, root = side.folder.resolve(), space.root.resolve()
        return {"run": side.manifest.get("run", ""), "folder": inside.relative_to(root).as_posix() if inside.is_relative_to(root)
                else inside.name, "fingerprint": side.manifest["fingerprint"], "evidence": side.digest,
                "cases": len(side.patients)}
    return {"study": a.study.name, "subset": a.manifest["subset"], "difference": "B minus A", "a": about(a), "b": about(b),
            "cases": len(places), "patients": len(set(patients)), "resamples": RESAMPLES}


# --- what is printed ---------------------------------------------------------------------------------------------


def notes(a: TestedRun, b: TestedRun, patients: list[str], scores: tuple[dict[Key, np.ndarray], ...], pooled: bool) -> list[str]:
    """What a reader of the numbers must know first. patients: of every case in common; scores: of A and of B."""
    lines = []
    for letter, side in (("A", a), ("B", b)):
        if len(side.patients) > len(patients):
            lines.append(f"LEFT OUT: {len(side.patients) - len(patients)} cases that only {letter} ({side.label}) has judged")
        unfinished = [fold for fold, finished in side.manifest.get("finished", {}).items() if not finished]
        if unfinished:
            lines.append(f"UNFINISHED training behind the model of fold {', '.join(unfinished)} of {letter} ({side.label})")
    if len(set(patients)) < FEW_PATIENTS:
        lines.append(f"ONLY {len(set(patients))} patient{'s' * (len(set(patients)) != 1)}: intervals of so few are too narrow, "
                     "and may contradict p")
    if not pooled:
        lines.append("patients validate in several folds: numbers over the whole set are not compared")
    for letter, mine, others in (("A", *scores), ("B", *scores[::-1])):
        lonely = list(dict.fromkeys(metric for name, metric in mine if (name, metric) not in others))
        if lonely:
            lines.append(f"not compared, because only {letter} has them: {', '.join(lonely)}")
    changed = training_differences(a.manifest["trained"], b.manifest["trained"])
    lines += [f"trained differently (A -> B): {line}" for line in changed[:MOST_LINES]]
    return lines + ([f"... and in {len(changed) - MOST_LINES} other keys"] if len(changed) > MOST_LINES else [])
