"""What tasks have in common: their keys from the study, and answers that most of them give."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable, ClassVar, Iterable, Mapping, Sequence

import numpy as np

from lib.evaluation.plots import Line, RocWords, roc_plot
from lib.evaluation.statistics import bootstrap_intervals
from lib.imaging.painting import Colour, class_colours, parse_colour
from lib.study import Data, InputError, Window, one_of, require
from lib.tasks.wording import Wording

ALL = "all"  # the class of a row that speaks of all classes
Metrics = Callable[[np.ndarray], dict[tuple[str, str], np.ndarray]]  # weights (n, R) of n cases -> {(class, metric): (R,)}


@dataclass(frozen=True)
class Task:
    """data, measurements, window and tolerance_mm: of the study. calibration: what validation has chosen, {} before.

    whole_series: a case is one sample, seen through windows of its series, instead of a sample per frame. sized: classes are
    regions, and facts say how large each is. coloured: pictures show each class in its colour; drawn, drawn_truth: how
    they show the prediction, and the truth beside it, in words.
    """
    data: Data
    measurements: dict[str, dict]
    calibration: dict
    window: Window = Window()
    tolerance_mm: float = 0.0

    whole_series: ClassVar[bool] = False
    sized: ClassVar[bool] = True
    coloured: ClassVar[bool] = True
    drawn: ClassVar[str] = ""
    drawn_truth: ClassVar[str] = ""

    @property
    def reads(self) -> dict[str, str]:
        """Outputs of the network that the task reads -> what they mean, for the metadata of ONNX files."""
        return {"logits": "per class"}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    def shown(self, name: str) -> str:
        """What pictures and figures call a class."""
        return name

    def with_calibration(self, calibration: dict) -> Task:
        return dataclasses.replace(self, calibration=calibration)

    def check_channels(self, channels: int) -> None:
        """Nothing here needs a certain channel."""

    def check_selection(self, metric: str, targets: Iterable[np.ndarray]) -> None:
        """Any validation cases have a score."""

    def check_window(self, window) -> None:
        """Any window will do."""

    def samples(self, frames: int) -> int:
        """How many samples a case of so many frames makes."""
        return 1 if self.whole_series else frames

    def gathered(self, outputs: dict) -> dict:
        """Outputs of a case's samples from those of its windows."""
        return outputs

    def check_splits(self, rows: Sequence[dict], facts: dict[str, list[dict]]) -> list[str]:
        """Any cases can be trained on."""
        return []

    def contradiction(self, one: dict, other: dict) -> str:
        """What is wrong if both are facts of the very same images; empty: nothing."""
        return ""

    def low_quality(self, targets) -> tuple:
        """Raises InputError: nothing here is called poor."""
        raise InputError("augmentation.synthetic_low_quality: this task has no class of poor images; it is for classification "
                         "into two classes, the first of which is the poor one")

    def present_in(self, facts: Sequence[dict]) -> list[np.ndarray]:
        """Of each case bool (classes,): which of them its facts say that it has."""
        raise NotImplementedError

    def notes(self, headers: Sequence, facts: Sequence[dict]) -> list[str]:
        return []

    def dataset_plots(self, truths: Iterable, cases: Sequence) -> list:
        return []

    @property
    def roc_words(self) -> RocWords:
        """What figures say of `rankings`."""
        return RocWords()

    def ranked(self, evidence: Sequence[dict]) -> list[Line]:
        """The lines of the ROC figure: `rankings` that hold both positives and negatives."""
        return [(self.shown(name), scores, positive) for (name, _), (scores, positive, _) in self.rankings(evidence).items()
                if positive.any() and not positive.all()]

    def plots(self, evidence: Sequence[dict]) -> list:
        """The ROC curves of what `rankings` ranks, all folds together; nothing where nothing is ranked."""
        if not self.rankings(evidence):
            return []
        return [roc_plot(self.ranked(evidence), self.roc_words, len({one.get("fold", "") for one in evidence}) > 1)]

    def volume(self, prediction) -> None:
        """Nothing is saved per pixel."""

    def agreement(self, predictions: Sequence) -> None:
        """Nothing is saved per pixel."""

    def truth_bytes(self, shape: Sequence[int]) -> int:
        """About how much room the packed truth of a case with native frames of this shape takes."""
        return 0

    def records(self, prediction, truth, case) -> list[dict]:
        return []

    def tables(self, evidence: Sequence[dict]) -> dict[str, list[dict]]:
        return {}

    def set_metrics(self, evidence: Sequence[dict]) -> Metrics:
        """A function of weights (n, R), how often each of the n pieces of evidence counts, that gives {(class, metric): (R,)},
        NaN where undefined; what depends on no weights is worked out once, before."""
        return lambda weights: {}

    def rankings(self, evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, list[str]]]:
        """What each ROC AUC of `set_metrics` ranks: (class, metric) -> scores (m,), whether they are of positives, bool (m,), and
        the m patients that they are of. (A mean over classes ranks nothing.)"""
        return {}

    def set_facts(self, evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
        """Numbers over the set that are no estimates and have no interval: thresholds, counts of cases."""
        return {}

    def score_set(self, evidence: Sequence[dict]) -> dict[tuple[str, str], float]:
        """{(class, metric): value} that need the whole set: every piece of evidence counts once."""
        once = self.set_metrics(evidence)(np.ones((len(evidence), 1)))
        return {key: float(values[0]) for key, values in once.items()} | self.set_facts(evidence)

    def intervals(self, evidence: Sequence[dict]) -> dict[tuple[str, str], tuple[float, float]]:
        """{(class, metric): (low, high)}, the 95 % intervals of `set_metrics`: see `statistics.bootstrap_intervals`."""
        return bootstrap_intervals(self.set_metrics(evidence), [one["patient"] for one in evidence])

    def mistakes(self, records: Sequence[dict]) -> list[dict] | None:
        """None: nothing is simply right or wrong."""
        return None

    def truth_records(self, truth, case) -> list[dict]:
        return []

    def documents(self, images: Sequence[dict], predictions: Sequence[dict], truths: Sequence[dict]) -> dict[str, Any]:
        return {}

    def marks(self, prediction, case) -> list:
        return []

    def shown_frame(self, prediction, truth) -> int:
        """The frame that one picture of a case shows: its only one, unless the task knows better."""
        return 0

    def words(self, prediction, truth) -> str:
        """What a picture says in words, of the prediction or (None) of the truth; empty where what is drawn says it all."""
        return ""

    def wording(self, network: Mapping) -> Wording | None:
        """What a methods section says of the task and, of its `network:`, what the loss depends on; None: nothing yet."""
        return None

    def sheet_name(self, prediction, case) -> str:
        return case.case

    def sheet_frames(self, prediction, truth) -> list[tuple[str, int]] | None:
        """None: the worst and the best."""
        return None

    def animated(self, frames: np.ndarray, prediction, truth, case) -> np.ndarray | None:
        return None

    # --- helpers -------------------------------------------------------------------------------------------------

    def check_names(self, **keys) -> None:
        """Raise InputError for a name in `task.<key>` that is no class."""
        for key, names in keys.items():
            for name in names:
                one_of(name, self.classes, f"task.{key}")

    def chosen_palette(self, colours: dict[str, Any]) -> dict[str, Colour]:
        """class -> (red, green, blue): its own of `task.colours`, else its turn. Raises InputError."""
        chosen = {}
        for name, colour in colours.items():
            try:
                chosen[name] = parse_colour(colour)
            except ValueError as error:
                raise InputError(f"task.colours.{name}: {error}") from None
        return class_colours(self.classes, chosen)


@dataclass(frozen=True)
class NamedTask(Task):
    """A task whose classes have names and colours of their own in pictures, over the image.

    names: class -> what legends and figures call it. background: channel that is drawn, -1 the last, of colour images all
    three. colours: class -> "#rrggbb" or [r, g, b].
    """
    names: dict[str, str] = field(default_factory=dict)
    background: int = -1
    colours: dict[str, Any] = field(default_factory=dict)

    def check_drawing(self) -> None:
        """Raise InputError for names and colours of no class, names that are not different, and colours that are none."""
        self.check_names(names=self.names, colours=self.colours)
        shown = [self.shown(name) for name in self.classes]
        require(len(set(shown)) == len(shown), "task.names", self.names, "different names")
        self.palette  # a bad colour stops script 1 already

    @cached_property
    def palette(self) -> dict[str, Colour]:
        """class -> (red, green, blue). Raises InputError."""
        return self.chosen_palette(self.colours)

    def shown(self, name: str) -> str:
        return self.names.get(name, name)

    def check_channels(self, channels: int) -> None:
        """Raises InputError if `background` is no channel."""
        require(-channels <= self.background < channels, "task.background", self.background,
                f"a channel, 0 to {channels - 1}, or -1 for the last")

    def worksheet(self, scores: dict) -> dict[str, float | str]:
        """{(class, metric): value} by the titles of a worksheet's columns: overall ones first."""
        ordered = sorted(scores.items(), key=lambda item: item[0][0] != ALL)
        return {metric if name == ALL else f"{metric} {name}": value for (name, metric), value in ordered}
