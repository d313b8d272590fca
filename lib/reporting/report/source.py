"""Where the results of a report come from: the prepared data, the models, and the training that they are known to be of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Sequence

import yaml

from lib.data.store import Prepared
from lib.selection import NO_VALIDATION
from lib.study import training_differences
from lib.workspace import Workspace, file_hash, read_table

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
