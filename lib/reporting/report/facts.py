"""What report.html tells of data and training: counts by fold and class, the patient flow, which checkpoints were kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterable, Sequence

from lib.data.folds import EXTERNAL
from lib.data.store import Prepared
from lib.reporting.glossary import counted
from lib.reporting.report.page import Step
from lib.reporting.report.source import Source
from lib.workspace import read_table

SUBSETS = ("train", "validation", "test")
SHOWN = 12  # lines of reasons


# --- words -------------------------------------------------------------------------------------------------------


def ranged(counts: Iterable[int], thing: str) -> str:
    """12 patients; 11 to 13 patients."""
    low, high = min(counts := list(counts)), max(counts)
    return counted(low, thing) if low == high else f"{low:,} to {counted(high, thing)}"


def all_folds(source: Source) -> str:
    """The folds whose models vote: all 3 folds; folds 0 and 2, where the run has more."""
    whole = len(source.models) == len(source.prepared.splits)
    return f"all {len(source.models)} folds" if whole else folds_text(sorted(source.models))


def folds_text(folds: Sequence[int], thing: str = "fold") -> str:
    """fold 2; folds 0, 1 and 4."""
    folds = [str(fold) for fold in folds]
    return f"{thing} {folds[0]}" if len(folds) == 1 else f"{thing}s {', '.join(folds[:-1])} and {folds[-1]}"


def by_hand_text(source: Source) -> str:
    """Which checkpoints the user named."""
    one, epochs = len(source.by_hand) == 1, [source.models[fold]["epoch"] + 1 for fold in source.by_hand]
    return (f"The checkpoint{'' if one else 's'} of {folds_text(source.by_hand)} {'was' if one else 'were'} named by hand "
            f"({folds_text(epochs, 'epoch')}).")


def without_places(text: str) -> str:
    """A text with files of this machine by their names alone: /home/me/data/x.png -> x.png."""
    return re.sub(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\":,;]+[/\\])+", "", str(text))


# --- data --------------------------------------------------------------------------------------------------------


def held(prepared: Prepared, fold: int, subset: str) -> tuple[int, int]:
    """(patients, cases) of a subset of a fold."""
    return len(prepared.patients(fold, subset)), len(prepared.cases_of(fold, subset))


def lost_cases(prepared: Prepared) -> set[str]:
    """Cases that were found in the raw data and could not be used."""
    return {row["case"] for row in read_if_there(prepared.folder / "rejected.csv")} - {case.case for case in prepared.cases}


def class_counts(source: Source) -> dict[str, str]:
    """class -> "16 cases of 8 patients", of the prepared data; {} where an older version has prepared it."""
    return {name: counted(held["cases"], "case")
            + (f" of {counted(held['patients'], 'patient')}" if source.patients_known else "")
            for name, held in source.prepared.manifest.get("held", {}).items()}


def is_known(source: Source, patients: int) -> int | None:
    """A number of patients, None where nobody knows whose the images are."""
    return patients if source.patients_known else None


def fold_rows(source: Source) -> list[dict]:
    """A row per fold: who is where, and how training went. Only that of the loaded model, if the user named one."""
    trained = read_if_there(source.space.run(source.name) / "crossvalidation.csv")
    told, rows = {int(row["fold"]): row for row in trained}, []
    for fold in sorted(source.models if source.loaded else source.prepared.splits):
        row: dict = {"fold": fold}
        for subset in SUBSETS:
            patients, row[f"{subset}_cases"] = held(source.prepared, fold, subset)
            row[f"{subset}_patients"] = is_known(source, patients)
        model, history = source.models.get(fold), source.histories.get(fold)
        if model:
            row |= {"epochs": int(history[-1]["epoch"]) + 1 if history else None, "best_epoch": model["epoch"] + 1,
                    "validation_metric": model["metric"] if fold in source.scored else None,
                    "validation_score": model["score"] if fold in source.scored else None,
                    "status": status_of(source, fold)}
        else:
            status = told.get(fold, {}).get("status", "not trained")
            row |= dict.fromkeys(("epochs", "best_epoch", "validation_metric", "validation_score"))
            row["status"] = f"no model ({without_places(status)})"
        rows.append(row)
    return rows


def status_of(source: Source, fold: int) -> str:
    """Of a fold with a model: how its training went, which says nothing of a checkpoint that was named by hand."""
    return "named by hand" if fold in source.by_hand else "finished" if source.models[fold]["finished"] else "unfinished"


def read_if_there(path: Path) -> list[dict[str, str]]:
    return read_table(path) if path.is_file() else []


def reasons(rejected: Sequence[dict[str, str]], where: str) -> list[str]:
    """Lines of rejected.csv; the first of many."""
    lines = [without_places(": ".join(part for part in (row["case"], row["file"], row["reason"]) if part)) for row in rejected]
    return lines[:SHOWN] + ([f"and {len(lines) - SHOWN:,} more, see {where}"] if len(lines) > SHOWN else [])


def prepared_steps(source: Source) -> list[Step]:
    """From what was found to who was dealt where."""
    prepared = source.prepared
    rejected = read_if_there(prepared.folder / "rejected.csv")
    unused = read_if_there(prepared.folder / "not_used.csv")
    lost, patients = lost_cases(prepared), is_known(source, len({case.patient for case in prepared.cases}))
    twins = len(prepared.cases) - len({case.content for case in prepared.cases})
    found = [f"{counted(len(unused), 'name')} in tables or folders belong to no case (prepared/not_used.csv)"] if unused else []
    left = [f"left out: {counted(len(lost), 'case')}", *reasons(rejected, "prepared/rejected.csv")] if rejected else []
    alike = [f"{counted(twins, 'case')} with the very images of another: such cases count as one {source.who}"] if twins else []
    steps = [Step("Found in the raw data", patients if not lost else None, len(prepared.cases) + len(lost), [*found, *left]),
             Step("Prepared", patients, len(prepared.cases), [f"{counted(len(prepared.samples), 'sample')} of "
                  f"{counted(len(prepared.frames), 'frame')}",
                  *(f"{name}: {count}" for name, count in class_counts(source).items()), *alike])]
    return [*steps, *subset_steps(source)]


def subset_steps(source: Source) -> list[Step]:
    prepared = source.prepared
    folds, steps = sorted(prepared.splits), []

    def step(label: str, subset: str) -> Step:
        patients, cases = held(prepared, folds[0], subset)
        return Step(label, is_known(source, patients), cases)

    if source.predefined:
        steps = [one for one in (step(f"Subset of the raw data: {subset}", subset) for subset in SUBSETS) if one.cases]
    else:
        inner = [case for case in prepared.cases if case.patient not in prepared.external]
        lines = [f"{subset}: {ranged([held(prepared, fold, subset)[0] for fold in folds], source.who)} in each fold"
                 for subset in SUBSETS]
        patients = is_known(source, len({case.patient for case in inner}))
        steps = [Step(f"Dealt into {len(folds)} folds", patients, len(inner), lines)]
    if prepared.external:
        steps.append(step("Extra test folders, which never train", EXTERNAL))
    return steps


def patient_flow(source: Source, subset: str, folder: Path, sheet: Sequence[dict], evidence: Sequence[dict]) -> list[Step]:
    """Steps from found to scored. subset: test, validation, external, or "" for new data, whose folder of results is
    `folder`; sheet: a row per predicted case; evidence: of the scored ones."""
    patients = is_known(source, len({one["patient"] for one in evidence}))
    judged = Step("Scored", patients, len(evidence), [] if evidence else ["no case has a truth to be scored against"])
    done = {(row["fold"], row["case"]) for row in sheet}
    if not subset:
        rejected = read_if_there(folder / "rejected.csv")
        left = [f"left out: {counted(len({row['case'] for row in rejected}), 'case')}", *reasons(rejected, "rejected.csv")]
        _, alone = voters(source, sheet)
        lines = [f"{counted(alone, 'case')} of the prepared data, {'' if alone == 1 else 'each '}by the one model that had not "
                 f"seen the {source.who}"
                 ] if alone else []
        found = len(sheet) + len({row["case"] for row in rejected})
        # whose images are whose is known by more than their names, or by these where a case is all of a patient
        named = any(row["patient"] != row["case"] for row in sheet) or all(c.patient == c.case for c in source.prepared.cases)
        whose = is_known(source, len({row["patient"] for row in sheet})) if named else None
        return [Step("Found in the new data", None, found, left if rejected else []),
                Step("Predicted", whose, len(done), lines), judged]
    lines, folds = [], sorted(source.prepared.splits)
    if not source.loaded and subset != EXTERNAL:
        absent = [fold for fold in folds if fold not in source.models]
        count = sum(held(source.prepared, fold, subset)[1] for fold in absent)
        lines = [f"not scored: {counted(count, 'case')} of {folds_text(absent)}, without a model"] if absent else []
    if source.loaded:
        lines = ["only those of the fold of the loaded model"]
    several = len({one["patient"] for one in evidence}) < len({(one["patient"], one["fold"]) for one in evidence})
    lines += [f"{'an' if source.who == 'image' else 'a'} {source.who} may validate in several folds, and counts in each"
              ] if several else []
    label = f"Scored as {'external test' if subset == EXTERNAL else subset} cases"
    return [*prepared_steps(source), Step(label, judged.patients, judged.cases, lines)]


def voters(source: Source, sheet: Sequence[dict]) -> tuple[int, int]:
    """(cases that all of several models judged together, cases that only one of several did), of new cases or of scored ones."""
    alone = sum(row["fold"] != "" for row in sheet)
    return (len(sheet) - alone, alone) if len(source.models) > 1 else (0, 0)
