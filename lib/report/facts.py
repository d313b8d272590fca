"""What report.html tells of data and training: counts by fold, the patient flow, learning curves, where all of it came from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Iterable, Sequence

from lib.data.folds import EXTERNAL
from lib.data.store import Prepared
from lib.reporting.page import Step
from lib.selection import NO_VALIDATION
from lib.workspace import Workspace, read_table

SUBSETS = ("train", "validation", "test")
# what script 4 computes with
RUNNING = ("onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "pandas", "scikit-learn", "opencv-python", "matplotlib")
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

    @cached_property
    def tables(self) -> dict[int, list[dict]]:
        """fold -> rows of metrics.csv as numbers, of each model of the run; [] without the file."""
        return {fold: read_history(self.space.fold(self.name, fold) / "metrics.csv") for fold in self.models if not self.loaded}

    @property
    def histories(self) -> dict[int, list[dict]]:
        """Those of `tables` that are there, and of the very training that the model is of."""
        return {fold: rows for fold, rows in self.tables.items() if is_of(rows, self.models[fold])}

    @property
    def foreign(self) -> list[int]:
        """Folds whose metrics.csv is of another training than the model."""
        return [fold for fold, rows in self.tables.items() if rows and not is_of(rows, self.models[fold])]


def read_history(path: Path) -> list[dict]:
    """Rows of metrics.csv; numbers, NaN for an empty cell; [] without the file."""
    if not path.is_file():
        return []
    return [{column: float(value) if value else math.nan for column, value in row.items() if column} for row in read_table(path)]


def is_of(rows: Sequence[dict], model: dict) -> bool:
    """Whether the rows of metrics.csv hold the epoch that the model is of, with its score."""
    kept = [row for row in rows if row["epoch"] == model["epoch"]]
    if not kept or model["score"] is None:
        return bool(kept)
    return math.isclose(kept[0].get(model["metric"], math.nan), model["score"], rel_tol=SAME, abs_tol=SAME)


# --- words -------------------------------------------------------------------------------------------------------


def counted(count: int, thing: str) -> str:
    """1 patient, 1,250 patients."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def ranged(counts: Iterable[int], thing: str) -> str:
    """12 patients; 11 to 13 patients."""
    low, high = min(counts := list(counts)), max(counts)
    return counted(low, thing) if low == high else f"{low:,} to {counted(high, thing)}"


def folds_text(folds: Sequence[int]) -> str:
    """fold 2; folds 0, 1 and 4."""
    folds = [str(fold) for fold in folds]
    return f"fold {folds[0]}" if len(folds) == 1 else f"folds {', '.join(folds[:-1])} and {folds[-1]}"


def without_places(text: str) -> str:
    """A text with files of this machine by their names alone: /home/me/data/x.png -> x.png."""
    return re.sub(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\":,;]+[/\\])+", "", str(text))


# --- data --------------------------------------------------------------------------------------------------------


def held(prepared: Prepared, fold: int, subset: str) -> tuple[int, int]:
    """(patients, cases) of a subset of a fold."""
    return len(prepared.patients(fold, subset)), len(prepared.cases_of(fold, subset))


def fold_rows(source: Source) -> list[dict]:
    """A row per fold: who is where, and how training went. Only that of the loaded model, if the user named one."""
    trained = read_if_there(source.space.run(source.name) / "crossvalidation.csv")
    told, rows = {int(row["fold"]): row for row in trained}, []
    for fold in sorted(source.models if source.loaded else source.prepared.splits):
        row: dict = {"fold": fold}
        for subset in SUBSETS:
            row[f"{subset}_patients"], row[f"{subset}_cases"] = held(source.prepared, fold, subset)
        model, history = source.models.get(fold), source.histories.get(fold)
        if model:
            scored = model["score"] is not None and model["metric"] != NO_VALIDATION
            row |= {"epochs": int(history[-1]["epoch"]) + 1 if history else None, "best_epoch": model["epoch"] + 1,
                    "validation_metric": model["metric"], "validation_score": model["score"] if scored else None,
                    "status": "finished" if model["finished"] else "unfinished"}
        else:
            status = told.get(fold, {}).get("status", "not trained")
            row |= dict.fromkeys(("epochs", "best_epoch", "validation_metric", "validation_score"))
            row["status"] = f"no model ({without_places(status)})"
        rows.append(row)
    return rows


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
    lost = {row["case"] for row in rejected} - {case.case for case in prepared.cases}
    patients = len({case.patient for case in prepared.cases})
    twins = len(prepared.cases) - len({case.content for case in prepared.cases})
    found = [f"{counted(len(unused), 'name')} in tables or folders belong to no case (prepared/not_used.csv)"] if unused else []
    left = [f"left out: {counted(len(lost), 'case')}", *reasons(rejected, "prepared/rejected.csv")] if rejected else []
    alike = [f"{counted(twins, 'case')} with the very images of another: such cases count as one patient"] if twins else []
    steps = [Step("Found in the raw data", patients if not lost else None, len(prepared.cases) + len(lost), [*found, *left]),
             Step("Prepared", patients, len(prepared.cases), [f"{counted(len(prepared.samples), 'sample')} of "
                  f"{counted(len(prepared.frames), 'frame')}", *alike])]
    return [*steps, *subset_steps(source)]


def subset_steps(source: Source) -> list[Step]:
    prepared = source.prepared
    folds, steps = sorted(prepared.splits), []
    if source.predefined:
        steps = [Step(f"Subset of the raw data: {subset}", *held(prepared, folds[0], subset)) for subset in SUBSETS]
        steps = [step for step in steps if step.cases]
    else:
        inner = [case for case in prepared.cases if case.patient not in prepared.external]
        lines = [f"{subset}: {ranged([held(prepared, fold, subset)[0] for fold in folds], 'patient')} in each fold"
                 for subset in SUBSETS]
        steps = [Step(f"Dealt into {len(folds)} folds", len({case.patient for case in inner}), len(inner), lines)]
    if prepared.external:
        steps.append(Step("Extra test folders, which never train", *held(prepared, folds[0], EXTERNAL)))
    return steps


def patient_flow(source: Source, subset: str, folder: Path, sheet: Sequence[dict], evidence: Sequence[dict]) -> list[Step]:
    """Steps from found to scored. subset: test, validation, external, or "" for new data, whose folder of results is
    `folder`; sheet: a row per predicted case; evidence: of the scored ones."""
    judged = Step("Scored", len({one["patient"] for one in evidence}), len(evidence)) if evidence else \
        Step("Scored", 0, 0, ["no case has a truth to be scored against"])
    done = {(row["fold"], row["case"]) for row in sheet}
    if not subset:
        rejected = read_if_there(folder / "rejected.csv")
        left = [f"left out: {counted(len({row['case'] for row in rejected}), 'case')}", *reasons(rejected, "rejected.csv")]
        alone = sum(row["fold"] != "" for row in sheet) if len(source.models) > 1 else 0
        lines = [f"{counted(alone, 'case')} of the prepared data, each by the model that never saw its patient"] if alone else []
        return [Step("New cases", None, len(sheet) + len({row["case"] for row in rejected}), left if rejected else []),
                Step("Predicted", len({row["patient"] for row in sheet}), len(done), lines), judged]
    lines, folds = [], sorted(source.prepared.splits)
    if not source.loaded and subset != EXTERNAL:
        absent = [fold for fold in folds if fold not in source.models]
        count = sum(held(source.prepared, fold, subset)[1] for fold in absent)
        lines = [f"not scored: {counted(count, 'case')} of {folds_text(absent)}, without a model"] if absent else []
    if source.loaded:
        lines = ["only those of the fold of the loaded model"]
    several = len({one["patient"] for one in evidence}) < len({(one["patient"], one["fold"]) for one in evidence})
    lines += ["a patient may validate in several folds, and counts in each"] if several else []
    return [*prepared_steps(source), Step(f"Scored as {'external test' if subset == EXTERNAL else subset} cases", judged.patients,
                                          judged.cases, lines)]


# --- provenance --------------------------------------------------------------------------------------------------


def installed(names: Iterable[str]) -> dict[str, str]:
    """Package -> its version, of those that are there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # onnxruntime may be onnxruntime-gpu
            continue
    return found


def largest_differences(source: Source) -> dict[int, float]:
    """fold -> the largest difference between network and ONNX file that was found, as a share of the output's largest value;
    {} where parity.csv does not speak of these models."""
    found: dict[int, float] = {}
    for row in [] if source.loaded else read_if_there(source.onnx / "parity.csv"):
        fold = int(row["fold"])
        if fold in source.models:
            share = float(row["largest_difference"]) / (float(row["largest_value"]) or 1.0)
            found[fold] = max(found.get(fold, 0.0), share)
    return found


def thresholds_text(calibration: dict) -> str:
    """What validation chose, in words: threshold: stroke 0.4, brain 0.5."""
    parts = []
    for name, value in calibration.items():
        if name != "cases" and value not in ({}, None):
            values = [f"{key} {number:.3g}" for key, number in value.items()] if isinstance(value, dict) else [f"{value:.3g}"]
            parts.append(f"{name} {', '.join(values)}")
    return "; ".join(parts)


def provenance_rows(source: Source, manifest: dict) -> list[tuple[str, str]]:
    """(what, which): fingerprints, models, versions; nothing of this machine but what computed."""
    prepared, parity = source.prepared, largest_differences(source)
    rows = [("Study", manifest["study"] if isinstance(manifest["study"], str) else manifest["study"]["name"]),
            ("Run", source.name), ("Data fingerprint", prepared.fingerprint),
            ("Channels", ", ".join(prepared.manifest["channels"]))]
    rows += [("Loaded model", source.loaded)] if source.loaded else []
    for fold, model in source.models.items():
        parts = [f"checkpoint {model.get('checkpoint') or 'unknown'}", f"epoch {model['epoch'] + 1}",
                 "finished" if model["finished"] else "UNFINISHED training"]
        parts += [f"{model['metric']} {model['score']:.4f}"] if model["score"] is not None else [model["metric"]]
        parts += [f"ONNX differs by at most {parity[fold]:.1e} of the largest value"] if fold in parity else []
        chosen = thresholds_text(model.get("calibration", {}))
        rows.append((f"Model of fold {fold}", ", ".join([*parts, *([f"from validation: {chosen}"] if chosen else [])])))
    rows += [("Computed on", manifest["computed_on"]), ("Packages, here", versions_text(installed(RUNNING))),
             ("Packages, preparation", versions_text(prepared.manifest.get("packages", {})))]
    return rows


def versions_text(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
