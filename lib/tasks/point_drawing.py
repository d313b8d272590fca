"""Pictures of landmarks: points and measured lines over every frame, and image, truth and prediction side by side."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from lib.imaging.captions import draw_marks, row_of
from lib.imaging.painting import Upright, canvas, panel_scale
from lib.imaging.points import draw_points
from lib.tasks.drawing import PANEL_PX, THUMBNAIL_PX, native_image


def draw_frames(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case, chosen: Sequence[int] | None,
                scale: float) -> np.ndarray:
    """See Landmarks.draw."""
    image = native_image(task, frames, case)
    pictures = []
    for frame in range(len(image)) if chosen is None else chosen:
        picture = canvas(image[frame], scale)
        nowhere = np.full((len(task.classes), 2), np.nan)
        points = np.concatenate([nowhere if prediction is None else found_points(prediction, frame),
                                 nowhere if truth is None else true_points(truth[frame])])
        names = [*task.classes, *("" for _ in task.classes)]
        rings = [False] * len(task.classes) + [True] * len(task.classes)
        pictures.append(draw_points(picture, (points + 0.5) * scale - 0.5, names, [*task.palette.values()] * 2, rings))
    return np.stack(pictures)


def shown_frame(prediction, truth: np.ndarray | None) -> int:
    """See Landmarks.shown_frame."""
    return fullest_frame(prediction.found if truth is None else truth[..., 2])


def side_by_side(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case) -> np.ndarray:
    """See Landmarks.side_by_side."""
    frame = shown_frame(prediction, truth)
    scale = panel_scale(case.geometry, *PANEL_PX)
    view = Upright(case.geometry, scale)
    plain = view.show(canvas(native_image(task, frames, case)[frame], scale))
    panels = [("image", plain)]
    if truth is not None:
        marks = task.marks_of(truth[..., :2], truth[..., 2] > 0, case)
        panels.append(("truth", panel(task, plain, view, true_points(truth[frame]), marks, frame, rings=True)))
    marks = task.marks(prediction, case)
    panels.append(("prediction", panel(task, plain, view, found_points(prediction, frame), marks, frame)))
    return row_of(panels, {task.shown(name): colour for name, colour in task.palette.items()})


def truth_picture(task, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
    """See Landmarks.truth_picture."""
    frame, scale = fullest_frame(truth[..., 2]), panel_scale(case.geometry, *THUMBNAIL_PX)
    view = Upright(case.geometry, scale)
    plain = view.show(canvas(native_image(task, frames, case)[frame], scale))
    return panel(task, plain, view, true_points(truth[frame]), [], frame, rings=True)


def panel(task, plain: np.ndarray, view: Upright, points: np.ndarray, marks: Sequence, frame: int,
          rings: bool = False) -> np.ndarray:
    """The view of a frame with its points (classes, 2), native x and y, and its measured lines; the legend names the points,
    because the lines have their numbers in the picture."""
    lined = draw_marks(plain, [mark for mark in marks if mark.frame == frame], view)
    return draw_points(lined, view.points(points[:, ::-1])[:, ::-1], [""] * len(points), list(task.palette.values()), rings)


def found_points(prediction, frame: int) -> np.ndarray:
    """float (classes, 2), NaN where a point does not count."""
    return np.where(prediction.found[frame, :, None], prediction.places[frame].astype(np.float64), np.nan)


def true_points(truth: np.ndarray) -> np.ndarray:
    """Truth of a frame (classes, 3) -> float (classes, 2), NaN where a point is absent."""
    return np.where(truth[:, 2:] > 0, truth[:, :2].astype(np.float64), np.nan)


def fullest_frame(present: np.ndarray) -> int:
    """The frame with most points; present: (frames, classes)."""
    return int(np.asarray(present).sum(axis=1).argmax())
