"""Seconds that the 95 % intervals of every task take: 2,000 draws of the patients of so many cases.

    python benchmarks/interval_speed.py --cases 1000

Evidence is made up (its numbers cost what those of real cases do); what is timed are the tasks' own `intervals`, and the whole
table of summary.csv from rows of cases. Wall and processor time are both told, since other programs change the first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.evaluation.statistics import RESAMPLES  # noqa: E402
from lib.results import tidy, write_summary  # noqa: E402
from lib.study import Data  # noqa: E402
from lib.tasks.classification import Classification  # noqa: E402
from lib.tasks.detection import Detection  # noqa: E402
from lib.tasks.landmarks import Landmarks  # noqa: E402
from lib.tasks.segmentation import Segmentation  # noqa: E402

FOLDS = 5
METRICS = ("dice", "iou", "precision", "recall", "specificity", "accuracy", "hd95_mm", "nsd")  # rows of a segmented case


def of_classes(random: np.random.Generator, classes: int) -> dict:
    probabilities = random.dirichlet(np.ones(classes))
    return {"truth": int(random.integers(classes)), "predicted": int(probabilities.argmax()), "probabilities": probabilities,
            "threshold": 0.5}


def of_boxes(random: np.random.Generator, classes: int) -> dict:
    there = random.random(classes) < 0.8
    boxes = np.concatenate([random.uniform(0, 40, (classes, 2)), random.uniform(60, 90, (classes, 2))], axis=1)
    truth = np.concatenate([there[:, None], boxes * there[:, None]], axis=1)
    return {"scores": random.random((1, classes)), "boxes": boxes[None] + random.normal(0, 6, (1, classes, 4)),
            "truth": truth[None].astype(np.float32), "confidence": 0.5}


def of_points(random: np.random.Generator, classes: int) -> dict:
    errors = random.gamma(2, 2, (1, classes))
    return {"errors": {"px": errors, "mm": errors / 3}, "scores": random.random((1, classes)),
            "truth": np.ones((1, classes, 1), np.float32), "confidence": 0.5}


def of_regions(random: np.random.Generator, classes: int) -> dict:
    true = random.gamma(1, 20, classes) * (random.random(classes) < 0.7)
    return {"unit": "ml", "predicted": (true * random.uniform(0.7, 1.3, classes)).tolist(), "true": true.tolist(),
            "presence": {f"class_{index}": 1.0 for index in range(classes)}}


KINDS = {"classification, 2 classes": (Classification, of_classes, 2, {}),
         "classification, 8 classes": (Classification, of_classes, 8, {}),
         "detection, 9 classes, 10 thresholds": (Detection, of_boxes, 9, {}),
         "landmarks, 4 points, px and mm": (Landmarks, of_points, 4, {"presence_weight": 1.0}),
         "segmentation, presence of 3 classes": (Segmentation, of_regions, 3, {"presence": ("class_0", "class_1", "class_2")})}


def timed(function) -> tuple[float, float]:
    """(wall, processor) seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def measure() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", type=int, default=1000, help="cases, each of a patient of its own (default: 1000)")
    count = arguments.parse_args().cases
    print(f"{count} cases, {RESAMPLES} draws of their patients\n{'':<40} {'wall s':>8} {'CPU s':>8}")
    for label, (kind, made, classes, keys) in KINDS.items():
        random = np.random.default_rng(0)
        task = kind(Data(reader={}, classes=tuple(f"class_{index}" for index in range(classes)), size=(64, 64)), {}, {}, **keys)
        evidence = [{"patient": f"p{n}", "case": f"c{n}", "fold": n % FOLDS, **made(random, classes)} for n in range(count)]
        task.intervals(evidence[:20])  # what is loaded on first use is not counted
        print(f"{label:<40} {'{:>8.2f} {:>8.2f}'.format(*timed(lambda: task.intervals(evidence)))}")
    random, rows = np.random.default_rng(0), []
    for n in range(count):
        scores = {(f"class_{index}", metric): random.random() for index in range(4) for metric in METRICS}
        rows += tidy({"study": "s", "run": "r", "fold": n % FOLDS, "patient": f"p{n}", "case": f"c{n}"}, scores)
    with tempfile.TemporaryDirectory() as folder:
        seconds = timed(lambda: write_summary(Path(folder) / "summary.csv", rows))
    label = f"summary.csv, {len(METRICS)} metrics of 4 classes"
    print(f"{label:<40} {'{:>8.2f} {:>8.2f}'.format(*seconds)}")


measure()
