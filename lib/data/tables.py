"""The tables of `prepared/`: which samples, which cases, and who is where in every fold."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lib.data.case import CaseProblem, Header
from lib.data.folds import (EXTERNAL, deal_folds, draw_validation, external_patients, predefined_subsets, split_rows,
                            subset_rows)
from lib.data.store import geometry_text
from lib.study import Folds, InputError, Study
from lib.workspace import write_table


def write_tables(folder: Path, study: Study, task, headers: list[Header], facts: list[dict], truths: list[list[dict]],
                 rejected: list[CaseProblem], unused: list[CaseProblem]) -> list[str]:
    """samples.csv, cases.csv, folds.csv, splits.csv (and rejected.csv, not_used.csv, and training_set.csv of truths that are
    rows) of the cases that were written; returns what the user should know. Raises InputError for a patient in two subsets."""
    patients, twins = group_duplicates(headers, facts, task)
    notes = [*twins, *alike_notes(patients), *task.notes(headers, facts)]
    counts = [task.samples(header.geometry.shape[0]) for header in headers]
    write_samples(folder, headers, patients, counts)
    about = dict.fromkeys(name for header in headers for name in header.about)
    write_table(folder / "cases.csv", ["case", "patient", "samples", "files", "geometry", *about, *facts[0]],
                [{"case": h.case, "patient": p, "samples": count, "files": json.dumps(h.files),
                  "geometry": geometry_text(h.geometry), **dict.fromkeys(about, ""), **h.about, **f}
                 for h, p, count, f in zip(headers, patients, counts, facts)])
    strata = task.strata(patients, facts)
    try:
        test_fold, rows, more = deal(headers, patients, strata, study.data.folds)
    except InputError as error:  # a twin may be why a patient is in two subsets
        raise InputError(". ".join([str(error), *twins])) from None
    held: dict[str, list[dict]] = {}
    for patient, fact in zip(patients, facts):
        held.setdefault(patient, []).append(fact)
    more += task.check_splits(rows, held)
    write_table(folder / "folds.csv", ["patient", "fold", "stratum"],
                [{"patient": p, "fold": test_fold.get(p), "stratum": strata[p][0]} for p in strata])
    write_table(folder / "splits.csv", ["fold", "patient", "subset"], rows)
    listed = [{**row, "case": header.case, "patient": patient, "subset": header.subset} for header, patient, rows_of in
              zip(headers, patients, truths) for row in rows_of]
    if listed:
        write_table(folder / "training_set.csv", list(listed[0]), listed)
    for name, problems in (("rejected.csv", rejected), ("not_used.csv", unused)):
        if problems:
            write_table(folder / name, ["case", "file", "reason"], [vars(problem) for problem in problems])
    return [*notes, *more]


def deal(headers: list[Header], patients: list[str], strata: dict, folds: Folds) -> tuple[dict, list[dict], list[str]]:
    """(patient -> fold that tests it, rows of splits.csv, notes): the raw data's own subsets, or K folds; and in every
    fold the patients of extra test folders."""
    external = external_patients(headers, patients)
    test_fold, rows, notes = deal_others(headers, patients, {p: s for p, s in strata.items() if p not in external}, folds)
    if external:
        rows += [{"fold": fold, "patient": patient, "subset": EXTERNAL} for fold in sorted({row["fold"] for row in rows})
                 for patient in strata if patient in external]
        notes = [*notes, f"{len(external)} patients of test folders train nowhere; script 4 tests them with all folds "
                         "together"]
    return test_fold, rows, notes


def deal_others(headers: list[Header], patients: list[str], strata: dict,
                folds: Folds) -> tuple[dict, list[dict], list[str]]:
    """`deal` of the patients with strata, none of whom is external."""
    subsets = predefined_subsets(headers, patients)
    if subsets:
        rows, notes = subset_rows(subsets, strata, folds)
        return {row["patient"]: 0 for row in rows if row["subset"] == "test"}, rows, notes
    test_fold = deal_folds(list(strata), list(strata.values()), folds)
    validation = draw_validation(test_fold, strata, folds)
    rows = split_rows(test_fold, validation)
    return test_fold, rows, fold_notes(test_fold, validation, rows, folds)


def fold_notes(test_fold: dict[str, int], validation: list[set[str]], rows: list[dict], folds: Folds) -> list[str]:
    """What a user should know of the folds that were dealt."""
    notes = []
    short = [fold for fold, drawn in enumerate(validation)
             if 0 < len(drawn) < round(folds.valid_proportion * sum(f != fold for f in test_fold.values()))]
    if short:
        notes.append(f"validation sets are smaller than -v {folds.valid_proportion} asks, because every patient must "
                     "train in some fold")
    if not all(validation):
        notes.append("too few patients for a validation set in some folds: those folds will keep their LAST epoch")
    never_training = len(set(test_fold) - {r["patient"] for r in rows if r["subset"] == "train"})
    if never_training:
        notes.append(f"{never_training} patients never train, because two folds leave each patient one chance: "
                     "use -k 3 or more, or -v 0")
    return notes


def alike_notes(patients: list[str]) -> list[str]:
    """Patients that may be one, because their names differ by case, by zeros before a number or by .0 behind it alone."""
    groups: dict[str, set[str]] = {}
    for patient in patients:
        groups.setdefault(re.sub(r"(?<!\d)0+(?=\d)|\.0+$", "", patient.casefold()), set()).add(patient)
    several = [" and ".join(sorted(names)) for names in groups.values() if len(names) > 1]
    return [f"patients whose names are almost the same count as different ones: {'; '.join(several[:5])}"
            f"{f' and {len(several) - 5} more' if len(several) > 5 else ''}. If they are one, spell them alike, or folds leak"
            ] if several else []


def write_samples(folder: Path, headers: list[Header], patients: list[str], counts: list[int]) -> None:
    """Samples of each case, from its first frame on; its series is its case."""
    rows, start = [], 0
    for header, patient, count in zip(headers, patients, counts):
        stop = start + header.geometry.shape[0]
        rows += [{"sample": len(rows) + index, "case": header.case, "patient": patient, "frame": start + index,
                  "series_start": start, "series_stop": stop} for index in range(count)]
        start = stop
    write_table(folder / "samples.csv", ["sample", "case", "patient", "frame", "series_start", "series_stop"], rows)


def group_duplicates(headers: list[Header], facts: list[dict], task) -> tuple[list[str], list[str]]:
    """Patient of each case; cases with identical images become one patient, so that no fold can leak them. Raises InputError
    where their truths contradict each other."""
    group = {header.patient: header.patient for header in headers}
    first: dict[str, tuple[Header, dict]] = {}
    notes, contrary = [], []
    for header, fact in zip(headers, facts):
        twin, said = first.setdefault(fact["content"], (header, fact))
        if twin is not header:
            contrary += [f"{twin.case} and {header.case}: {why}" for why in [task.contradiction(said, fact)] if why]
        mine, other = group[header.patient], group[twin.patient]
        if mine != other:
            group = {patient: other if leader == mine else leader for patient, leader in group.items()}
            notes.append(f"{header.case} holds the very images of {twin.case}: treated as one patient")
        elif twin is not header:
            notes.append(f"{header.case} holds the very images of {twin.case}, and both are counted")
    if contrary:
        raise InputError("the very same images have different truths; correct or remove one of each:\n  " + "\n  ".join(contrary))
    return [group[header.patient] for header in headers], notes
