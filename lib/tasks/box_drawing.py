"""Pictures of a detection: boxes with their scores over every frame, and image, truth and prediction side by side."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from lib.imaging.boxes import draw_boxes
from lib.imaging.captions import row_of
from lib.imaging.painting import Colour, Upright, canvas, panel_scale
from lib.tasks.drawing import PANEL_PX, THUMBNAIL_PX, native_image


def draw_frames(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case, chosen: Sequence[int] | None,
                scale: float) -> np.ndarray:
    """See Detection.draw."""
    image = native_image(task, frames, case)
    pictures = []
    for frame in range(len(image)) if chosen is None else chosen:
        picture = canvas(image[frame], scale)
        dashed = () if truth is None else lines_of(task, truth[frame, :, 1:], truth[frame, :, 0] > 0, names=False)
        solid = () if prediction is None else lines_of(task, prediction.boxes[frame], prediction.found[frame],
                                                       prediction.scores[frame])
        pictures.append(painted(picture, scale, solid, dashed))
    return np.stack(pictures)


def shown_frame(prediction, truth: np.ndarray | None) -> int:
    """See Detection.shown_frame."""
    return fullest_frame(prediction.found if truth is None else truth[..., 0])


def side_by_side(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case) -> np.ndarray:
    """See Detection.side_by_side."""
    frame = shown_frame(prediction, truth)
    scale = panel_scale(case.geometry, *PANEL_PX)
    plain, view = canvas(native_image(task, frames, case)[frame], scale), Upright(case.geometry, scale)
    panels = [("image", plain)]
    if truth is not None:
        panels.append(("truth", painted(plain, scale, lines_of(task, truth[frame, :, 1:], truth[frame, :, 0] > 0))))
    panels.append(("prediction", painted(plain, scale, lines_of(task, prediction.boxes[frame], prediction.found[frame],
                                                                prediction.scores[frame]))))
    return row_of([(title, view.show(panel)) for title, panel in panels],
                  {task.shown(name): colour for name, colour in task.palette.items()})


def truth_picture(task, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
    """See Detection.truth_picture."""
    frame, scale = fullest_frame(truth[..., 0]), panel_scale(case.geometry, *THUMBNAIL_PX)
    plain = canvas(native_image(task, frames, case)[frame], scale)
    lines = lines_of(task, truth[frame, :, 1:], truth[frame, :, 0] > 0, names=False)
    return Upright(case.geometry, scale).show(painted(plain, scale, lines))


def lines_of(task, boxes: np.ndarray, chosen: np.ndarray, scores: np.ndarray | None = None,
             names: bool = True) -> list[tuple[np.ndarray, str, Colour]]:
    """(box in native pixels, words, colour) of the chosen of boxes (classes, 4)."""
    lines = []
    for index in np.flatnonzero(chosen):
        name = task.classes[index]
        words = name if scores is None else f"{name} {scores[index]:.2f}"
        lines.append((boxes[index], words if names else "", task.palette[name]))
    return lines


def painted(picture: np.ndarray, scale: float, solid: Sequence[tuple], dashed: Sequence[tuple] = ()) -> np.ndarray:
    """A copy of the picture, which is enlarged by `scale`, with solid and dashed boxes as `lines_of` gives them."""
    boxes, words, colours = zip(*solid, *dashed) if solid or dashed else ((), (), ())
    return draw_boxes(picture, np.array(boxes).reshape(-1, 4) * scale, words, colours,
                      dashed=[False] * len(solid) + [True] * len(dashed))


def fullest_frame(present: np.ndarray) -> int:
    """The frame with most structures; present: (frames, classes)."""
    return int(np.asarray(present).sum(axis=1).argmax())
