"""Segmentation: regions that may overlap (sigmoid, one per channel) or exclusive classes (softmax)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable, ClassVar, Iterable, Mapping, Sequence

import numpy as np

from lib.data.case import Case, Header
from lib.evaluation.calipers import filled_ellipse
from lib.evaluation.measurements import Measurement, make_measurements
from lib.evaluation.plots import RocWords
from lib.imaging.brainmask import largest_component
from lib.imaging.geometry import Fit
from lib.imaging.painting import Colour
from lib.study import one_of, require
from lib.tasks.base import ALL, Metrics, Task
from lib.tasks.drawing import draw_frames, frame_scores, shown_frame, side_by_side, truth_picture
from lib.tasks.scoring import presence_metrics, presence_rankings, score_case, set_facts, worksheet_row
from lib.tasks.cohort import case_notes, size_strata
from lib.tasks.thresholds import calibrate
from lib.tasks.wording import Wording, segmentation_wording

# metrics that a best epoch can be chosen by -> whether larger is better
SELECTABLE = {**dict.fromkeys(("dice", "iou", "precision", "recall", "specificity", "accuracy", "presence_roc_auc",
                               "presence_kappa", "presence_accuracy"), True),
              **dict.fromkeys(("false_positive_ml", "false_positive_mm2", "false_positive_px"), False)}
RARE = 0.5  # share of the samples below which a class counts as rare


@dataclass(frozen=True)
class Prediction:
    """probabilities: float32, masks: bool, both (classes, frames, rows, columns) on the native grid."""
    probabilities: np.ndarray
    masks: np.ndarray
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Segmentation(Task):
    """`task:` of a segmentation study; see tasks/__init__ for what each method is for.

    weights: class -> weight of its loss (1). dice_per: batch | sample (see `losses.dice_loss`). label_smoothing: targets become
    s/2 and 1 - s/2. largest: classes reduced to their largest 3-D component. ellipses: classes replaced, in each frame, by the
    ellipse fitted to their largest component: for what is known to be one, such as a fetal head. presence: classes whose
    presence per patient is judged ("any FLAIR-visible lesion"), by a size threshold from validation, or presence_default (in
    the unit of sizes: mL of volumes, mm2 of photographs, px without a spacing) when validation cannot tell. background,
    outlines, heat: what is drawn; colours: class -> "#rrggbb" or [r, g, b].
    """
    weights: dict[str, float] = field(default_factory=dict)
    label_smoothing: float = 0.01
    dice_per: str = "batch"
    largest: tuple[str, ...] = ()
    ellipses: tuple[str, ...] = ()
    presence: tuple[str, ...] = ()
    presence_default: float = 0.1
    background: int = -1  # channel under the overlay
    outlines: tuple[str, ...] = ()
    heat: str = ""
    colours: dict[str, Any] = field(default_factory=dict)

    drawn_truth: ClassVar[str] = "dots the truth"

    def __post_init__(self):
        require(len(self.classes) > 0, "data.classes", "none", "at least one class")
        self.check_names(weights=self.weights, largest=self.largest, ellipses=self.ellipses, presence=self.presence,
                         outlines=self.outlines, colours=self.colours, heat=[self.heat] if self.heat else [])
        require(not (self.ellipses and self.exclusive), "task.ellipses", list(self.ellipses),
                "none with exclusive classes, which could then overlap")
        one_of(self.dice_per, ("batch", "sample"), "task.dice_per")
        require(0 <= self.label_smoothing < 1, "task.label_smoothing", self.label_smoothing, "0 <= s < 1")
        weights = [self.weights.get(name, 1.0) for name in self.classes]
        require(min(weights) >= 0 and 0 < sum(weights) < float("inf"), "task.weights", self.weights,
                "finite numbers of at least 0, not all 0")
        for name, keys in self.measurements.items():
            whole = keys.get("whole", ())
            whole = [whole] if isinstance(whole, str) else whole
            require(not self.exclusive or "part" not in keys or keys["part"] in whole, f"measurements.{name}.whole",
                    list(whole), f"{keys.get('part')} among them: exclusive classes do not lie inside each other, so name "
                    "all that make up the whole")
        self.measuring, self.palette  # an unknown name, key or colour stops script 1 already

    @cached_property
    def measuring(self) -> list[Measurement]:
        """The functions behind `measurements:`. Raises InputError."""
        return make_measurements(self.measurements, self.classes)

    @cached_property
    def palette(self) -> dict[str, Colour]:
        """class -> (red, green, blue). Raises InputError."""
        return self.chosen_palette(self.colours)

    @property
    def drawn(self) -> str:
        heat = f", warm colours the probability of {self.heat}" if self.heat else ""
        return f"lines are the prediction{heat}"

    @property
    def selectable(self) -> dict[str, bool]:
        return SELECTABLE

    @property
    def case_metrics(self) -> tuple[str, ...]:
        """Metrics that a single case has, the main one first."""
        return ("dice", "iou", "precision", "recall", "specificity", "accuracy")

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics that a person looks for first, as summary.csv names them."""
        measured = [f"{metric}_abs_error" for measurement in self.measuring for metric in measurement.metrics]
        return ("dice", "iou", "recall", "dice_tolerant", "nsd", "hd95_mm", "hd95_px", *measured, "false_positive_ml",
                "false_positive_mm2", "presence_roc_auc", "presence_kappa", "empty_truth_cases")

    @property
    def figures(self) -> tuple[str, ...]:
        """Metrics that script 4 draws by class and fold."""
        return ("dice", "iou", "nsd", "hd95_mm", "hd95_px")

    def selectable_classes(self, metric: str) -> tuple[str, ...]:
        """Classes that have a row of a selectable metric."""
        if metric.startswith("presence_"):
            return self.presence
        return self.classes if metric.startswith("false_positive") else (*self.classes, ALL)

    def check_channels(self, channels: int) -> None:
        """Raises InputError if `background` is no channel."""
        require(-channels <= self.background < channels, "task.background", self.background,
                f"a channel, 0 to {channels - 1}, or -1 for the last")

    @property
    def exclusive(self) -> bool:
        return self.data.encoding == "exclusive"

    @property
    def reads(self) -> dict[str, str]:
        kind = "background and classes, to be put through a softmax" if self.exclusive else "regions, to be put through a sigmoid"
        return {"logits": f"(batch, outputs, rows, columns) of the padded frame: {kind}"}

    @property
    def outputs(self) -> int:
        return len(self.classes) + self.exclusive  # softmax needs a background

    @property
    def parents(self) -> tuple[int, ...]:
        """Index of each class's parent, -1 for none. Parents come before their children."""
        return tuple(self.classes.index(self.data.inside[c]) if c in self.data.inside else -1 for c in self.classes)

    # --- preparation ---------------------------------------------------------------------------------------------

    @property
    def targets_dtype(self) -> str:
        return "uint8"

    def targets_shape(self, samples: int, size: Sequence[int]) -> tuple[int, ...]:
        return (samples, *size) if self.exclusive else (samples, len(self.classes), *size)

    def truth_bytes(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape)) * len(self.classes) // 8  # a bit per pixel and class

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

    def facts(self, case: Case, truth: np.ndarray) -> dict[str, Any]:
        """Columns of cases.csv: the native size of each class, and the share of it that its parent cut off."""
        facts: dict[str, Any] = {"size_unit": case.header.geometry.size_unit}
        for name, mask in zip(self.classes, truth):
            kept, drawn = np.count_nonzero(mask), np.count_nonzero(case.truth[name])
            facts[f"size_{name}"] = case.header.geometry.size_of(mask)
            facts[f"cut_{name}"] = 1 - kept / drawn if drawn else 0.0
        return facts

    def notes(self, headers: Sequence[Header], facts: Sequence[dict]) -> list[str]:
        """Lines for the user; raises InputError for a region that was never meant so (see `cohort.case_notes`)."""
        return case_notes(self.classes, self.data.inside, headers, facts)

    def strata(self, patients: Sequence[str], facts: Sequence[dict]) -> dict[str, list[str]]:
        """patient -> labels, fine to coarse, by the sizes of the classes in `data.folds.stratify`."""
        return size_strata(patients, facts, self.data.folds.stratify or self.classes, self.data.inside)

    def present_in(self, facts: Sequence[dict]) -> list[np.ndarray]:
        return [np.array([fact[f"size_{name}"] > 0 for name in self.classes]) for fact in facts]

    # --- training ------------------------------------------------------------------------------------------------

    def transform(self, targets, warp):
        """Targets (torch, uint8) under the batch's geometric augmentation: nearest neighbour, 0 outside."""
        if self.exclusive:
            return warp.labels(targets[:, None])[:, 0]
        return warp.labels(targets)

    def present(self, targets: np.ndarray) -> np.ndarray:
        """bool (S, classes): which classes each target holds."""
        if self.exclusive:
            return np.stack([(targets == i + 1).any(axis=(1, 2)) for i in range(len(self.classes))], axis=1)
        return targets.any(axis=(2, 3))

    def groups(self, present: np.ndarray) -> np.ndarray:
        """bool (S,): which samples the balanced sampler draws as often as all others, from `present` of all samples.

        Those with a region inside another, where the study has such; else those with any class; and where every
        sample has one, those with a rare class.
        """
        inner = [i for i, parent in enumerate(self.parents) if parent >= 0]
        if inner:
            return present[:, inner].any(axis=1)
        if not present.any(axis=1).all():
            return present.any(axis=1)
        return present[:, present.mean(axis=0) < RARE].any(axis=1)

    def loss(self, outputs, targets):
        """(scalar, parts) of `outputs["logits"]` (B, outputs, H, W) float against targets uint8, all torch."""
        from lib.tasks.losses import exclusive_loss, region_loss
        weights = [self.weights.get(name, 1.0) for name in self.classes]
        if self.exclusive:
            return exclusive_loss(outputs["logits"], targets, self.classes, weights, self.label_smoothing, self.dice_per)
        return region_loss(outputs["logits"], targets, self.classes, self.parents, weights, self.label_smoothing,
                           self.dice_per)

    # --- prediction ----------------------------------------------------------------------------------------------

    @property
    def thresholds(self) -> tuple[float, ...]:
        chosen = self.calibration.get("threshold", {})
        return tuple(float(chosen.get(name, 0.5)) for name in self.classes)

    def pooled_calibration(self, tasks: Sequence[Segmentation]) -> dict:
        """The mean of several models' thresholds, for their fused prediction."""
        return {"threshold": dict(zip(self.classes, np.mean([t.thresholds for t in tasks], axis=0).tolist())),
                "presence": {n: float(np.mean([t.presence_threshold(n) for t in tasks])) for n in self.presence}}

    def decode(self, outputs: dict[str, np.ndarray], case) -> Prediction:
        """Logits of a whole case (frames, outputs, *grid) -> Prediction on the native grid."""
        logits = outputs["logits"].astype(np.float32, copy=False)
        if self.exclusive:
            exp = np.exp(logits - logits.max(axis=1, keepdims=True))
            grid = (exp / exp.sum(axis=1, keepdims=True))[:, 1:]
        else:
            grid = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
        native = case.fit.restore(np.moveaxis(grid, 1, 0))
        return self.cut(native)

    def cut(self, probabilities: np.ndarray) -> Prediction:
        """Probabilities (classes, frames, rows, columns) with the masks that this task's thresholds make of them."""
        return Prediction(probabilities, self.masks(probabilities, self.thresholds), self.thresholds)

    def masks(self, probabilities: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
        """Threshold (or the most probable class), then largest component and ellipse, then each region inside its
        parent."""
        if self.exclusive:
            background = 1 - probabilities.sum(axis=0)
            winner = np.concatenate([background[None], probabilities]).argmax(axis=0)
            masks = np.stack([winner == index + 1 for index in range(len(self.classes))])
        else:
            masks = probabilities > np.asarray(thresholds, np.float32)[:, None, None, None]
        return self._nest(np.stack([self.shaped(name, mask) for name, mask in zip(self.classes, masks)]))

    def shaped(self, name: str, mask: np.ndarray) -> np.ndarray:
        """A class's mask, bool (frames, rows, columns), reduced to the shape that it is known to have."""
        if name in self.largest:
            mask = largest_component(mask)
        return np.stack([filled_ellipse(frame) for frame in mask]) if name in self.ellipses else mask

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

    def named(self, masks: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.classes, masks))

    def score(self, prediction: Prediction, truth: np.ndarray, case, distances: bool = True) -> dict:
        """{(class, metric): value} of one case; `distances` False leaves out the slow ones (training)."""
        rows = score_case(self.named(prediction.masks), self.named(truth), case.geometry, distances, self.tolerance_mm)
        size = case.geometry.size_metric
        for name in self.presence:
            rows[name, "present"] = float(rows[name, size] > self.presence_threshold(name))
            rows[name, "present_true"] = float(rows[name, f"{size}_true"] > 0)
        return rows | self._measured(prediction.masks, case) | self._measured(truth, case, "_true")

    def measure(self, prediction: Prediction, case) -> dict:
        """{(class, metric): value} of a case without truth."""
        size = case.geometry.size_metric
        rows = {(name, size): case.geometry.size_of(mask) for name, mask in self.named(prediction.masks).items()}
        rows |= {(name, "present"): float(rows[name, size] > self.presence_threshold(name)) for name in self.presence}
        return rows | self._measured(prediction.masks, case)

    def _measured(self, masks: np.ndarray, case, suffix: str = "") -> dict:
        return {(c, metric + suffix): value for measurement in self.measuring
                for (c, metric), value in measurement(self.named(masks), case.geometry).values.items()}

    def marks(self, prediction: Prediction, case) -> list:
        """What the measurements would draw: calipers, ellipses (see `measurements.Mark`)."""
        return [mark for measurement in self.measuring
                for mark in measurement(self.named(prediction.masks), case.geometry).marks]

    def worksheet(self, scores: dict) -> dict[str, float | str]:
        """{(class, metric): value} by the titles of a worksheet's columns."""
        return worksheet_row(scores, self.classes)

    def evidence(self, prediction: Prediction, truth: np.ndarray, case) -> dict:
        """Sizes of prediction and truth per class, and this model's presence thresholds."""
        size_of = case.geometry.size_of
        return {"patient": case.patient, "unit": case.geometry.size_unit,
                "predicted": [size_of(mask) for mask in prediction.masks], "true": [size_of(mask) for mask in truth],
                "presence": {name: self.presence_threshold(name) for name in self.presence}}

    def presence_threshold(self, name: str) -> float:
        return float(self.calibration.get("presence", {}).get(name, self.presence_default))

    def set_metrics(self, evidence: Sequence[dict]) -> Metrics:
        """How well size tells presence: ROC AUC, kappa, sensitivity, specificity, accuracy."""
        return presence_metrics(self.classes, self.presence, evidence)

    def rankings(self, evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, list[str]]]:
        """See `scoring.presence_rankings`."""
        return presence_rankings(self.classes, self.presence, evidence)

    @property
    def roc_words(self) -> RocWords:
        return RocWords("presence", "patients", "A patient is positive for a class whose true size is above 0 in any of his or "
                        "her cases; patients are ranked by the largest size that was predicted.")

    def set_facts(self, evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
        """Cases with empty truth, patients with each class that is judged, the size from which it counts."""
        return set_facts(self.classes, self.presence, evidence)

    def calibrate(self, cases: Callable[[], Iterable[tuple[Prediction, np.ndarray, object]]]) -> dict:
        """Thresholds from validation: `cases()` yields (prediction, truth, case), one in memory at a time, twice.

        First the probability threshold of each region (see `best_thresholds`), then, with these in force, the
        size above which a class counts as present (Youden's). No cases, no calibration: {}.
        """
        return calibrate(self, cases)

    # --- pictures ------------------------------------------------------------------------------------------------

    def draw(self, frames: np.ndarray, prediction: Prediction | None, truth: np.ndarray | None, case, chosen=None,
             scale: float = 1) -> np.ndarray:
        """uint8 (frames, rows * scale, columns * scale, 3) on the native grid: outlines of the regions, one region's
        probability as heat, the truth in white and black dots. The truth alone: dots in the classes' colours; without
        either the plain frames.

        frames: (n, channels, *grid) as stored; chosen: indices of the frames to draw (default: all).
        """
        return draw_frames(self, frames, prediction, truth, case, chosen, scale)

    def shown_frame(self, prediction: Prediction, truth: np.ndarray | None) -> int:
        """The frame that holds most of the innermost region present, of the truth if it has any."""
        return shown_frame(prediction, truth)

    def side_by_side(self, frames: np.ndarray, prediction: Prediction, truth: np.ndarray | None, case) -> np.ndarray:
        """uint8 (rows, columns, 3): image, truth and prediction in the classes' colours, upright, at `shown_frame`."""
        return side_by_side(self, frames, prediction, truth, case)

    def truth_picture(self, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
        """uint8 (rows, columns, 3): the truth's outlines at the frame that holds most of the innermost region present,
        upright (what the data set looks like)."""
        return truth_picture(self, frames, truth, case)

    def wording(self, network: Mapping) -> Wording:
        return segmentation_wording(self)

    def frame_scores(self, prediction: Prediction, truth: np.ndarray | None) -> np.ndarray:
        """float (frames,): how well each frame went, Dice of the regions inside another (or of all); NaN where
        neither truth nor prediction has any. Without truth: how sure the model is there (0..1)."""
        inner = [i for i, parent in enumerate(self.parents) if parent >= 0]
        return frame_scores(prediction, truth, inner or range(len(self.classes)))
