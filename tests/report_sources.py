"""Hand-made workspaces, models and evidence, of which tests of report.html know every number."""

from __future__ import annotations

import json
import math

import numpy as np

from lib.data.store import Prepared, geometry_text
from lib.imaging.geometry import Geometry
from lib.reporting.report.card import warnings_of
from lib.reporting.report.source import Source
from lib.reporting.report.methods import methods_text
from lib.study import load_study, study_from_dict, without_paths
from lib.tasks import make_task
from lib.workspace import FORMAT, Workspace, write_json, write_table

STUDY = "nuchal_translucency"
PATIENTS = {"p1": ["a1", "a2"], "p2": ["b"], "p3": ["c"], "p4": ["d"], "p5": ["e"], "p6": ["f"]}
# patient p1 has two cases: fold 0 trains 3 patients (c, d, and e), validates f, tests p1 and p2
SPLITS = {0: {"p1": "test", "p2": "test", "p3": "train", "p4": "train", "p5": "train", "p6": "validation"},
          1: {"p1": "train", "p2": "validation", "p3": "test", "p4": "test", "p5": "train", "p6": "train"},
          2: {"p1": "train", "p2": "train", "p3": "validation", "p4": "train", "p5": "test", "p6": "test"}}
HASH = "0123456789abcdef" * 2


def make_space(folder, splits=SPLITS, study=None, subsets=None, contents=None, rejected=(), known=None,
               methods=None) -> Workspace:
    """A prepared workspace of flat 8 x 8 images with hand-written tables. contents: case -> hash of its images; known: whether
    patients are; methods: what a manifest holds of the reader's, None as in older ones."""
    study, space = study or load_study(STUDY, ["data.size=[8,8]"]), Workspace(folder)
    prepared = space.prepared
    prepared.mkdir(parents=True)
    cases = [(case, patient) for patient, cases in PATIENTS.items() for case in cases]
    geometry = geometry_text(Geometry((1, 8, 8), None, True))
    write_table(prepared / "cases.csv", ["case", "patient", "samples", "files", "geometry", "content"],
                [{"case": case, "patient": patient, "samples": 1, "files": "{}",
                  "geometry": geometry, "content": (contents or {}).get(case, case)}
                 for case, patient in cases])
    write_table(prepared / "samples.csv", ["sample", "case", "patient", "frame", "series_start", "series_stop"],
                [{"sample": i, "case": case, "patient": patient, "frame": i, "series_start": i, "series_stop": i + 1}
                 for i, (case, patient) in enumerate(cases)])
    write_table(prepared / "splits.csv", ["fold", "patient", "subset"],
                [{"fold": fold, "patient": patient, "subset": subset} for fold, where in splits.items()
                 for patient, subset in where.items()])
    if rejected:
        write_table(prepared / "rejected.csv", ["case", "file", "reason"], rejected)
    np.save(prepared / "frames.npy", np.zeros((7, 1, 8, 8), np.uint8))
    np.save(prepared / "targets.npy", np.zeros((7, 1, 8, 8), np.uint8))
    write_json(prepared / "manifest.json", {
        "format": FORMAT, "study": study.to_dict(), "fingerprint": "f" * 32, "channels": ["grey"], "frames_shape": [7, 1, 8, 8],
        "targets_shape": [7, 1, 8, 8], "packages": {"numpy": "1.2.3"}, "notes": [],
        **({} if known is None else {"patients_known": known}), **({} if methods is None else {"methods": list(methods)}),
        "rejected": [row["case"] + ": bad" for row in rejected],
        "key": {"cases": {case: {"subset": (subsets or {}).get(patient, "")} for case, patient in cases}}})
    return space


def model(study, fold) -> dict:
    return {"study": json.loads(json.dumps(without_paths(study))), "fold": fold, "epoch": 4 + fold, "metric": "iou/all",
            "score": 0.5 + 0.1 * fold, "finished": True, "checkpoint": HASH, "chosen": False,
            "calibration": {"threshold": dict.fromkeys(study.data.classes, 0.4), "presence": {}, "cases": 1}
            if study.task["kind"] == "segmentation" else {"threshold": 0.4, "confidence": 0.4, "cases": 1}}


def source_of(folder, folds=(0, 1, 2), study=None, models=None, loaded="", **keys) -> Source:
    study = study or load_study(STUDY, ["data.size=[8,8]"])
    space = make_space(folder, study=study, **keys)
    prepared = Prepared(space.prepared, json.loads((space.prepared / "manifest.json").read_text()))
    made = {fold: model(study, fold) | (models or {}).get(fold, {}) for fold in folds}
    return Source(prepared, space, "unet", made, space.onnx("unet"), loaded)


def told(source, subset="test", evidence=None, sheet=None, judged=None) -> str:
    """The methods of a source whose study may be judged by other keys of `report` and `measurements`."""
    study = judged or load_study_of(source)
    return methods_text(source, subset, make_task(study), "CPU", ALL_TESTED if evidence is None else evidence, sheet or [])


def load_study_of(source):
    return study_from_dict(next(iter(source.models.values()))["study"])


def cautions(source, subset="test", evidence=None) -> list[str]:
    return warnings_of(source, subset, MANY if evidence is None else evidence, make_task(load_study_of(source)))


def write_history(source, fold, rows) -> None:
    write_table(source.space.fold("unet", fold) / "metrics.csv", list(rows[0]), rows)


def history(fold, epochs=8) -> list[dict]:
    """Rows whose best epoch is that of `model`, with its score; the IoU of the first epoch is undefined."""
    return [{"epoch": epoch, "train_loss": 1 / (epoch + 1), "validation_loss": 1.5 / (epoch + 1),
             "iou/all": math.nan if epoch == 0 else 0.5 + 0.1 * fold - 0.01 * abs(epoch - 4 - fold)} for epoch in range(epochs)]


def evidence_of(*pairs) -> list[dict]:
    return [{"patient": patient, "case": case, "fold": fold} for fold, patient, case in pairs]


ALL_TESTED = evidence_of((0, "p1", "a1"), (0, "p1", "a2"), (0, "p2", "b"), (1, "p3", "c"), (1, "p4", "d"), (2, "p5", "e"),
                         (2, "p6", "f"))
MANY = [{"patient": str(i), "case": str(i), "fold": i % 3} for i in range(30)]
