"""The tables of `prepared/`: which samples, which cases, and who is where in every fold."""

from __future__ import annotations

import json
from pathlib import Path

from lib.data.case import CaseProblem, Header
from lib.data.folds import deal_folds, draw_validation, split_rows
from lib.study import InputError, Study
from lib.workspace import write_table

CUT_WARNING = 0.05  # share of a region outside its parent that deserves a line


def write_tables(folder: Path, study: Study, task, headers: list[Header], facts: list[dict],
                 rejected: list[CaseProblem]) -> list[str]:
    """samples.csv, cases.csv, folds.csv, splits.csv (and rejected.csv) of the cases that were written; returns what
    the user should know."""
    names = study.data.classes
    patients, notes = group_duplicates(headers, facts)
    stop_if_wholly_cut(facts, names, study.data.inside)
    notes += cut_notes(headers, facts, names)
    write_samples(folder, headers, patients)
    write_table(folder / "cases.csv",
                ["case", "patient", "samples", "files", "geometry", "content", *(f"volume_ml_{n}" for n in names)],
                [{"case": h.case, "patient": p, "samples": h.shape[0], "files": json.dumps(h.files),
                  "geometry": json.dumps({"shape": h.shape, "spacing_mm": h.spacing_mm, "turn": h.turn,
                                          "source": h.source}), **f} for h, p, f in zip(headers, patients, facts)])
    strata = task.strata(patients, facts)
    folds = study.data.folds
    test_fold = deal_folds(list(strata), list(strata.values()), folds)
    validation = draw_validation(test_fold, strata, folds)
    write_table(folder / "folds.csv", ["patient", "fold", "stratum"],
                [{"patient": p, "fold": test_fold[p], "stratum": strata[p][0]} for p in strata])
    rows = split_rows(test_fold, validation)
    write_table(folder / "splits.csv", ["fold", "patient", "subset"], rows)
    never_training = len(set(strata) - {r["patient"] for r in rows if r["subset"] == "train"})
    short = [fold for fold, drawn in enumerate(validation)
             if 0 < len(drawn) < round(folds.valid_proportion * sum(f != fold for f in test_fold.values()))]
    if short:
        notes.append(f"validation sets are smaller than -v {folds.valid_proportion} asks, because every patient must "
                     "train in some fold")
    if not all(validation):
        notes.append("too few patients for a validation set in some folds: those folds will keep their LAST epoch")
    if never_training:
        notes.append(f"{never_training} patients never train, because two folds leave each patient one chance: "
                     "use -k 3 or more, or -v 0")
    if rejected:
        write_table(folder / "rejected.csv", ["case", "file", "reason"], [vars(problem) for problem in rejected])
    return notes


def write_samples(folder: Path, headers: list[Header], patients: list[str]) -> None:
    """One sample per frame; its series is its case."""
    rows, start = [], 0
    for header, patient in zip(headers, patients):
        stop = start + header.shape[0]
        rows += [{"sample": frame, "case": header.case, "patient": patient, "frame": frame, "series_start": start,
                  "series_stop": stop} for frame in range(start, stop)]
        start = stop
    write_table(folder / "samples.csv", ["sample", "case", "patient", "frame", "series_start", "series_stop"], rows)


def group_duplicates(headers: list[Header], facts: list[dict]) -> tuple[list[str], list[str]]:
    """Patient of each case; cases with identical images become one patient, so that no fold can leak them."""
    group = {header.patient: header.patient for header in headers}
    first: dict[str, Header] = {}
    notes = []
    for header, fact in zip(headers, facts):
        twin = first.setdefault(fact["content"], header)
        mine, other = group[header.patient], group[twin.patient]
        if mine != other:
            group = {patient: other if leader == mine else leader for patient, leader in group.items()}
            notes.append(f"{header.case} holds the very images of {twin.case}: treated as one patient")
    return [group[header.patient] for header in headers], notes


def stop_if_wholly_cut(facts: list[dict], names, inside: dict[str, str]) -> None:
    """A region that lies wholly outside its parent in every case that has it was never meant so."""
    for name in names:
        drawn = [fact[f"cut_{name}"] for fact in facts if fact[f"cut_{name}"] or fact[f"volume_ml_{name}"]]
        if drawn and min(drawn) == 1:
            raise InputError(f"{name} lies wholly outside {inside.get(name, 'its parent')} in all {len(drawn)} cases that "
                             f"have it. If one file holds both as labels, let the outer region take both values in "
                             "data.reader.label_values, such as {liver: [1, 2], tumour: 2}, or use encoding: exclusive")


def cut_notes(headers: list[Header], facts: list[dict], names) -> list[str]:
    return [f"{h.case}: {f[f'cut_{n}']:.0%} of {n} lies outside its parent region and was cut off; look at its masks"
            for h, f in zip(headers, facts) for n in names if f[f"cut_{n}"] > CUT_WARNING]
