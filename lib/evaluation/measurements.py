"""Clinical read-outs of a segmentation or of landmarks: small functions by name, applied to prediction and truth alike.

In a study of masks:

    measurements:
      visible_share: {kind: share, part: flair_visible, whole: stroke}
      thickness: {kind: thickness, region: translucency}
      head_circumference: {kind: ellipse_circumference, region: head}

and of points:

    measurements:
      ofd: {kind: distance, start: ofd_1, stop: ofd_2}
      bpd: {kind: distance, start: bpd_1, stop: bpd_2}
      head_circumference: {kind: ellipse_circumference_of_diameters, diameters: [ofd, bpd]}

A share is a metric of the entry's name. A length is `<name>_px`, and `<name>_mm` too where the spacing is known. NaN
where a read-out is not defined.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, NamedTuple, Sequence

import numpy as np

from lib.evaluation.calipers import Ellipse, Segment, surrounding_ellipse, thickest
from lib.evaluation.points import ellipse_of_diameters
from lib.imaging.geometry import Geometry
from lib.study import InputError, build, one_of, require

WHOLE = "all"  # the class of a read-out that belongs to several points


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
    """An entry of `measurements:`. Called with the masks by class, bool (frames, rows, columns) on the native grid, or the
    points by class, float (frames, 2) x and y in native pixels (0 at the first one's centre, NaN where there is none), and
    their Geometry, it gives a Reading.

    region: the class that its values belong to. metrics: all that it may give, the most telling first.
    """
    name: str
    region: str
    metrics: tuple[str, ...]
    read: Callable[[dict[str, np.ndarray], Geometry], Reading]

    def __call__(self, found: dict[str, np.ndarray], geometry: Geometry) -> Reading:
        return self.read(found, geometry)


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


def distance(name: str, classes: Sequence[str], start: str, stop: str) -> Measurement:
    """Length of the straight line between two points, in the frame where it is longest; NaN where one of them is absent."""
    one_of(start, classes, f"measurements.{name}.start")
    one_of(stop, classes, f"measurements.{name}.stop")
    require(start != stop, f"measurements.{name}", f"{start} at both ends", "two points")

    def read(places, geometry):
        lines = _lines(places, start, stop)
        return _length(name, WHOLE, geometry, _longest(lines, geometry), named=True)
    return Measurement(name, WHOLE, (f"{name}_mm", f"{name}_px"), read)


def ellipse_circumference_of_diameters(name: str, classes: Sequence[str], others: dict[str, dict],
                                       diameters: tuple[str, str]) -> Measurement:
    """Circumference (Ramanujan's second approximation: see `calipers.Ellipse`) of the ellipse with these two diameters, each
    a `distance` among the study's measurements (`others`), in the frame where it is greatest.

    Of a fetal head: both diameters from outer to outer border, as Salomon et al. (ISUOG guidelines, Ultrasound Obstet.
    Gynecol. 53:715-723, 2019) measure circumferences; a BPD from outer to inner border makes it too small.
    """
    require(len(set(diameters)) == 2, f"measurements.{name}.diameters", list(diameters), "two different distances")
    known = [other for other, keys in others.items() if keys.get("kind") == "distance"]
    ends = []
    for diameter in diameters:
        one_of(diameter, known, f"measurements.{name}.diameters (an entry of kind distance)")
        ends.append([others[diameter].get(key) for key in ("start", "stop")])

    def read(places, geometry):
        first, second = (_lines(places, *pair) for pair in ends)
        ellipses = {frame: ellipse_of_diameters(first[frame], second[frame], geometry.spacing[1:])
                    for frame in first if frame in second}
        return _length(name, WHOLE, geometry, _longest(ellipses, geometry), named=True)
    return Measurement(name, WHOLE, (f"{name}_mm", f"{name}_px"), read)


def _lines(places: dict[str, np.ndarray], start: str, stop: str) -> dict[int, Segment]:
    """frame -> the line between two points, of the frames that have both."""
    ends = np.stack([places[start], places[stop]], axis=1)[..., ::-1].astype(np.float64)  # (frames, 2, row and column)
    return {int(frame): Segment(ends[frame]) for frame in np.flatnonzero(~np.isnan(ends).any(axis=(1, 2)))}


def _longest(lines: dict[int, Segment | Ellipse], geometry: Geometry) -> tuple[int, Segment | Ellipse] | None:
    return max(lines.items(), key=lambda item: item[1].length(geometry.spacing[1:]), default=None)


def _frames(mask: np.ndarray) -> list[int]:
    """Frames that hold any of the mask."""
    return np.flatnonzero(mask.any(axis=(1, 2))).tolist()


def _length(name: str, region: str, geometry: Geometry, found: tuple[int, Segment | Ellipse] | None,
            named: bool = False) -> Reading:
    """The Reading of a line in a frame, in px and, where the spacing is known, in mm; NaN without one. named: its mark says
    which one it is, and its length in one unit only, because a picture of points has several."""
    spacings = {"px": (1.0, 1.0)} | ({"mm": geometry.spacing_mm[1:]} if geometry.spacing_mm else {})
    if found is None:
        return Reading({(region, f"{name}_{unit}"): float("nan") for unit in spacings}, [])
    frame, line = found
    lengths = {unit: line.length(spacing) for unit, spacing in spacings.items()}
    texts = [f"{length:.1f} {unit}" for unit, length in lengths.items()]
    text = f"{name} {texts[-1]}" if named else ", ".join(texts)
    return Reading({(region, f"{name}_{unit}"): length for unit, length in lengths.items()},
                   [Mark(int(frame), line.points, line.closed, text)])


class Kind(NamedTuple):
    """make: gives the Measurement. reads: masks or points. of_others: whether it is made of other entries, `others`."""
    make: Callable[..., Measurement]
    reads: str
    of_others: bool = False


MEASUREMENTS = {
    "share": Kind(share, "masks"),
    "thickness": Kind(thickness, "masks"),
    "ellipse_circumference": Kind(ellipse_circumference, "masks"),
    "distance": Kind(distance, "points"),
    "ellipse_circumference_of_diameters": Kind(ellipse_circumference_of_diameters, "points", of_others=True),
}


# no measurement may stand in a score's place
RESERVED = re.compile(r"(dice|iou|precision|recall|sensitivity|specificity|accuracy|balanced_accuracy|f1|kappa|roc_auc|pr_auc|"
                      r"brier|log_loss|calibration_error|nsd|hd95|area|volume|false_positive|present|presence|cases|points|"
                      r"empty_truth_cases|images_with_it|tolerance_truth|centre_error|radial_error|score|confidence|threshold|"
                      r"probability|truth_probability)(_.*)?|.*_(error|loa_low|loa_high|missed|spurious|true|tolerant)")


def make_measurements(options: dict[str, dict], classes: Sequence[str], reads: str = "masks") -> list[Measurement]:
    """One Measurement for each entry of `measurements:`. reads: what the task has, masks or points. Raises InputError for an
    unknown kind, key or class, and for a kind that reads something else."""
    made = []
    fitting = [kind for kind, about in MEASUREMENTS.items() if about.reads == reads]
    for name, keys in options.items():
        keys = dict(keys)
        kind = keys.pop("kind", None)
        if kind is None:
            raise InputError(f"measurements.{name}: missing key kind; known: {', '.join(fitting)}")
        one_of(kind, tuple(MEASUREMENTS), f"measurements.{name}.kind")
        about = MEASUREMENTS[kind]
        require(about.reads == reads, f"measurements.{name}.kind", f"{kind}, which reads {about.reads}",
                f"one that reads {reads}, because that is what this task finds: {', '.join(fitting)}")
        if not re.fullmatch(r"\w+", name) or RESERVED.fullmatch(name):
            raise InputError(f"measurements.{name}: this is the name of a score, or holds more than letters, digits and _; "
                             "choose another")
        given = {"name": name, "classes": classes, **({"others": options} if about.of_others else {})}
        made.append(build(about.make, keys, f"measurements.{name}", **given))
    return made
