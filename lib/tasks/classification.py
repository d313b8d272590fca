"""Classification: one class of several for a whole image or clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Iterable, Mapping, Sequence

import numpy as np

from lib.data.case import Case, Header
from lib.evaluation.plots import Line, RocWords
from lib.evaluation.statistics import youden_threshold
from lib.imaging.geometry import Fit
from lib.study import one_of, require
from lib.tasks import class_drawing, class_plots, class_scores
from lib.tasks.base import ALL, Metrics, NamedTask
from lib.tasks.class_cohort import check_class_splits, class_notes, class_strata
from lib.tasks.class_maps import spread_maps
from lib.tasks.wording import Wording, classification_wording

# metrics that a best epoch can be chosen by -> whether larger is better
SELECTABLE = {**dict.fromkeys(("accuracy", "balanced_accuracy", "roc_auc", "pr_auc", "f1", "precision", "recall", "specificity",
                               "kappa", "truth_probability"), True),
              **dict.fromkeys(("brier", "log_loss", "calibration_error"), False)}
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (Lin et al. 2017)
THRESHOLD = 0.5  # before validation has chosen one
TRUTH_BYTES = 128 + 8  # of a file that holds one number behind its header
FARTHEST = 80.0  # logits beyond it are cut, so that no probability is 0


@dataclass(frozen=True)
class Prediction:
    """probabilities: float64 (classes,), which add up to 1 (in float32 all beyond 0.99999997 are alike). threshold: of two
    classes, the second is predicted above it; None for more. cam: float32 (classes, frames, h, w), 0 or more, where the
    network looked for each class, spread evenly over the grid; None if the network does not tell. frames, frame_rate (1/s, 0
    if unknown): of the case."""
    probabilities: np.ndarray
    threshold: float | None
    cam: np.ndarray | None = None
    frames: int = 1
    frame_rate: float = 0.0

    @property
    def predicted(self) -> int:
        """Index of the class: the most likely one, of two the second if its probability is above the threshold."""
        if self.threshold is None:
            return int(self.probabilities.argmax())
        return int(float(self.probabilities[1]) > self.threshold)


@dataclass(frozen=True)
class Classification(NamedTask):
    """`task:` of a classification study; see tasks/__init__ for what each method is for.

    Two classes have one output, the logit of the second, which is the positive one, and a threshold that validation
    chooses; more have an output each, and the most likely one is predicted.

    criterion: cross_entropy, bce (the same of two classes), or focal (see `class_losses`); by default bce of two classes,
    cross_entropy of more. alpha, gamma: of the focal loss; alpha, the weight of the positive class, is for two classes only.
    weights: class -> weight of its samples in the loss (1). label_smoothing: targets become s/K and 1 - s + s/K (not with
    focal). names: class -> what legends and figures call it. background: channel that is drawn; colours: class -> "#rrggbb"
    or [r, g, b], of its bar.

    Truth of a case: int64 (1,), index of its class. Targets: the same, one for each case.
    """
    criterion: str = ""
    alpha: float = ALPHA
    gamma: float = GAMMA
    weights: dict[str, float] = field(default_factory=dict)
    label_smoothing: float = 0.0

    whole_series: ClassVar[bool] = True
    sized: ClassVar[bool] = False
    coloured: ClassVar[bool] = False
    drawn: ClassVar[str] = "warm colours are where the network looked, for the class that it predicts"

    def __post_init__(self):
        require(len(self.classes) > 1, "data.classes", list(self.classes) or "none", "at least two classes")
        require(self.data.encoding == "regions" and not self.data.inside, "data", "encoding or inside",
                "neither: a case has one class as a whole")
        require(not self.data.folds.stratify, "data.folds.stratify", list(self.data.folds.stratify),
                "none: folds are always dealt by class")
        require(not self.measurements, "measurements", list(self.measurements), "none: they are made of masks")
        require(not self.tolerance_mm, "report.tolerance_mm (--tolerance)", self.tolerance_mm, "none: it is for masks")
        self.check_names(weights=self.weights)
        self.check_drawing()
        if self.criterion:
            one_of(self.criterion, ("cross_entropy", "bce", "focal"), "task.criterion")
        require(self.binary or self.criterion != "bce", "task.criterion", f"bce with {len(self.classes)} classes",
                "cross_entropy or focal: a case has one class only; bce is for two")
        require(0 <= self.alpha <= 1, "task.alpha", self.alpha, "0..1")
        require(0 <= self.gamma < float("inf"), "task.gamma", self.gamma, "at least 0")
        require(all(0 < w < float("inf") for w in self.weights.values()), "task.weights", self.weights, "above 0")
        require(self.criterion == "focal" or (self.alpha, self.gamma) == (ALPHA, GAMMA), "task.alpha or task.gamma",
                [self.alpha, self.gamma], "none without criterion: focal")
        require(self.binary or self.alpha == ALPHA, "task.alpha", self.alpha, "none with more than two classes")
        require(0 <= self.label_smoothing < 1, "task.label_smoothing", self.label_smoothing, "0 <= s < 1")
        require(not (self.label_smoothing and self.criterion == "focal"), "task.label_smoothing", self.label_smoothing,
                "0 with the focal loss")

    @property
    def binary(self) -> bool:
        return len(self.classes) == 2

    @property
    def selectable(self) -> dict[str, bool]:
        return SELECTABLE

    def selectable_classes(self, metric: str) -> tuple[str, ...]:
        """Classes that have a row of a selectable metric."""
        of_each = metric == "truth_probability" or metric in class_scores.PER_CLASS and not self.binary
        return (*self.classes, ALL) if of_each else (ALL,)

    @property
    def case_metrics(self) -> tuple[str, ...]:
        """Metrics that a single case has, the main one first."""
        return ("truth_probability", "accuracy", "brier")

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics that a person looks for first, as summary.csv names them."""
        overall = ("accuracy", "balanced_accuracy", "roc_auc", "pr_auc", "precision", "f1", "specificity", "kappa", "brier",
                   "calibration_error", "threshold")
        return ("recall", *(f"{metric}/{ALL}" for metric in overall))

    @property
    def figures(self) -> tuple[str, ...]:
        """Metrics that script 4 draws by class and fold."""
        return ("truth_probability",)

    @property
    def reads(self) -> dict[str, str]:
        if self.binary:
            return {"class_logits": f"logit of {self.classes[1]}, against {self.classes[0]}"}
        return {"class_logits": "logits, per class"}

    @property
    def outputs(self) -> int:
        return 1 if self.binary else len(self.classes)

    # --- preparation ---------------------------------------------------------------------------------------------

    @property
    def targets_dtype(self) -> str:
        return "int64"

    def targets_shape(self, samples: int, size: Sequence[int]) -> tuple[int, ...]:
        return (samples,)

    def native_truth(self, case: Case) -> np.ndarray:
        """int64 (1,): index of the class that the case is of."""
        return np.flatnonzero(np.concatenate([case.truth[name] for name in self.classes]))[:1].astype(np.int64)

    def encode(self, truth: np.ndarray, fit: Fit) -> np.ndarray:
        """Native truth -> int64 (1,)."""
        return truth

    def truth_bytes(self, shape: Sequence[int]) -> int:
        return TRUTH_BYTES

    def facts(self, case: Case, truth: np.ndarray) -> dict[str, Any]:
        """Columns of cases.csv: the class."""
        return {"class": self.classes[truth[0]]}

    def contradiction(self, one: dict, other: dict) -> str:
        return f"{one['class']} and {other['class']}" if one["class"] != other["class"] else ""

    def notes(self, headers: Sequence[Header], facts: Sequence[dict]) -> list[str]:
        """How many cases each class has, where that differs much."""
        return class_notes(self.classes, facts)

    def strata(self, patients: Sequence[str], facts: Sequence[dict]) -> dict[str, list[str]]:
        """patient -> [the class of most of its cases]."""
        return class_strata(patients, facts)

    def present_in(self, facts: Sequence[dict]) -> list[np.ndarray]:
        return [np.array([fact["class"] == name for name in self.classes]) for fact in facts]

    def check_selection(self, metric: str, targets: Iterable[np.ndarray]) -> None:
        """targets: int64 (S,) of each validation case. Raises InputError for ROC or PR curves of a single class."""
        held = [self.classes[index] for index in np.unique(np.concatenate(list(targets)))]
        require(metric not in ("roc_auc", "pr_auc") or len(held) > 1, f"training.select={metric}",
                f"only {' and '.join(held)} among the validation cases of this fold", "cases of two classes: prepare with "
                "another data.folds.seed, fewer folds or a larger -v, or select loss or accuracy")

    def check_splits(self, rows: Sequence[dict], facts: dict[str, list[dict]]) -> list[str]:
        """Notes on classes that a part of a fold lacks. Raises InputError for training cases of a single class."""
        return check_class_splits(self.classes, rows, facts)

    def truth_records(self, truth: np.ndarray, case) -> list[dict]:
        """Row of training_set.csv."""
        return [{"class": self.classes[truth[0]]}]

    def dataset_plots(self, truths: Iterable[np.ndarray], cases: Sequence) -> list:
        return class_plots.dataset_plots(self, list(truths), cases)

    # --- training ------------------------------------------------------------------------------------------------

    def transform(self, targets, warp):
        """Targets (torch, int64 (B,)) as they are: no geometry changes the class."""
        return targets

    def present(self, targets: np.ndarray) -> np.ndarray:
        """bool (S, classes): the class of each target."""
        return targets[:, None] == np.arange(len(self.classes))

    def groups(self, present: np.ndarray) -> np.ndarray:
        """int (S,): the balanced sampler draws each class equally often."""
        return present.argmax(axis=1)

    def low_quality(self, targets) -> tuple:
        """(bool (B,), int64 (B,)), torch: samples of the second class may be degraded, and are of the first one then. Raises
        InputError for more than two classes."""
        return (targets == 1, targets.new_zeros(len(targets))) if self.binary else super().low_quality(targets)

    def loss(self, outputs, targets):
        """(scalar, parts) of class_logits (B, outputs) against targets int64 (B,), all torch."""
        from lib.tasks.class_losses import class_loss
        return class_loss(outputs["class_logits"], targets, self.criterion or "cross_entropy",
                          [self.weights.get(name, 1.0) for name in self.classes], self.alpha, self.gamma, self.label_smoothing)

    # --- prediction ----------------------------------------------------------------------------------------------

    @property
    def threshold(self) -> float | None:
        return float(self.calibration.get("threshold", THRESHOLD)) if self.binary else None

    def pooled_calibration(self, tasks: Sequence[Classification]) -> dict:
        """The mean of several models' thresholds, for their fused prediction."""
        return {"threshold": float(np.mean([task.threshold for task in tasks]))} if self.binary else {}

    def gathered(self, outputs: dict) -> dict:
        """The mean of class_logits (windows, outputs) -> (1, outputs); torch or NumPy."""
        return {"class_logits": outputs["class_logits"].mean(0)[None]}

    def decode(self, outputs: dict[str, np.ndarray], case) -> Prediction:
        """"class_logits" (W, outputs), and maybe "cam" (W, classes, t, h, w) or (W, classes, h, w), of the windows of a
        case -> Prediction."""
        logits = outputs["class_logits"].astype(np.float64).mean(axis=0)
        logits = np.append(0.0, logits) if self.binary else logits
        powers = np.exp(np.maximum(logits - logits.max(), -FARTHEST))
        frames = case.geometry.shape[0]
        cam = spread_maps(outputs["cam"], frames, self.window) if "cam" in outputs else None
        return Prediction(powers / powers.sum(), self.threshold, cam, frames,
                          float(case.geometry.source.get("frame_rate") or 0))

    def fuse(self, predictions: Sequence[Prediction]) -> Prediction:
        """The mean of the probabilities, of the thresholds, and of the maps of those that have some."""
        first, maps = predictions[0], [one.cam for one in predictions if one.cam is not None]
        threshold = float(np.mean([one.threshold for one in predictions])) if self.binary else None
        probabilities = np.mean([one.probabilities for one in predictions], axis=0)
        return Prediction(probabilities, threshold, np.mean(maps, axis=0) if maps else None, first.frames, first.frame_rate)

    def records(self, prediction: Prediction, truth: np.ndarray | None, case) -> list[dict]:
        """Row of predictions.csv: truth, predicted, threshold (of two classes), p_<class>."""
        return [class_scores.prediction_row(self.classes, prediction, None if truth is None else int(truth[0]))]

    def mistakes(self, records: Sequence[dict]) -> list[dict] | None:
        """Those rows that are wrong, the surest first, with `kind` and `confidence`; None if no row has a truth."""
        return class_scores.wrong_rows(self.classes, records)

    # --- scores --------------------------------------------------------------------------------------------------

    def score(self, prediction: Prediction, truth: np.ndarray, case, distances: bool = True) -> dict:
        """{(class, metric): value} of one case: see `class_scores.case_scores`. There are no distances."""
        rows = class_scores.case_scores(self.classes, prediction.probabilities, prediction.predicted, int(truth[0]))
        return rows | self.measure(prediction, case)

    def measure(self, prediction: Prediction, case) -> dict:
        """{(class, metric): value} of a case without truth."""
        return {(name, "probability"): float(value) for name, value in zip(self.classes, prediction.probabilities)}

    def evidence(self, prediction: Prediction, truth: np.ndarray, case) -> dict:
        """Truth, decision and probabilities of a case, and this model's threshold."""
        return {"patient": case.patient, "truth": int(truth[0]), "predicted": prediction.predicted,
                "probabilities": prediction.probabilities, "threshold": prediction.threshold}

    def set_metrics(self, evidence: Sequence[dict]) -> Metrics:
        """See `class_scores.set_metrics`."""
        return class_scores.set_metrics(self.classes, evidence)

    def rankings(self, evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, list[str]]]:
        """See `class_scores.rankings`."""
        return class_scores.rankings(self.classes, evidence)

    def set_facts(self, evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
        """The threshold of a single model."""
        return class_scores.set_facts(self.classes, evidence)

    @property
    def roc_words(self) -> RocWords:
        return RocWords(self.shown(self.classes[1])) if self.binary else RocWords(rule="Each class against all others.")

    def ranked(self, evidence: Sequence[dict]) -> list[Line]:
        """A line per class; of two classes one for all cases and one per fold, of the positive class."""
        return list(class_plots.by_fold(self, evidence)) if self.binary else super().ranked(evidence)

    def plots(self, evidence: Sequence[dict]) -> list:
        """ROC, precision and recall, confusion, reliability."""
        return [*super().plots(evidence), *class_plots.set_plots(self, evidence)]

    def tables(self, evidence: Sequence[dict]) -> dict[str, list[dict]]:
        return {"confusion_matrix.csv": class_plots.confusion_rows(self, evidence)}

    def calibrate(self, cases: Callable[[], Iterable[tuple[Prediction, np.ndarray, object]]]) -> dict:
        """Of two classes the threshold with the greatest sensitivity + specificity on the validation cases (Youden). No
        cases, no calibration: {}."""
        pairs = [(float(prediction.probabilities[1]) if self.binary else 0.0, truth[0] == 1) for prediction, truth, _ in cases()]
        if not pairs:
            return {}
        both = self.binary and len({positive for _, positive in pairs}) == 2  # else there is nothing to choose by
        return ({"threshold": youden_threshold(*zip(*pairs), default=THRESHOLD)} if both else {}) | {"cases": len(pairs)}

    # --- pictures ------------------------------------------------------------------------------------------------

    def draw(self, frames: np.ndarray, prediction: Prediction | None, truth: np.ndarray | None, case, chosen=None,
             scale: float = 1) -> np.ndarray:
        """uint8 (frames, rows * scale, columns * scale, 3) on the native grid: where the network looked for the class that it
        predicts, on one scale for all frames of the case; the plain frames without a prediction or its maps. The truth
        has no place in an image: `words` says it.

        frames: (n, channels, *grid) as stored; chosen: indices of the frames to draw (default: all).
        """
        return class_drawing.draw_frames(self, frames, prediction, truth, case, chosen, scale)

    def shown_frame(self, prediction: Prediction, truth: np.ndarray | None) -> int:
        """The middle frame."""
        return round((prediction.frames - 1) / 2)

    def words(self, prediction: Prediction | None, truth: np.ndarray | None) -> str:
        """The predicted class with its probability; the true one without a prediction."""
        index = int(truth[0]) if prediction is None else prediction.predicted
        name = self.shown(self.classes[index])
        return name if prediction is None else f"{name} {prediction.probabilities[index]:.2f}"

    def side_by_side(self, frames: np.ndarray, prediction: Prediction, truth: np.ndarray | None, case) -> np.ndarray:
        """uint8 (rows, columns, 3): the image, or three frames of a clip, and the likeliest classes as bars, upright."""
        return class_drawing.side_by_side(self, frames, prediction, truth, case)

    def truth_picture(self, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
        """uint8 (rows, columns, 3): the image, or the middle frame, above its class."""
        return class_drawing.truth_picture(self, frames, truth, case)

    def wording(self, network: Mapping) -> Wording:
        return classification_wording(self)

    def frame_scores(self, prediction: Prediction, truth: np.ndarray | None) -> np.ndarray:
        """float (frames,): of every frame the probability of the true class; without truth of the predicted one."""
        index = prediction.predicted if truth is None else int(truth[0])
        return np.full(prediction.frames, float(prediction.probabilities[index]))

    def sheet_name(self, prediction: Prediction, case) -> str:
        return case.case if prediction.cam is None else f"gradcam_{case.case}"

    def sheet_frames(self, prediction: Prediction, truth: np.ndarray | None) -> list[tuple[str, int]]:
        """Evenly spaced frames; the first one's caption says what was predicted, and whether that is right."""
        return class_drawing.sheet_frames(self, prediction, truth)

    def animated(self, frames: np.ndarray, prediction: Prediction, truth: np.ndarray | None, case) -> np.ndarray | None:
        """uint8 (n, rows, columns, 3): the overlays of a clip, every frame or every second, third, ... one so that there are
        at most 64; None without maps."""
        return class_drawing.animated(self, frames, prediction, truth, case)
