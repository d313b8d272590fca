"""Detection: of every structure whether it is there, and one box around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Iterable, Mapping, Sequence

import numpy as np

from lib.data.case import Case, Header
from lib.evaluation.average_precision import best_confidence
from lib.evaluation.boxes import centre_distance, fuse_boxes, iou
from lib.evaluation.plots import RocWords
from lib.evaluation.statistics import mean_of_defined
from lib.imaging.geometry import Fit
from lib.study import require
from lib.tasks.base import ALL, Metrics
from lib.tasks.box_drawing import draw_frames, shown_frame, side_by_side, truth_picture
from lib.tasks.box_scores import lists_of, precision_recall, presence_rankings, set_facts, set_metrics
from lib.tasks.box_tables import box_rows, coco_documents, dataset_plots, image_name
from lib.tasks.presence import SidedTask, absence_notes, mirror_notes
from lib.tasks.wording import Wording, detection_wording

# metrics that a best epoch can be chosen by -> whether larger is better
SELECTABLE = dict.fromkeys(("map@0.5", "map@[.5:.95]", "mar@[.5:.95]", "ap@0.5", "ap@[.5:.95]", "f1", "precision", "recall",
                            "iou", "presence_roc_auc"), True)
OVERALL = ("map@0.5", "map@[.5:.95]", "mar@[.5:.95]")
CONFIDENCE = 0.5  # before validation has chosen one


@dataclass(frozen=True)
class Prediction:
    """scores: float32 (frames, classes), 0..1. boxes: float32 (frames, classes, 4), x_min, y_min, x_max, y_max in native
    pixels. confidence: the score from which a box counts. agreement: float32 (frames, classes), the share of the models
    whose boxes lie together."""
    scores: np.ndarray
    boxes: np.ndarray
    confidence: float
    agreement: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """bool (frames, classes): boxes that count."""
        return self.scores.astype(np.float64) >= self.confidence


@dataclass(frozen=True)
class Detection(SidedTask):
    """`task:` of a detection study; see tasks/__init__ for what each method is for.

    names: class -> what legends and figures call it. weights: class -> weight of its presence loss (1). presence_weight,
    heat_weight, overlap_weight, side_weight: of the parts of the loss (see `box_losses`). visible: share of a box that
    must stay in the frame for its structure to count as there, when an augmented image leaves it. background: channel that
    is drawn; colours: class -> "#rrggbb" or [r, g, b]. swap: class -> the class that it becomes in a mirror
    ({left_hip: right_hip}).

    Truth of a case: float32 (frames, classes, 5), present (0 or 1), x_min, y_min, x_max, y_max in native pixels. Targets:
    the same with centre x, centre y, width and height as shares of the grid.
    """
    weights: dict[str, float] = field(default_factory=dict)
    presence_weight: float = 1.0
    heat_weight: float = 1.0
    overlap_weight: float = 2.0
    side_weight: float = 5.0
    visible: float = 0.5

    drawn: ClassVar[str] = "solid boxes are the prediction"
    drawn_truth: ClassVar[str] = "dashed ones the truth"

    def __post_init__(self):
        require(len(self.classes) > 0, "data.classes", "none", "at least one structure")
        require(self.data.encoding == "regions" and not self.data.inside, "data", "encoding or inside",
                "neither: boxes may lie anywhere")
        require(not self.measurements, "measurements", list(self.measurements), "none: they are made of masks")
        require(not self.tolerance_mm, "report.tolerance_mm (--tolerance)", self.tolerance_mm, "none: it is for masks")
        self.check_names(weights=self.weights)
        self.check_drawing()
        self.check_swap()
        require(0 < self.visible <= 1, "task.visible", self.visible, "above 0, at most 1")
        for key in ("presence_weight", "heat_weight", "overlap_weight", "side_weight"):
            require(0 <= getattr(self, key) < float("inf"), f"task.{key}", getattr(self, key), "at least 0")
        require(all(0 < w < float("inf") for w in self.weights.values()), "task.weights", self.weights, "above 0")

    @property
    def selectable(self) -> dict[str, bool]:
        return SELECTABLE

    def selectable_classes(self, metric: str) -> tuple[str, ...]:
        """Classes that have a row of a selectable metric."""
        return (ALL,) if metric in OVERALL else self.classes if metric.startswith("ap@") else (*self.classes, ALL)

    @property
    def case_metrics(self) -> tuple[str, ...]:
        """Metrics that a single case has, the main one first."""
        return ("iou",)

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics that a person looks for first, as summary.csv names them."""
        return (*OVERALL, "ap@0.5", *(f"{metric}/{ALL}" for metric in ("f1", "iou", "iou_of_true_positives", "centre_error_px",
                                                                     "centre_error_mm", "presence_roc_auc")))

    @property
    def figures(self) -> tuple[str, ...]:
        """Metrics that script 4 draws by class and fold."""
        return ("iou", "centre_error_px", "centre_error_mm")

    @property
    def reads(self) -> dict[str, str]:
        return {"presence": "logits, per class", "boxes": "per class: centre x, centre y, width, height, as shares of the "
                                                          "columns and rows of the padded frame"}

    # --- preparation ---------------------------------------------------------------------------------------------

    def targets_shape(self, samples: int, size: Sequence[int]) -> tuple[int, ...]:
        return samples, len(self.classes), 5

    def native_truth(self, case: Case) -> np.ndarray:
        """float32 (frames, classes, 5); boxes of structures that are not there are 0."""
        boxes = np.stack([case.truth[name] for name in self.classes], axis=1)
        there = ~np.isnan(boxes).any(axis=2)
        return np.concatenate([there[..., None], np.where(there[..., None], boxes, 0)], axis=2).astype(np.float32)

    def encode(self, truth: np.ndarray, fit: Fit) -> np.ndarray:
        """Native truth -> float32 (frames, classes, 5)."""
        corners = fit.fit_points(truth[..., 1:].reshape(*truth.shape[:-1], 2, 2)) / np.array(fit.grid[::-1])
        low, high = corners[..., 0, :], corners[..., 1, :]
        boxes = np.concatenate([(low + high) / 2, high - low], axis=-1)
        return np.concatenate([truth[..., :1], boxes * truth[..., :1]], axis=-1).astype(np.float32)

    def facts(self, case: Case, truth: np.ndarray) -> dict[str, Any]:
        """Columns of cases.csv: the area of each structure's box, 0 where there is none."""
        _, row, column = case.header.geometry.spacing
        areas = (truth[..., 3] - truth[..., 1]) * (truth[..., 4] - truth[..., 2]) * row * column
        return {"size_unit": case.header.geometry.size_unit,
                **{f"size_{name}": float(area) for name, area in zip(self.classes, areas.sum(axis=0))}}

    def notes(self, headers: Sequence[Header], facts: Sequence[dict]) -> list[str]:
        """Structures that many images lack are worth a line, since they are what presence is learnt from."""
        return [*absence_notes(self.classes, self.present_in(facts)), *([] if self.swap else mirror_notes(self.classes))]

    def present_in(self, facts: Sequence[dict]) -> list[np.ndarray]:
        return [np.array([fact[f"size_{name}"] > 0 for name in self.classes]) for fact in facts]

    def truth_records(self, truth: np.ndarray, case) -> list[dict]:
        """Rows of training_set.csv: the boxes that are there."""
        return box_rows(self.classes, image_name(case), truth[..., 1:], truth[..., 0] > 0)

    def dataset_plots(self, truths: Iterable[np.ndarray], cases: Sequence) -> list:
        return dataset_plots(self, list(truths), cases)

    # --- training ------------------------------------------------------------------------------------------------

    def transform(self, targets, warp):
        """Targets (torch, float32 (B, K, 5)) under the batch's geometric augmentation; see `box_losses.warp_boxes`."""
        from lib.tasks.box_losses import warp_boxes
        return warp_boxes(targets, warp, self.visible, self.mirror_order)

    def present(self, targets: np.ndarray) -> np.ndarray:
        """bool (S, classes): which structures each target holds."""
        return targets[..., 0] > 0

    def loss(self, outputs, targets):
        """(scalar, parts) of a detector's outputs against targets float32 (B, K, 5), all torch."""
        from lib.tasks.box_losses import detection_loss
        return detection_loss(outputs, targets, [self.weights.get(name, 1.0) for name in self.classes],
                              {"presence": self.presence_weight, "heat": self.heat_weight,
                               "overlap": self.overlap_weight, "side": self.side_weight})

    # --- prediction ----------------------------------------------------------------------------------------------

    @property
    def confidence(self) -> float:
        return float(self.calibration.get("confidence", CONFIDENCE))

    def pooled_calibration(self, tasks: Sequence[Detection]) -> dict:
        """The mean of several models' confidences, for their fused prediction."""
        return {"confidence": float(np.mean([task.confidence for task in tasks]))}

    def decode(self, outputs: dict[str, np.ndarray], case) -> Prediction:
        """"presence" logits (frames, K) and "boxes" (frames, K, 4) of a whole case -> Prediction in native pixels."""
        logits = outputs["presence"].astype(np.float32, copy=False)
        centre, sides = np.split(outputs["boxes"].astype(np.float64), [2], axis=-1)
        corners = np.stack([centre - sides / 2, centre + sides / 2], axis=-2) * case.fit.grid[::-1]
        native = case.fit.restore_points(corners)
        native = np.clip(native, 0, case.geometry.shape[:0:-1])  # columns, rows
        scores = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
        return Prediction(scores, native.reshape(*scores.shape, 4).astype(np.float32), self.confidence, np.ones_like(scores))

    def fuse(self, predictions: Sequence[Prediction]) -> Prediction:
        """Of every structure the boxes that lie together, weighted by their scores (weighted boxes fusion); the mean
        score of all models."""
        scores, boxes = (np.stack([getattr(p, key) for p in predictions]) for key in ("scores", "boxes"))
        fused, agreement = np.empty_like(boxes[0]), np.empty_like(scores[0])
        for place in np.ndindex(scores.shape[1:]):
            fused[place], members = fuse_boxes(boxes[:, *place], scores[:, *place])
            agreement[place] = members.mean()
        return Prediction(scores.mean(axis=0), fused, float(np.mean([p.confidence for p in predictions])), agreement)

    def records(self, prediction: Prediction, truth, case) -> list[dict]:
        """Rows of predictions.csv: every structure with its score; `present` says which of them count."""
        more = {"present": prediction.found.astype(int), "agreement": prediction.agreement}
        return box_rows(self.classes, image_name(case), prediction.boxes, np.ones(prediction.scores.shape, bool),
                        prediction.scores, more)

    def documents(self, images: Sequence[dict], predictions: Sequence[dict], truths: Sequence[dict]) -> dict[str, Any]:
        """Predictions and truth in COCO's JSON: file name -> content."""
        return coco_documents(self.classes, images, predictions, truths)

    # --- scores --------------------------------------------------------------------------------------------------

    def score(self, prediction: Prediction, truth: np.ndarray, case, distances: bool = True) -> dict:
        """{(class, metric): value} of one case. `iou`: of a structure that is there, 0 where no box counts (a miss), NaN
        where it is absent; `centre_error`: of structures that are there and were found."""
        there, overlap = truth[..., 0] > 0, overlaps(prediction, truth)
        rows = {(name, "iou"): mean_of_defined(overlap[:, index]) for index, name in enumerate(self.classes)}
        rows[ALL, "iou"] = mean_of_defined(overlap.ravel())
        spacings = {"px": (1.0, 1.0)} | ({"mm": case.geometry.spacing_mm[1:]} if case.geometry.spacing_mm else {})
        both = there & prediction.found
        for unit, spacing in spacings.items():
            off = np.where(both, centre_distance(prediction.boxes, truth[..., 1:], spacing), np.nan)
            rows |= {(name, f"centre_error_{unit}"): mean_of_defined(off[:, i]) for i, name in enumerate(self.classes)}
            rows[ALL, f"centre_error_{unit}"] = mean_of_defined(off.ravel())
        rows |= {(name, "present_true"): float(there[:, i].any()) for i, name in enumerate(self.classes)}
        return rows | self.measure(prediction, case)

    def measure(self, prediction: Prediction, case) -> dict:
        """{(class, metric): value} of a case without truth."""
        rows = {(name, "score"): float(prediction.scores[:, i].max()) for i, name in enumerate(self.classes)}
        return rows | {(name, "present"): float(prediction.found[:, i].any()) for i, name in enumerate(self.classes)}

    def evidence(self, prediction: Prediction, truth: np.ndarray, case) -> dict:
        """Scores, boxes and truth of a case, and this model's confidence."""
        return {"patient": case.patient, "scores": prediction.scores, "boxes": prediction.boxes, "truth": truth,
                "confidence": prediction.confidence}

    def set_metrics(self, evidence: Sequence[dict]) -> Metrics:
        """Average precision and recall (COCO's rules), F1 at the confidence, presence: see `box_scores.set_metrics`."""
        return set_metrics(self.classes, evidence)

    def rankings(self, evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, list[str]]]:
        """See `box_scores.presence_rankings`."""
        return presence_rankings(self.classes, evidence)

    def set_facts(self, evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
        """Images with each structure, the confidence of a single model."""
        return set_facts(self.classes, evidence)

    @property
    def roc_words(self) -> RocWords:
        return RocWords("presence", "images", "An image that has the structure is positive, wherever the box lies; images are "
                        "ranked by the score of the structure's box.")

    def plots(self, evidence: Sequence[dict]) -> list:
        """Precision against recall at IoU 0.5, F1 against confidence, ROC of presence."""
        return [*precision_recall(self, evidence), *super().plots(evidence)]

    def calibrate(self, cases: Callable[[], Iterable[tuple[Prediction, np.ndarray, object]]]) -> dict:
        """The confidence with the greatest F1 over all structures of the validation cases. No cases, no calibration: {}."""
        evidence = [self.evidence(*one) for one in cases()]
        if not evidence:
            return {}
        by_class = [lists_of(evidence, index) for index in range(len(self.classes))]
        return {"confidence": best_confidence(*zip(*by_class)), "cases": len(evidence)}

    # --- pictures ------------------------------------------------------------------------------------------------

    def draw(self, frames: np.ndarray, prediction: Prediction | None, truth: np.ndarray | None, case, chosen=None,
             scale: float = 1) -> np.ndarray:
        """uint8 (frames, rows * scale, columns * scale, 3) on the native grid: boxes that count with their scores, the
        truth dashed; either of them alone, or the plain frames without both.

        frames: (n, channels, *grid) as stored; chosen: indices of the frames to draw (default: all).
        """
        return draw_frames(self, frames, prediction, truth, case, chosen, scale)

    def shown_frame(self, prediction: Prediction, truth: np.ndarray | None) -> int:
        """The frame with most structures, of the truth if it is known."""
        return shown_frame(prediction, truth)

    def side_by_side(self, frames: np.ndarray, prediction: Prediction, truth: np.ndarray | None, case) -> np.ndarray:
        """uint8 (rows, columns, 3): image, truth and prediction, upright."""
        return side_by_side(self, frames, prediction, truth, case)

    def truth_picture(self, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
        """uint8 (rows, columns, 3): the truth's boxes, upright."""
        return truth_picture(self, frames, truth, case)

    def wording(self, network: Mapping) -> Wording:
        return detection_wording(self, network)

    def frame_scores(self, prediction: Prediction, truth: np.ndarray | None) -> np.ndarray:
        """float (frames,): the mean IoU of the structures that are there; without truth the mean score of what was found."""
        frames = np.where(prediction.found, prediction.scores, np.nan) if truth is None else overlaps(prediction, truth)
        return np.array([mean_of_defined(frame) for frame in frames])


def overlaps(prediction: Prediction, truth: np.ndarray) -> np.ndarray:
    """float64 (frames, classes): IoU with the truth, 0 where no box counts, NaN where the structure is absent."""
    return np.where(truth[..., 0] > 0, iou(prediction.boxes, truth[..., 1:]) * prediction.found, np.nan)
