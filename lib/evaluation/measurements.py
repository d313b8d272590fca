"""Clinical read-outs of a segmentation: small functions by name, applied to prediction and truth alike.

In a study:

    measurements:
      visible_share: {kind: share, part: flair_visible, whole: stroke}
      thickness: {kind: thickness, region: translucency}
      head_circumference: {kind: ellipse_circumference, region: head}

A share is a metric of the entry's name. A length is `<name>_px`, and `<name>_mm` too where the spacing is known. NaN
where a read-out is not defined.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, NamedTuple, Sequence

import numpy as np

from lib.evaluation.calipers import Ellipse, Segment, surrounding_ellipse, thickest
from lib.imaging.geometry import Geometry
from lib.study import InputError, build, one_of


class Mark(NamedTuple):
    """What a picture shows of a measurement: a line through `points`, with `text` beside it.

    frame: its index in the case. points: float64 (n, 2) rows and columns in native pixels, 0 at the first pixel's
    centre. closed: whether the last point joins the first.
    """
    frame: int
    points: np.ndarray
    closed: bool
    text: str


class Reading(NamedTuple):
    """values: (class, metric) -> number; marks: where they were taken, empty where there is nothing to show."""
    values: dict[tuple[str, str], float]
    marks: list[Mark]


@dataclass(frozen=True)
class Measurement:
    """An entry of `measurements:`. Called with the masks by class, bool (frames, rows, columns) on the native grid, and
    their Geometry, it gives a Reading.

    region: the class that its values belong to. metrics: all that it may give, the most telling first.
    """
    name: str
    region: str
    metrics: tuple[str, ...]
    read: Callable[[dict[str, np.ndarray], Geometry], Reading]

    def __call__(self, masks: dict[str, np.ndarray], geometry: Geometry) -> Reading:
        return self.read(masks, geometry)


def share(name: str, classes: Sequence[str], part: str, whole: str | tuple[str, ...]) -> Measurement:
    """Volume (or area) of `part` as a share (0..1) of that of `whole`, one class or the union of several, counted
    where it lies in it; NaN where `whole` is empty."""
    union = (whole,) if isinstance(whole, str) else whole
    one_of(part, classes, f"measurements.{name}.part")
    for one in union:
        one_of(one, classes, f"measurements.{name}.whole")

    def read(masks, geometry):
        all_of_it = np.any([masks[one] for one in union], axis=0)
        total = np.count_nonzero(all_of_it)
        inside = np.count_nonzero(masks[part] & all_of_it)
        return Reading({(part, name): inside / total if total else float("nan")}, [])
    return Measurement(name, part, (name,), read)


def thickness(name: str, classes: Sequence[str], region: str) -> Measurement:
    """Greatest extent of `region` at right angles to its long axis, in any frame: see `calipers.thickest`."""
    one_of(region, classes, f"measurements.{name}.region")

    def read(masks, geometry):
        spacing = geometry.spacing[1:]
        found = [(frame, thickest(masks[region][frame], spacing)) for frame in _frames(masks[region])]
        return _length(name, region, geometry, max(found, key=lambda item: item[1].length(spacing), default=None))
    return Measurement(name, region, (f"{name}_mm", f"{name}_px"), read)


def ellipse_circumference(name: str, classes: Sequence[str], region: str) -> Measurement:
    """Circumference of the ellipse around `region`, in the frame with most of it: see `calipers.surrounding_ellipse`.

    A mask is measured as it is: one that includes the drawn outline, as those of HC18 do, gives about the line's
    width times pi more than the circumference in its table (1.2 mm on average).
    """
    one_of(region, classes, f"measurements.{name}.region")

    def read(masks, geometry):
        frame = max(_frames(masks[region]), key=lambda f: np.count_nonzero(masks[region][f]), default=None)
        ellipse = None if frame is None else (frame, surrounding_ellipse(masks[region][frame], geometry.spacing[1:]))
        return _length(name, region, geometry, ellipse)
    return Measurement(name, region, (f"{name}_mm", f"{name}_px"), read)


def _frames(mask: np.ndarray) -> list[int]:
    """Frames that hold any of the mask."""
    return np.flatnonzero(mask.any(axis=(1, 2))).tolist()


def _length(name: str, region: str, geometry: Geometry, found: tuple[int, Segment | Ellipse] | None) -> Reading:
    """The Reading of a line in a frame, in px and, where the spacing is known, in mm; NaN without one."""
    spacings = {"px": (1.0, 1.0)} | ({"mm": geometry.spacing_mm[1:]} if geometry.spacing_mm else {})
    if found is None:
        return Reading({(region, f"{name}_{unit}"): float("nan") for unit in spacings}, [])
    frame, line = found
    lengths = {unit: line.length(spacing) for unit, spacing in spacings.items()}
    text = ", ".join(f"{length:.1f} {unit}" for unit, length in lengths.items())
    return Reading({(region, f"{name}_{unit}"): length for unit, length in lengths.items()},
                   [Mark(int(frame), line.points, line.closed, text)])


MEASUREMENTS = {
    "share": share,
    "thickness": thickness,
    "ellipse_circumference": ellipse_circumference,
}


# no measurement may stand in a score's place
RESERVED = re.compile(r"(dice|iou|precision|recall|specificity|accuracy|nsd|hd95|area|volume|false_positive|present|cases|"
                      r"empty_truth_cases|tolerance_truth|presence)(_.*)?")


def make_measurements(options: dict[str, dict], classes: Sequence[str]) -> list[Measurement]:
    """One Measurement for each entry of `measurements:`. Raises InputError for an unknown kind, key or class."""
    made = []
    for name, keys in options.items():
        keys = dict(keys)
        kind = keys.pop("kind", None)
        if kind is None:
            raise InputError(f"measurements.{name}: missing key kind; known: {', '.join(MEASUREMENTS)}")
        one_of(kind, tuple(MEASUREMENTS), f"measurements.{name}.kind")
        if not re.fullmatch(r"\w+", name) or RESERVED.fullmatch(name):
            raise InputError(f"measurements.{name}: this is the name of a score, or holds more than letters, digits and _; "
                             "choose another")
        made.append(build(MEASUREMENTS[kind], keys, f"measurements.{name}", name=name, classes=classes))
    return made
