"""What tasks have in common: their keys from the study, and answers that most of them give."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Iterable, Sequence

from lib.imaging.painting import Colour, class_colours, parse_colour
from lib.study import Data, InputError, one_of

ALL = "all"  # the class of a row that speaks of all classes


@dataclass(frozen=True)
class Task:
    """data, measurements and tolerance_mm: of the study. calibration: what validation has chosen, {} before."""
    data: Data
    measurements: dict[str, dict]
    calibration: dict
    tolerance_mm: float = 0.0

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

    def check_window(self, window) -> None:
        """Any window will do."""

    def notes(self, headers: Sequence, facts: Sequence[dict]) -> list[str]:
        return []

    def dataset_plots(self, truths: Iterable, cases: Sequence) -> list:
        return []

    def plots(self, evidence: Sequence[dict]) -> list:
        return []

    def volume(self, prediction) -> None:
        """Nothing is saved per pixel."""

    def agreement(self, predictions: Sequence) -> None:
        """Nothing is saved per pixel."""

    def truth_bytes(self, shape: Sequence[int]) -> int:
        """About how much room the packed truth of a case with native frames of this shape takes."""
        return 0

    def records(self, prediction, case) -> list[dict]:
        return []

    def truth_records(self, truth, case) -> list[dict]:
        return []

    def documents(self, images: Sequence[dict], predictions: Sequence[dict], truths: Sequence[dict]) -> dict[str, Any]:
        return {}

    def marks(self, prediction, case) -> list:
        return []

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
