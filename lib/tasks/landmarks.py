"""Landmarks: where named points lie, by a heat map for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, ClassVar, Iterable, Mapping, Sequence

import numpy as np

from lib.data.case import Case, Header
from lib.evaluation.measurements import Mark, Measurement, make_measurements
from lib.evaluation.plots import RocWords
from lib.evaluation.points import fuse_points, radial_error
from lib.evaluation.statistics import mean_of_defined, youden_threshold
from lib.imaging.geometry import Fit
from lib.study import require
from lib.tasks.base import ALL, Metrics
from lib.tasks.box_tables import image_name
from lib.tasks.box_scores import presence_rankings
from lib.tasks.point_drawing import draw_frames, shown_frame, side_by_side, truth_picture
from lib.tasks.point_places import REACH, presence, read_maps
from lib.tasks.point_scores import PRESENCE, SUCCESS, case_scores, cumulative_errors, errors_of, set_facts, set_metrics
from lib.tasks.point_tables import dataset_plots, point_rows, side_notes
from lib.tasks.presence import SidedTask, absence_notes, mirror_notes
from lib.tasks.wording import Wording, landmarks_wording

# metrics that a best epoch can be chosen by -> whether larger is better
SELECTABLE = {"radial_error_px": False, "radial_error_mm": False, **dict.fromkeys((*SUCCESS, "presence_roc_auc"), True)}
CONFIDENCE = 0.5  # before validation has chosen one


@dataclass(frozen=True)
class Prediction:
    """places: float32 (frames, points, 2), x and y in native pixels, 0 at the first one's centre. mass: float32 (frames,
    points), 0..1, how much of the heat map lies about its peak. presence: float32 (frames, points), 0..1, whether the point is
    there, 1 where the task does not judge it. confidence: the presence from which a point counts. reach: (x, y), how far
    around a place its peak goes, in native pixels. agreement: float32 (frames, points), the share of the models whose
    places lie together."""
    places: np.ndarray
    mass: np.ndarray
    presence: np.ndarray
    confidence: float
    reach: tuple[float, float]
    agreement: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """bool (frames, points): points that count."""
        return self.presence.astype(np.float64) > self.confidence


@dataclass(frozen=True)
class Landmarks(SidedTask):
    """`task:` of a study of landmarks; see tasks/__init__ for what each method is for.

    names: point -> what legends and figures call it. sigma_px: standard deviation, in pixels of the grid (data.size), of the
    Gaussian that a heat map is taught. heat_weight, place_weight, presence_weight: of the parts of the loss (see
    `point_losses.landmark_loss`). presence_weight 0: every point is in every image, and always given; above 0, the network
    learns to say whether it is. background: channel that is drawn; colours: point -> "#rrggbb" or [r, g, b]. swap: point ->
    the point that it becomes in a mirror ({left_end: right_end}).

    Truth of a case: float32 (frames, points, 3), x, y in native pixels (0 at the first one's centre), visible (0 or 1).
    Targets: the same with x and y as shares of the columns and rows of the grid (0 at the first one's edge).
    """
    sized: ClassVar[bool] = False
    things: ClassVar[str] = "points"
    drawn: ClassVar[str] = "crosses are the prediction"
    drawn_truth: ClassVar[str] = "rings the truth"

    sigma_px: float = 2.0
    heat_weight: float = 1.0
    place_weight: float = 10.0
    presence_weight: float = 0.0

    def __post_init__(self):
        require(len(self.classes) > 0, "data.classes", "none", "the names of the points")
        require(self.data.encoding == "regions" and not self.data.inside, "data", "encoding or inside",
                "neither: they are for masks")
        require(not self.tolerance_mm, "report.tolerance_mm (--tolerance)", self.tolerance_mm, "none: it is for masks")
        self.check_drawing()
        self.check_swap()
        require(0.7 <= self.sigma_px <= min(self.data.size) / 8, "task.sigma_px", self.sigma_px,
                f"0.7 (a narrower Gaussian falls between two pixels) to {min(self.data.size) / 8:g} (an eighth of data.size)")
        for key in ("heat_weight", "place_weight", "presence_weight"):
            require(0 <= getattr(self, key) < float("inf"), f"task.{key}", getattr(self, key), "at least 0")
        require(self.heat_weight + self.place_weight > 0, "task.heat_weight", "0 like task.place_weight",
                "one of them above 0: they are what places are learnt from")
        self.measuring  # an unknown name or key stops script 1 already

    @cached_property
    def measuring(self) -> list[Measurement]:
        """The functions behind `measurements:`. Raises InputError."""
        return make_measurements(self.measurements, self.classes, reads="points")

    @property
    def judged(self) -> bool:
        """Whether the network says if a point is there."""
        return self.presence_weight > 0

    @property
    def selectable(self) -> dict[str, bool]:
        return SELECTABLE if self.judged else {name: larger for name, larger in SELECTABLE.items() if name not in PRESENCE}

    def selectable_classes(self, metric: str) -> tuple[str, ...]:
        """Classes that have a row of a selectable metric."""
        return *self.classes, ALL

    @property
    def case_metrics(self) -> tuple[str, ...]:
        """Metrics that a single case has, the main one first."""
        return ("radial_error_px",)

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics that a person looks for first, as summary.csv names them."""
        measured = [f"{metric}_{kind}" for measurement in self.measuring for metric in measurement.metrics
                    for kind in ("error", "abs_error")]
        return (*(f"{metric}/{ALL}" for metric in ("radial_error_px", "radial_error_mm", "radial_error_median_px",
                                                   "radial_error_median_mm", *SUCCESS, "presence_roc_auc")), *measured)

    @property
    def figures(self) -> tuple[str, ...]:
        """Metrics that script 4 draws by class and fold."""
        return ("radial_error_px", "radial_error_mm")

    @property
    def reads(self) -> dict[str, str]:
        return {"logits": "(batch, points, rows, columns) of the padded frame: per point a heat map, to be put through a softmax "
                          "over all its places"}

    # --- preparation ---------------------------------------------------------------------------------------------

    def targets_shape(self, samples: int, size: Sequence[int]) -> tuple[int, ...]:
        return samples, len(self.classes), 3

    def truth_bytes(self, shape: Sequence[int]) -> int:
        return shape[0] * len(self.classes) * 3 * 4

    def native_truth(self, case: Case) -> np.ndarray:
        """float32 (frames, points, 3); the places of points that are not there are 0."""
        places = np.stack([case.truth[name] for name in self.classes], axis=1)
        there = ~np.isnan(places).any(axis=2, keepdims=True)
        return np.concatenate([np.where(there, places, 0), there], axis=2).astype(np.float32)

    def encode(self, truth: np.ndarray, fit: Fit) -> np.ndarray:
        """Native truth -> float32 (frames, points, 3)."""
        shares = fit.fit_points(truth[..., :2] + 0.5) / np.array(fit.grid[::-1])
        return np.concatenate([shares * truth[..., 2:], truth[..., 2:]], axis=-1).astype(np.float32)

    def facts(self, case: Case, truth: np.ndarray) -> dict[str, Any]:
        """Columns of cases.csv: of each point x and y in the first frame that has it, empty where none has."""
        facts: dict[str, Any] = {}
        for index, name in enumerate(self.classes):
            seen = truth[truth[:, index, 2] > 0, index, :2]
            facts |= {f"{axis}_{name}": float(seen[0, i]) if len(seen) else None for i, axis in enumerate("xy")}
        return facts

    def notes(self, headers: Sequence[Header], facts: Sequence[dict]) -> list[str]:
        """Absent points are worth a line, and so are names that change sides in a mirror."""
        absent = absence_notes(self.classes, self.present_in(facts))
        if absent and not self.judged:
            absent = [f"{absent[0]}; these points are not trained on there, but will be placed in every image, unless "
                      "task.presence_weight is above 0"]
        sides = [] if self.swap else mirror_notes(self.classes)
        return [*absent, *sides, *side_notes(self.classes, facts, self.swapped)]

    def present_in(self, facts: Sequence[dict]) -> list[np.ndarray]:
        return [np.array([fact[f"x_{name}"] is not None for name in self.classes]) for fact in facts]

    def truth_records(self, truth: np.ndarray, case) -> list[dict]:
        """Rows of training_set.csv: the points in the layout that they are read from."""
        return point_rows(self.classes, image_name(case), truth[..., :2], truth[..., 2] > 0)

    def dataset_plots(self, truths: Iterable[np.ndarray], cases: Sequence) -> list:
        return dataset_plots(self, list(truths), cases)

    # --- training ------------------------------------------------------------------------------------------------

    def transform(self, targets, warp):
        """Targets (torch, float32 (B, P, 3)) under the batch's geometric augmentation; see `point_losses.warp_points`."""
        from lib.tasks.point_losses import warp_points
        return warp_points(targets, warp, self.mirror_order)

    def present(self, targets: np.ndarray) -> np.ndarray:
        """bool (S, points): which points each target holds."""
        return targets[..., 2] > 0

    def loss(self, outputs, targets):
        """(scalar, parts) of `outputs["logits"]` (B, P, H, W) against targets float32 (B, P, 3), all torch."""
        from lib.tasks.point_losses import landmark_loss
        return landmark_loss(outputs["logits"], targets, self.sigma_px, {
            "heat": self.heat_weight, "place": self.place_weight, "presence": self.presence_weight})

    # --- prediction ----------------------------------------------------------------------------------------------

    @property
    def confidence(self) -> float:
        return float(self.calibration.get("confidence", CONFIDENCE))

    def pooled_calibration(self, tasks: Sequence[Landmarks]) -> dict:
        """The mean of several models' confidences, for their fused prediction."""
        return {"confidence": float(np.mean([task.confidence for task in tasks]))} if self.judged else {}

    def decode(self, outputs: dict[str, np.ndarray], case) -> Prediction:
        """Heat logits of a whole case (frames, points, *grid) -> Prediction in native pixels."""
        places, mass = read_maps(outputs["logits"], self.sigma_px)
        native = np.clip(case.fit.restore_points(places), 0, case.geometry.shape[:0:-1]) - 0.5  # columns, rows
        corners = case.fit.restore_points(np.array([[0.0, 0.0], [REACH * self.sigma_px] * 2]))
        there = presence(outputs["logits"]) if self.judged else np.ones(mass.shape, np.float32)
        return Prediction(native.astype(np.float32), mass.astype(np.float32), there, self.confidence,
                          tuple((corners[1] - corners[0]).tolist()), np.ones_like(there))

    def fuse(self, predictions: Sequence[Prediction]) -> Prediction:
        """Of every point the places that lie together, weighted by how much of their maps lies there (see `fuse_points`): a
        model that sees it elsewhere is outvoted, and lowers the mass. The mean presence of all models."""
        places, masses = (np.stack([getattr(p, key) for p in predictions]) for key in ("places", "mass"))
        fused, mass, agreement = np.empty_like(places[0]), np.empty_like(masses[0]), np.empty_like(masses[0])
        for at in np.ndindex(masses.shape[1:]):
            fused[at], together = fuse_points(places[:, *at], masses[:, *at], predictions[0].reach)
            mass[at], agreement[at] = (masses[:, *at] * together).mean(), together.mean()
        return Prediction(fused, mass, np.mean([p.presence for p in predictions], axis=0),
                          float(np.mean([p.confidence for p in predictions])), predictions[0].reach, agreement)

    def records(self, prediction: Prediction, truth, case) -> list[dict]:
        """Rows of predictions.csv, in the layout that points are read from: the points that count, how sure each place is, (how
        surely the point is there,) and the share of the models that agree."""
        more = {"confidence": prediction.mass, **({"presence": prediction.presence} if self.judged else {}),
                "agreement": prediction.agreement}
        return point_rows(self.classes, image_name(case), prediction.places, prediction.found, more)

    # --- scores --------------------------------------------------------------------------------------------------

    def score(self, prediction: Prediction, truth: np.ndarray, case, distances: bool = True) -> dict:
        """{(class, metric): value} of one case: see `point_scores.case_scores`; and every measurement of prediction and truth."""
        there = truth[..., 2] > 0
        rows = case_scores(self.classes, errors_of(prediction.places, truth, case.geometry), prediction.found,
                           max(case.geometry.shape[1:]))
        if self.judged:
            rows |= {(name, "present_true"): float(there[:, i].any()) for i, name in enumerate(self.classes)}
        true = self.measured(truth[..., :2], there, case.geometry)
        return rows | self.measure(prediction, case) | {(c, f"{metric}_true"): value for (c, metric), value in true.items()}

    def measure(self, prediction: Prediction, case) -> dict:
        """{(class, metric): value} of a case without truth."""
        rows = {(name, "confidence"): float(prediction.mass[:, i].max()) for i, name in enumerate(self.classes)}
        if self.judged:
            rows |= {(name, "present"): float(prediction.found[:, i].any()) for i, name in enumerate(self.classes)}
        return rows | self.measured(prediction.places, prediction.found, case.geometry)

    def measured(self, places: np.ndarray, there: np.ndarray, geometry) -> dict[tuple[str, str], float]:
        """{(class, metric): value} of all measurements. places: (frames, points, 2), there: bool (frames, points)."""
        named = self._named(places, there)
        return {key: value for measurement in self.measuring for key, value in measurement(named, geometry).values.items()}

    def _named(self, places: np.ndarray, there: np.ndarray) -> dict[str, np.ndarray]:
        known = np.where(there[..., None], places.astype(np.float64), np.nan)
        return {name: known[:, index] for index, name in enumerate(self.classes)}

    def marks(self, prediction: Prediction, case) -> list[Mark]:
        """What the measurements draw: lines from point to point, ellipses."""
        return self.marks_of(prediction.places, prediction.found, case)

    def marks_of(self, places: np.ndarray, there: np.ndarray, case) -> list[Mark]:
        named = self._named(places, there)
        return [mark for measurement in self.measuring for mark in measurement(named, case.geometry).marks]

    def evidence(self, prediction: Prediction, truth: np.ndarray, case) -> dict:
        """Errors, presence and its truth (frames, points, 1), and this model's confidence."""
        return {"patient": case.patient, "errors": errors_of(prediction.places, truth, case.geometry),
                "scores": prediction.presence, "truth": truth[..., 2:], "confidence": prediction.confidence}

    def set_metrics(self, evidence: Sequence[dict]) -> Metrics:
        """Median and 95th percentile of the errors, presence: see `point_scores.set_metrics`."""
        return set_metrics(self.classes, evidence, self.judged)

    def rankings(self, evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, list[str]]]:
        """See `box_scores.presence_rankings`."""
        return presence_rankings(self.classes, evidence) if self.judged else {}

    def set_facts(self, evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
        """How many points there are, and images with each."""
        return set_facts(self.classes, evidence, self.judged)

    @property
    def roc_words(self) -> RocWords:
        return RocWords("presence", "images", "An image that has the point is positive, wherever it was placed; images are "
                        "ranked by the probability that it is there.")

    def plots(self, evidence: Sequence[dict]) -> list:
        """How large a share of the points lies within each error; where presence is judged, its ROC."""
        return [*cumulative_errors(self, evidence), *super().plots(evidence)]

    def calibrate(self, cases: Callable[[], Iterable[tuple[Prediction, np.ndarray, object]]]) -> dict:
        """Where presence is judged, the confidence with the greatest Youden's index over all points of the validation cases.
        No cases, or nothing to judge: {}."""
        evidence = [self.evidence(*one) for one in cases()] if self.judged else []
        if not evidence:
            return {}
        scores, there = (np.concatenate([one[key].ravel() for one in evidence]) for key in ("scores", "truth"))
        return {"confidence": youden_threshold(scores, there > 0, CONFIDENCE), "cases": len(evidence)}

    # --- pictures ------------------------------------------------------------------------------------------------

    def draw(self, frames: np.ndarray, prediction: Prediction | None, truth: np.ndarray | None, case, chosen=None,
             scale: float = 1) -> np.ndarray:
        """uint8 (frames, rows * scale, columns * scale, 3) on the native grid: a cross with its name where a point was found, a
        ring where it is; either of them alone, or the plain frames without both.

        frames: (n, channels, *grid) as stored; chosen: indices of the frames to draw (default: all).
        """
        return draw_frames(self, frames, prediction, truth, case, chosen, scale)

    def shown_frame(self, prediction: Prediction, truth: np.ndarray | None) -> int:
        """The frame with most points, of the truth if it is known."""
        return shown_frame(prediction, truth)

    def side_by_side(self, frames: np.ndarray, prediction: Prediction, truth: np.ndarray | None, case) -> np.ndarray:
        """uint8 (rows, columns, 3): image, truth and prediction with what was measured, upright."""
        return side_by_side(self, frames, prediction, truth, case)

    def truth_picture(self, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
        """uint8 (rows, columns, 3): the truth's points, upright."""
        return truth_picture(self, frames, truth, case)

    def wording(self, network: Mapping) -> Wording:
        return landmarks_wording(self)

    def sheet_frames(self, prediction: Prediction, truth: np.ndarray | None) -> list[tuple[str, int]] | None:
        """Of a photograph with its truth the mean error, in native pixels, above its picture; else the worst and best frames."""
        if truth is None or len(truth) != 1 or not truth[..., 2].any():
            return None
        error = float(radial_error(prediction.places, truth[..., :2])[truth[..., 2] > 0].mean())
        return [(f"mean error {error:.1f} px", 0)]

    def frame_scores(self, prediction: Prediction, truth: np.ndarray | None) -> np.ndarray:
        """float (frames,): how near the points that are there lie on average, 1 for all in their place, 0 for far away (a
        Gaussian of the error, as in COCO's keypoint similarity; at the reach of a peak it is 0.6). Without truth the mean
        mass of what was found."""
        if truth is None:
            near = np.where(prediction.found, prediction.mass, np.nan)
        else:
            apart = (prediction.places - truth[..., :2]) / np.array(prediction.reach)
            near = np.where(truth[..., 2] > 0, np.exp(-0.5 * (apart ** 2).sum(axis=-1)) * prediction.found, np.nan)
        return np.array([mean_of_defined(frame) for frame in near])
