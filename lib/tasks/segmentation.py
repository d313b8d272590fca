"""Segmentation: regions that may overlap (sigmoid, one per channel) or exclusive classes (softmax)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Callable, Iterable, Sequence

import numpy as np

from lib.evaluation.measurements import make_measurements
from lib.evaluation.metrics import false_positive_ml, hd95_mm, overlap, volume_ml
from lib.evaluation.statistics import binary_agreement, youden_threshold
from lib.imaging.brainmask import largest_component
from lib.imaging.geometry import Fit
from lib.data.case import Case
from lib.study import Data, one_of, require
from lib.tasks.strata import volume_strata
from lib.tasks.thresholds import THRESHOLDS, best_thresholds

# metrics that a best epoch can be chosen by -> whether larger is better
SELECTABLE = {**dict.fromkeys(("dice", "iou", "precision", "recall", "specificity", "accuracy", "presence_roc_auc",
                               "presence_kappa", "presence_accuracy"), True), "false_positive_ml": False}
ALL = "all"  # the class of a row that speaks of all foreground classes


@dataclass(frozen=True)
class Prediction:
    """probabilities: float32, masks: bool, both (classes, frames, rows, columns) on the native grid."""
    probabilities: np.ndarray
    masks: np.ndarray
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Segmentation:
    """`task:` of a segmentation study; see tasks/__init__ for what each method is for.

    weights: class -> weight of its loss (1). label_smoothing: targets become s/2 and 1 - s/2. largest: classes
    reduced to their largest 3-D component. presence: classes whose presence per patient is judged ("any
    FLAIR-visible lesion"), by a volume threshold from validation, or presence_default_ml when validation cannot
    tell. background, outlines, heat: what is drawn.
    """
    data: Data
    measurements: dict[str, dict]
    calibration: dict
    weights: dict[str, float] = field(default_factory=dict)
    label_smoothing: float = 0.01
    largest: tuple[str, ...] = ()
    presence: tuple[str, ...] = ()
    presence_default_ml: float = 0.1
    background: int = -1  # channel under the overlay
    outlines: tuple[str, ...] = ()
    heat: str = ""

    def __post_init__(self):
        named = {"weights": self.weights, "largest": self.largest, "presence": self.presence,
                 "outlines": self.outlines, "heat": [self.heat] if self.heat else []}
        for key, names in named.items():
            for name in names:
                one_of(name, self.classes, f"task.{key}")
        require(0 <= self.label_smoothing < 1, "task.label_smoothing", self.label_smoothing, "0 <= s < 1")
        weights = [self.weights.get(name, 1.0) for name in self.classes]
        require(min(weights) >= 0 and 0 < sum(weights) < float("inf"), "task.weights", self.weights,
                "finite numbers of at least 0, not all 0")
        make_measurements(self.measurements, self.classes)  # an unknown name or key stops script 1 already

    @property
    def selectable(self) -> dict[str, bool]:
        return SELECTABLE

    @property
    def case_metrics(self) -> tuple[str, ...]:
        """Metrics that a single case has, the main one first."""
        return ("dice", "iou", "precision", "recall", "specificity", "accuracy", "false_positive_ml")

    def selectable_classes(self, metric: str) -> tuple[str, ...]:
        """Classes that have a row of a selectable metric."""
        if metric.startswith("presence_"):
            return self.presence
        return self.classes if metric == "false_positive_ml" else (*self.classes, ALL)

    def check_channels(self, channels: int) -> None:
        """Raises InputError if `background` is no channel."""
        require(-channels <= self.background < channels, "task.background", self.background,
                f"a channel, 0 to {channels - 1}, or -1 for the last")

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def exclusive(self) -> bool:
        return self.data.encoding == "exclusive"

    @property
    def outputs(self) -> int:
        return len(self.classes) + self.exclusive  # softmax needs a background

    @property
    def parents(self) -> tuple[int, ...]:
        """Index of each class's parent, -1 for none. Parents come before their children."""
        return tuple(self.classes.index(self.data.inside[c]) if c in self.data.inside else -1 for c in self.classes)

    # --- preparation ---------------------------------------------------------------------------------------------

    def targets_shape(self, samples: int, size: Sequence[int]) -> tuple[int, ...]:
        return (samples, *size) if self.exclusive else (samples, len(self.classes), *size)

    def native_truth(self, case: Case) -> np.ndarray:
        """bool (classes, frames, rows, columns); a region is cut to its parent, an exclusive class wins over earlier ones."""
        masks = np.stack([case.truth[name] for name in self.classes])
        if self.exclusive:
            for index in range(len(masks) - 1):
                masks[index] &= ~masks[index + 1:].any(axis=0)
        return self._nest(masks)

    def encode(self, truth: np.ndarray, fit: Fit) -> np.ndarray:
        """Native truth -> uint8 (frames, classes, *grid), or (frames, *grid) with 0 background."""
        if self.exclusive:
            values = np.arange(1, len(self.classes) + 1, dtype=np.uint8)[:, None, None, None]
            return fit.fit_labels((truth * values).sum(axis=0, dtype=np.uint8))
        return np.moveaxis(fit.fit_labels(truth), 0, 1)

    def strata(self, patients: Sequence[str], facts: Sequence[dict]) -> dict[str, list[str]]:
        """patient -> labels, fine to coarse, by the volumes of the classes in `data.folds.stratify`."""
        return volume_strata(patients, facts, self.data.folds.stratify or self.classes, self.data.inside)

    # --- training ------------------------------------------------------------------------------------------------

    def transform(self, targets, warp):
        """Targets (torch, uint8) under the batch's geometric augmentation: nearest neighbour, 0 outside."""
        if self.exclusive:
            return warp.labels(targets[:, None])[:, 0]
        return warp.labels(targets)

    def foreground(self, targets: np.ndarray) -> np.ndarray:
        """bool (S,): which targets hold a region inside another (any region or class, if there is none inside)."""
        if self.exclusive:
            return targets.any(axis=(1, 2))
        inner = [i for i, parent in enumerate(self.parents) if parent >= 0] or list(range(len(self.classes)))
        return targets[:, inner].any(axis=(1, 2, 3))

    def loss(self, outputs, targets):
        """(scalar, parts) of `outputs["logits"]` (B, outputs, H, W) float against targets uint8, all torch."""
        from lib.tasks.losses import exclusive_loss, region_loss
        weights = [self.weights.get(name, 1.0) for name in self.classes]
        if self.exclusive:
            return exclusive_loss(outputs["logits"], targets, self.classes, weights, self.label_smoothing)
        return region_loss(outputs["logits"], targets, self.classes, self.parents, weights, self.label_smoothing)

    # --- prediction ----------------------------------------------------------------------------------------------

    @property
    def thresholds(self) -> tuple[float, ...]:
        chosen = self.calibration.get("threshold", {})
        return tuple(float(chosen.get(name, 0.5)) for name in self.classes)

    def with_calibration(self, calibration: dict) -> Segmentation:
        return dataclasses.replace(self, calibration=calibration)

    def pooled_calibration(self, tasks: Sequence[Segmentation]) -> dict:
        """The mean of several models' thresholds, for their fused prediction."""
        return {"threshold": dict(zip(self.classes, np.mean([t.thresholds for t in tasks], axis=0).tolist())),
                "presence_ml": {n: float(np.mean([t.presence_ml(n) for t in tasks])) for n in self.presence}}

    def decode(self, outputs: dict[str, np.ndarray], case) -> Prediction:
        """Logits of a whole case (frames, outputs, *grid) -> Prediction on the native grid."""
        logits = outputs["logits"].astype(np.float32, copy=False)
        if self.exclusive:
            exp = np.exp(logits - logits.max(axis=1, keepdims=True))
            grid = (exp / exp.sum(axis=1, keepdims=True))[:, 1:]
        else:
            grid = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
        native = case.fit.restore(np.moveaxis(grid, 1, 0))
        return Prediction(native, self.masks(native, self.thresholds), self.thresholds)

    def masks(self, probabilities: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
        """Threshold (or the most probable class), then largest component, then each region inside its parent."""
        if self.exclusive:
            background = 1 - probabilities.sum(axis=0)
            winner = np.concatenate([background[None], probabilities]).argmax(axis=0)
            masks = np.stack([winner == index + 1 for index in range(len(self.classes))])
        else:
            masks = probabilities > np.asarray(thresholds, np.float32)[:, None, None, None]
        for name in self.largest:
            index = self.classes.index(name)
            masks[index] = largest_component(masks[index])
        return self._nest(masks)

    def _nest(self, masks: np.ndarray) -> np.ndarray:
        for index, parent in enumerate(self.parents):
            if parent >= 0:
                masks[index] &= masks[parent]
        return masks

    def fuse(self, predictions: Sequence[Prediction]) -> Prediction:
        """Mean probability of several models, cut at their mean thresholds."""
        probabilities = np.mean([p.probabilities for p in predictions], axis=0)
        thresholds = tuple(np.mean([p.thresholds for p in predictions], axis=0).tolist())
        return Prediction(probabilities, self.masks(probabilities, thresholds), thresholds)

    def volume(self, prediction: Prediction) -> np.ndarray:
        """What is saved: uint8 (frames, rows, columns, classes) of 0/1, or for exclusive classes a label map
        (frames, rows, columns) with 0 background."""
        if self.exclusive:
            values = np.arange(1, len(self.classes) + 1, dtype=np.uint8)[:, None, None, None]
            return (prediction.masks * values).sum(axis=0, dtype=np.uint8)
        return np.moveaxis(prediction.masks, 0, -1).astype(np.uint8)

    def agreement(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """float32 (frames, rows, columns, classes): share of the models (0..1) that mark a voxel."""
        return np.moveaxis(np.mean([p.masks for p in predictions], axis=0, dtype=np.float32), 0, -1)

    # --- scores --------------------------------------------------------------------------------------------------

    def score(self, prediction: Prediction, truth: np.ndarray, case, distances: bool = True) -> dict:
        """{(class, metric): value} of one case; `distances` False leaves out the slow ones (training)."""
        rows: dict[tuple[str, str], float] = {}
        for name, mask, true in zip(self.classes, prediction.masks, truth):
            scores = overlap(mask, true)
            if distances:
                scores["hd95_mm"] = hd95_mm(mask, true, case.spacing_mm)
            rows |= {(name, metric): value for metric, value in scores.items()}
            rows[name, "volume_ml"] = volume_ml(mask, case.spacing_mm)
            rows[name, "volume_ml_true"] = volume_ml(true, case.spacing_mm)
            rows[name, "false_positive_ml"] = false_positive_ml(mask, true, case.spacing_mm)
        for metric in scores:
            values = [rows[name, metric] for name in self.classes]
            values = [v for v in values if not np.isnan(v)]
            rows[ALL, metric] = float(np.mean(values)) if values else float("nan")
        for name in self.presence:
            rows[name, "present"] = float(rows[name, "volume_ml"] > self.presence_ml(name))
            rows[name, "present_true"] = float(rows[name, "volume_ml_true"] > 0)
        return rows | self._measured(prediction.masks, case, "") | self._measured(truth, case, "_true")

    def measure(self, prediction: Prediction, case) -> dict:
        """{(class, metric): value} of a case without truth."""
        rows = {(name, "volume_ml"): volume_ml(mask, case.spacing_mm)
                for name, mask in zip(self.classes, prediction.masks)}
        rows |= {(name, "present"): float(rows[name, "volume_ml"] > self.presence_ml(name)) for name in self.presence}
        return rows | self._measured(prediction.masks, case, "")

    def _measured(self, masks: np.ndarray, case, suffix: str) -> dict:
        named = dict(zip(self.classes, masks))
        return {(c, name + suffix): value for name, function in make_measurements(self.measurements, self.classes)
                for c, value in function(named, case.spacing_mm).items()}

    def evidence(self, prediction: Prediction, truth: np.ndarray, case) -> dict:
        """Volumes (mL) of prediction and truth per class, and this model's presence thresholds (mL)."""
        return {"patient": case.patient,
                "predicted": [volume_ml(mask, case.spacing_mm) for mask in prediction.masks],
                "true": [volume_ml(mask, case.spacing_mm) for mask in truth],
                "presence_ml": {name: self.presence_ml(name) for name in self.presence}}

    def presence_ml(self, name: str) -> float:
        return float(self.calibration.get("presence_ml", {}).get(name, self.presence_default_ml))

    def score_set(self, evidence: Sequence[dict]) -> dict:
        """Cases with empty truth, and how well volume tells presence: ROC AUC, kappa, sensitivity, specificity."""
        rows: dict[tuple[str, str], float] = {}
        for index, name in enumerate(self.classes):
            rows[name, "cases"] = len(evidence)
            rows[name, "empty_truth_cases"] = sum(e["true"][index] == 0 for e in evidence)
        for name in self.presence:
            index = self.classes.index(name)
            patients = largest_by_patient(evidence, index)
            predicted = [p for p, _, _ in patients]
            decided = [p > e["presence_ml"][name] for p, _, e in patients]
            agreement = binary_agreement(predicted, decided, [true > 0 for _, true, _ in patients])
            rows |= {(name, f"presence_{metric}"): value for metric, value in agreement.items()}
            used = {e["presence_ml"][name] for e in evidence}
            if len(used) == 1:  # one model: the threshold is part of its result
                rows[name, "presence_threshold_ml"] = used.pop()
        return rows

    def calibrate(self, cases: Callable[[], Iterable[tuple[Prediction, np.ndarray, object]]]) -> dict:
        """Thresholds from validation: `cases()` yields (prediction, truth, case), one in memory at a time, twice.

        First the probability threshold of each region (see `best_thresholds`), then, with these in force, the
        volume above which a class counts as present (Youden's). No cases, no calibration: {}.
        """
        dice = [self._dice_by_threshold(prediction, truth) for prediction, truth, _ in cases()]
        if not dice:
            return {}
        chosen = {} if self.exclusive else dict(zip(self.classes, best_thresholds(np.array(dice))))
        task = self.with_calibration({"threshold": chosen})
        evidence = []
        for prediction, truth, case in cases() if self.presence else ():
            masks = task.masks(prediction.probabilities, task.thresholds)
            evidence.append(task.evidence(Prediction(prediction.probabilities, masks, task.thresholds), truth, case))
        presence = {}
        for name in self.presence:
            patients = largest_by_patient(evidence, self.classes.index(name))
            presence[name] = youden_threshold([p for p, _, _ in patients], [true > 0 for _, true, _ in patients],
                                              self.presence_default_ml)
        return {"threshold": chosen, "presence_ml": presence, "cases": len(dice)}

    def _dice_by_threshold(self, prediction: Prediction, truth: np.ndarray) -> np.ndarray:
        """Dice (thresholds, classes) of one case, the parent of each class held at 0.5; NaN where truth is empty."""
        base = self.masks(prediction.probabilities, [0.5] * len(self.classes))
        table = np.full((len(THRESHOLDS), len(self.classes)), np.nan)
        for index, parent in enumerate(self.parents):
            for row, threshold in enumerate(THRESHOLDS if truth[index].any() else ()):
                mask = prediction.probabilities[index] > threshold
                if self.classes[index] in self.largest:
                    mask = largest_component(mask)
                table[row, index] = overlap(mask & base[parent] if parent >= 0 else mask, truth[index])["dice"]
        return table

    # --- pictures ------------------------------------------------------------------------------------------------

    def draw(self, frames: np.ndarray, prediction: Prediction, truth: np.ndarray | None, case, chosen=None,
             scale: int = 1) -> np.ndarray:
        """uint8 (frames, rows * scale, columns * scale, 3) on the native grid: outlines of the regions, one region's
        probability as heat, the truth in white and black dots.

        frames: (n, channels, *grid) as stored; chosen: indices of the frames to draw (default: all).
        """
        from lib.reporting.painting import grey, overlay
        image = grey(case.fit.restore(frames[:, self.background].astype(np.float32)))
        chosen = range(len(image)) if chosen is None else list(chosen)
        index = {name: self.classes.index(name) for name in self.outlines or self.classes}
        outlines = {name: prediction.masks[i][chosen] for name, i in index.items()}
        truths = {} if truth is None else {name: truth[i][chosen] for name, i in index.items()}
        heat = None
        if self.heat:
            inner = self.classes.index(self.heat)
            parent = self.parents[inner]
            heat = prediction.probabilities[inner] * (prediction.masks[parent] if parent >= 0 else 1)
            heat = heat[chosen]
        return overlay(image[chosen], outlines, truths, heat, scale)

    def picture(self, frames: np.ndarray, prediction: Prediction, truth: np.ndarray, case) -> np.ndarray:
        """uint8 (rows, columns, 3): the frame that holds most of the innermost region present, upright."""
        from lib.reporting.painting import upright
        present = [mask for mask in truth if mask.any()] or list(prediction.masks)
        chosen = int(present[-1].sum(axis=(1, 2)).argmax())
        return upright(self.draw(frames, prediction, truth, case, [chosen], scale=2)[0], case)

    def truth_picture(self, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
        """As `picture`, of the truth alone (what the data set looks like)."""
        shown = Prediction(truth.astype(np.float32), truth, self.thresholds)
        return self.picture(frames, shown, truth, case)

    def frame_scores(self, prediction: Prediction, truth: np.ndarray | None) -> np.ndarray:
        """float (frames,): how well each frame went, Dice of the regions inside another (or of all); NaN where
        neither truth nor prediction has any. Without truth: how sure the model is there (0..1)."""
        inner = [i for i, parent in enumerate(self.parents) if parent >= 0] or range(len(self.classes))
        scores = np.full((len(inner), prediction.masks.shape[1]), np.nan)
        for row, index in enumerate(inner):
            mask, probability = prediction.masks[index], prediction.probabilities[index]
            for frame in range(mask.shape[0]):
                if truth is None and mask[frame].any():
                    scores[row, frame] = probability[frame][mask[frame]].mean()
                elif truth is not None and (mask[frame].any() or truth[index, frame].any()):
                    both = np.count_nonzero(mask[frame] & truth[index, frame])
                    scores[row, frame] = 2 * both / (np.count_nonzero(mask[frame]) + np.count_nonzero(truth[index, frame]))
        known = ~np.isnan(scores).all(axis=0)
        result = np.full(scores.shape[1], np.nan)
        result[known] = np.nanmean(scores[:, known], axis=0)
        return result


def largest_by_patient(evidence: Sequence[dict], index: int) -> list[tuple[float, float, dict]]:
    """Per patient the largest predicted and the largest true volume (mL) of class `index` over his or her cases, and
    one piece of evidence: presence is judged of a patient, not of a scan."""
    patients: dict[str, list[dict]] = {}
    for one in evidence:
        patients.setdefault(one["patient"], []).append(one)
    return [(max(e["predicted"][index] for e in ones), max(e["true"][index] for e in ones), ones[0])
            for ones in patients.values()]
