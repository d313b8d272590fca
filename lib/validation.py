"""Validation of a network: mean losses, native-grid scores, calibration and pictures; never augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import numpy as np
import torch

from lib.data.store import Prepared
from lib.evaluation.statistics import mean_of_defined
from lib.prediction import predict_cases, torch_run
from lib.progress import no_progress
from lib.reporting.heatmaps import write_picture
from lib.study import Study
from lib.workspace import building

PICTURES = 3  # cases that a tracker is shown at each better epoch


class Validation:
    """The validation cases of a fold. cases: (CaseRecord, Samples) of each."""

    def __init__(self, study: Study, task, prepared: Prepared, cases: list, device: torch.device, amp: bool):
        self.study, self.task, self.prepared, self.cases = study, task, prepared, cases
        self.device, self.amp = device, amp

    def outputs(self, network, losses: dict | None = None, progress=no_progress, headline: str = "") -> Iterator[tuple]:
        """(case, outputs, native truth) of each case; sums of losses go into `losses`."""
        run = torch_run(network, self.device, self.amp)
        found = predict_cases(run, self.prepared.frames, self.cases, self.study.window, self.study.training.batch_size * 2)
        for case, outputs in progress(found, len(self.cases), headline, unit="case"):
            if losses is not None:
                targets = torch.from_numpy(np.array(self.prepared.targets[case.samples]))
                of_samples = self.task.gathered({k: torch.from_numpy(v) for k, v in outputs.items()})
                loss, parts = self.task.loss(of_samples, targets)
                for name, value in {"loss": loss, **parts}.items():
                    total, count = losses.get(name, (0.0, 0))
                    losses[name] = (total + float(value), count + 1)
            yield case, outputs, self.prepared.truth(case)

    def scores(self, network, pictures: dict | None = None, progress=no_progress) -> dict[str, float]:
        """The columns of metrics.csv: mean losses, and the mean over cases of every native-grid score.

        pictures: filled with the first cases' pictures, if given.
        """
        losses, scores, evidence = {}, {}, []
        for number, (case, outputs, truth) in enumerate(self.outputs(network, losses, progress, "validation")):
            prediction = self.task.decode(outputs, case)
            for key, value in self.task.score(prediction, truth, case, distances=False).items():
                scores.setdefault(key, []).append(value)
            evidence.append(self.task.evidence(prediction, truth, case))
            if pictures is not None and number < PICTURES:
                # captions count; names of patients stay here
                pictures[f"validation case {number + 1}"] = self.task.side_by_side(
                    self.prepared.frames[case.frames], prediction, truth, case)
        row = {f"validation_{name}": total / count for name, (total, count) in losses.items()}
        row |= {f"{metric}/{cls}": mean_of_defined(values) for (cls, metric), values in scores.items()
                if not metric.endswith("_true")}
        return row | {f"{metric}/{cls}": value for (cls, metric), value in self.task.score_set(evidence).items()}

    def worksheet_row(self, row: dict) -> dict[str, float | str]:
        """A row of metrics.csv as metrics.xlsx shows it: epochs from 1, the field's own names."""
        scores = {(key.split("/", 1)[1], key.split("/", 1)[0]): value for key, value in row.items() if "/" in key}
        losses = {"loss": row["validation_loss"]} if "validation_loss" in row else {}
        known = self.task.worksheet(scores) if scores else {}
        return {"epoch": row["epoch"] + 1, **losses, "training loss": row["train_loss"],
                "learning rate": row["learning_rate"], **known}

    def calibrate(self, network, progress=no_progress) -> dict:
        def cases():
            return ((self.task.decode(outputs, case), truth, case)
                    for case, outputs, truth in self.outputs(network, None, progress, "calibration"))
        return self.task.calibrate(cases)

    def draw(self, network, task, folder: Path) -> None:
        """`<case>.png` of the first cases (as many as `report.validation_pictures`): image, truth, prediction."""
        few = Validation(self.study, task, self.prepared, self.cases[:self.study.report.validation_pictures],
                         self.device, self.amp)
        with building(folder) as pictures:
            for case, outputs, truth in few.outputs(network):
                write_picture(pictures / f"{case.case}.png", task.side_by_side(
                    self.prepared.frames[case.frames], task.decode(outputs, case), truth, case))
