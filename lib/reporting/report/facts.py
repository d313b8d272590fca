"""What report.html tells of data and training: counts by fold, the patient flow, learning curves, which checkpoints were kept."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterable, Sequence

import yaml

from lib.data.folds import EXTERNAL
from lib.data.store import Prepared
from lib.reporting.glossary import counted
from lib.reporting.report.page import Step
from lib.selection import NO_VALIDATION
from lib.study import training_differences
from lib.workspace import Workspace, file_hash, read_table

SUBSETS = ("train", "validation", "test")
SHOWN = 12  # lines of reasons
SAME = 1e-6  # of a score, by which metrics.csv is known to be of the model


@dataclass(frozen=True)
class Source:
    """Where results come from. name: of the run; models: fold -> what the ONNX file says of itself; onnx: the folder of
    parity.csv; loaded: the one model that the user named, "" if none."""
    prepared: Prepared
    space: Workspace
    name: str
    models: dict[int, dict]
    onnx: Path
    loaded: str = ""

    @property
    def predefined(self) -> bool:
        """Whether the raw data's own subsets make the one fold."""
        return len(self.prepared.splits) == 1

    @property
    def patients_known(self) -> bool:
        """Whether it is known which images are of one patient; if not, each counts as a patient of its own."""
        return self.prepared.manifest.get("patients_known", True)

    @cached_property
    def who(self) -> str:
        """What was dealt into folds and is drawn for intervals: a patient, or (patients not being known) an image."""
        if self.patients_known:
            return "patient"
        cases = self.prepared.cases
        return "scan" if not cases[0].geometry.flat else "video" if any(c.geometry.shape[0] > 1 for c in cases) else "image"

    @property
    def some_named(self) -> bool:
        """Where patients are not known, whether those of some cases are all the same."""
        cases = self.prepared.cases
        return len({case.patient for case in cases}) < len({case.content for case in cases})

    @cached_property
    def by_hand(self) -> list[int]:
        """Folds whose checkpoint the user named, and of which no training is known to have kept it as its best."""
        return [fold for fold, model in self.models.items() if model.get("chosen") and not self._is_kept(fold, model)]

    def _is_kept(self, fold: int, model: dict) -> bool:
        run = self.space.run(self.name)
        folders = run.parent.glob("*") if self.loaded else [run]  # a loaded model may be of any run
        files = (folder / f"fold{fold}" / "best.pt" for folder in folders)
        return any(path.is_file() and file_hash(path) == model.get("checkpoint") for path in files)

    @property
    def scored(self) -> list[int]:
        """Folds that had validation patients."""
        return [fold for fold, model in self.models.items() if model["metric"] != NO_VALIDATION]

    @property
    def unscored(self) -> list[int]:
        """Folds that had none, of which training keeps the last epoch."""
        return [fold for fold in self.models if fold not in self.scored]

    @cached_property
    def tables(self) -> dict[int, list[dict]]:
        """fold -> rows of metrics.csv as numbers, of each model of the run; [] without the file."""
        return {fold: read_history(self.space.fold(self.name, fold) / "metrics.csv") for fold in self.models if not self.loaded}

    @cached_property
    def histories(self) -> dict[int, list[dict]]:
        """Those of `tables` that are there, and of the very training that the model is of."""
        return {fold: rows for fold, rows in self.tables.items() if self._tells_of(fold, rows)}

    def _tells_of(self, fold: int, rows: Sequence[dict]) -> bool:
        """Whether metrics.csv is of the very training that the model is of. Scores may be equal by chance, above all those of
        networks that have learnt nothing: a checkpoint that was named by hand must have the settings of the run too."""
        model, path = self.models[fold], self.space.run(self.name) / "study.yaml"
        if not is_of(rows, model) or fold not in self.by_hand or not path.is_file():
            return is_of(rows, model)
        return not training_differences(yaml.safe_load(path.read_text(encoding="utf-8")), model["study"])

    @property
    def foreign(self) -> list[int]:
        """Folds whose metrics.csv is of another training than the model."""
        return [fold for fold, rows in self.tables.items() if rows and fold not in self.histories]


def read_history(path: Path) -> list[dict]:
    """Rows of metrics.csv; numbers, NaN for an empty cell; [] without the file, or if somebody has damaged it."""
    if not path.is_file():
        return []
    try:
        rows = [{column: float(value) if value else math.nan for column, value in row.items() if column}
                for row in read_table(path)]
    except (ValueError, TypeError):
        return []
    return rows if all("epoch" in row for row in rows) else []


def is_of(rows: Sequence[dict], model: dict) -> bool:
    """Whether the rows of metrics.csv hold the epoch that the model is of, with its score."""
    kept = [row for row in rows if row["epoch"] == model["epoch"]]
    if not kept or model["score"] is None:
        return bool(kept)
    return math.isclose(kept[0].get(model["metric"], math.nan), model["score"], rel_tol=SAME, abs_tol=SAME)


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
