"""Points as tables, in the layout that they are read from, and as plots of a data set."""

from __future__ import annotations

import re
from typing import Sequence

import cv2
import numpy as np

from lib.evaluation.plots import Bars, Dots, Maps, Matrix
from lib.evaluation.points import radial_error
from lib.tasks.box_tables import MAP_PX

DECIMALS = 3  # of a pixel: float32 has hardly more
NEAR_PX = 2.0  # of a map of where points lie: standard deviation of the spot that each makes
SAME_SIDE, FEW = 0.9, 5  # share of the images from which two points are said to lie side by side; too few to say


def point_rows(classes: Sequence[str], image: str, places: np.ndarray, there: np.ndarray,
               more: dict[str, np.ndarray] | None = None) -> list[dict]:
    """A row per frame: image, (frame of several,) <name>_x and <name>_y of every point in native pixels, empty where it is not
    there, then <name>_<key> of what `more` names.

    places: (frames, classes, 2); there, and the values of `more`: (frames, classes).
    """
    rows = []
    for frame, (points, chosen) in enumerate(zip(places, there)):
        row: dict = {"image": image} | ({"frame": frame} if len(places) > 1 else {})
        for name, point, shown in zip(classes, points, chosen):
            row |= {f"{name}_{axis}": round(float(value), DECIMALS) if shown else None for axis, value in zip("xy", point)}
        rows.append(row | {f"{name}_{key}": values[frame, index].item() for key, values in (more or {}).items()
                           for index, name in enumerate(classes)})
    return rows


def side_notes(classes: Sequence[str], facts: Sequence[dict], swapped: dict[str, str]) -> list[str]:
    """A line for each pair of points that differ by a number in their names (ofd_1, ofd_2), if they lie side by side in nearly
    all images but keep their names in a mirror, or the other way round: one of both is hardly meant, and nothing else would
    tell. facts: per case, its x_<name>; swapped: what `task.swap` says, both ways."""
    stems: dict[str, list[str]] = {}
    for name in classes:
        stems.setdefault(re.sub(r"\d+$", "", name), []).append(name)
    notes = []
    for pair in (pair for pair in stems.values() if len(pair) == 2):
        places = [[fact[f"x_{name}"] for name in pair] for fact in facts]
        apart = [other - one for one, other in places if one is not None is not other and one != other]
        if len(apart) < FEW:
            continue
        ahead = sum(step > 0 for step in apart)
        left, right = pair if 2 * ahead >= len(apart) else pair[::-1]
        share = f"{left} lies left of {right} in {max(ahead, len(apart) - ahead)} of {len(apart)} images"
        sided = max(ahead, len(apart) - ahead) >= SAME_SIDE * len(apart)
        if sided and left not in swapped:
            notes.append(f"{share}: if they are named by side, not by anatomy, say so in task.swap ({{{left}: {right}}}), or set "
                         "augmentation.flip_columns to false")
        if not sided and swapped.get(left) == right:
            notes.append(f"{share} only: they seem to be named by anatomy, not by side; a mirror should then keep their names "
                         "(take them out of task.swap)")
    return notes


def dataset_plots(task, truths: Sequence[np.ndarray], cases: Sequence) -> list:
    """What the points of a data set look like. truths: of every case, (frames, classes, 3); cases: with their geometry."""
    shown = tuple(task.shown(name) for name in task.classes)
    frames = np.concatenate(truths)
    sizes = np.concatenate([np.tile(case.geometry.shape[:0:-1], (len(truth), 1)) for truth, case in zip(truths, cases)])
    there, longer = frames[..., 2] > 0, sizes.max(axis=1)
    shares = (frames[..., :2] + 0.5) / sizes[:, None]
    apart = np.array([[mean_apart(frames[:, [i, j]], there[:, [i, j]], longer) if i != j else np.nan for j in range(len(shown))]
                      for i in range(len(shown))])
    counts = dict(zip(shown, there.sum(axis=0)))
    return [Bars("point_frequency", f"Points in {len(frames)} images", "images", counts, len(frames)),
            Maps("point_positions", "Where points lie (share of the images that have the point)",
                 {name: position_map(shares[there[:, i], i]) for i, name in enumerate(shown)}),
            Matrix("distances", "Mean distance (% of the image's longer side)", "", "", shown, shown, apart, whole_numbers=False),
            *measured_plots(task, truths, cases)]


def mean_apart(pairs: np.ndarray, there: np.ndarray, longer: np.ndarray) -> float:
    """Mean distance of two points, as percentages of the longer side, over the images that have both; pairs: (n, 2, 3)."""
    both = there.all(axis=1)
    apart = radial_error(pairs[both, 0, :2], pairs[both, 1, :2]) / longer[both]
    return float(apart.mean() * 100) if both.any() else float("nan")


def measured_plots(task, truths: Sequence[np.ndarray], cases: Sequence) -> list[Dots]:
    """The study's measurements of the truth, each against the first, in mm if all are known in mm."""
    if len(task.measuring) < 2:
        return []
    unit = "mm" if all(case.geometry.spacing_mm for case in cases) else "px"
    read = [task.measured(truth[..., :2], truth[..., 2] > 0, case.geometry) for truth, case in zip(truths, cases)]
    values = {m.name: np.array([one[m.region, f"{m.name}_{unit}"] for one in read]) for m in task.measuring}
    first, *others = values
    return [Dots("measurements", f"Measurements of {len(read)} cases", f"{first} ({unit})", unit,
                 {name: (values[first], values[name]) for name in others})]


def position_map(points: np.ndarray) -> np.ndarray:
    """float (MAP_PX, MAP_PX): share of the points (n, 2; shares of the frame) about each place."""
    cells = np.clip((points * MAP_PX).astype(int), 0, MAP_PX - 1)
    counts = np.zeros((MAP_PX, MAP_PX))
    np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
    spots = cv2.GaussianBlur(counts, (0, 0), NEAR_PX, borderType=cv2.BORDER_CONSTANT)
    return spots * (2 * np.pi * NEAR_PX ** 2) / max(1, len(points))  # a spot is 1 in its middle
