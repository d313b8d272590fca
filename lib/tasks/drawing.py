"""Pictures of a segmentation: overlays of every frame, and image, truth and prediction side by side."""

from __future__ import annotations

from functools import wraps
from typing import Callable, Sequence

import numpy as np

from lib.evaluation.metrics import overlap
from lib.imaging.captions import row_of
from lib.imaging.painting import TRUTH, Colour, Upright, canvas, contours, filled, overlay, panel_scale, stretched

PANEL_PX = (384, 640)  # about, at most, on the longer side
THUMBNAIL_PX = (256, 320)
THICK_STEP = 4  # pixels of the contour from dot to dot, where the truth is drawn alone


def once_per_case(restore: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """`restore`, which gives its last answer, read only, as long as it is asked for the very same objects: a case is drawn
    several times in a row, for its pictures and for the layers of the report, and restoring a volume is most of the work."""
    last: tuple[tuple, np.ndarray | None] = ((), None)

    @wraps(restore)
    def remembering(*asked) -> np.ndarray:
        nonlocal last
        before, image = last
        if image is None or any(one is not other for one, other in zip(before, asked, strict=True)):
            image = restore(*asked)
            image.flags.writeable = False
            last = asked, image
        return image

    return remembering


@once_per_case
def native_image(task, frames: np.ndarray, case) -> np.ndarray:
    """uint8 (frames, rows, columns): the background channel of stored frames (n, channels, *grid), restored, from the 1st to
    the 99.7th percentile of the series; of pictures `in_colour` their `native_colours`, (frames, rows, columns, 3)."""
    if in_colour(task, frames, case):
        return native_colours(frames, case, range(len(frames)))
    return stretched(case.fit.restore(frames[:, task.background].astype(np.float32)))


def in_colour(task, frames: np.ndarray, case) -> bool:
    """Whether the channels of stored frames (n, channels, *grid) are the red, green and blue of photographs or loops, and
    the study does not choose one of them to be drawn."""
    return case.geometry.flat and frames.shape[1] == 3 and task.background == -1


def native_colours(frames: np.ndarray, case, chosen: Sequence[int]) -> np.ndarray:
    """uint8 (chosen, rows, columns, 3) of stored frames (n, 3, *grid), restored: red, green and blue as they are stored,
    because contrast of their own would change hues; z-scores from the 1st to the 99.7th percentile of all three."""
    if frames.dtype == np.uint8:  # frame by frame: a loop's colours would take much memory as float
        native = np.stack([as_levels(case.fit.restore(frames[frame].astype(np.float32))) for frame in chosen])
    else:
        native = stretched(case.fit.restore(frames.astype(np.float32)))[list(chosen)]
    return np.ascontiguousarray(np.moveaxis(native, 1, -1))


def as_levels(values: np.ndarray) -> np.ndarray:
    """float, 0..255 -> uint8, rounded."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def draw_frames(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case, chosen: Sequence[int] | None,
                scale: float) -> np.ndarray:
    """See Segmentation.draw."""
    image = native_image(task, frames, case)
    chosen = list(range(len(image)) if chosen is None else chosen)
    if prediction is None and truth is not None:
        return np.stack([dotted(image[frame], dict(zip(task.classes, truth[:, frame])), task.palette, scale) for frame in chosen])
    index = {name: task.classes.index(name) for name in task.outlines or task.classes}
    outlines = {} if prediction is None else {name: prediction.masks[i][chosen] for name, i in index.items()}
    truths = {} if truth is None else {name: truth[i][chosen] for name, i in index.items()}
    heat = None
    if task.heat and prediction is not None:
        inner = task.classes.index(task.heat)
        parent = task.parents[inner]
        heat = (prediction.probabilities[inner] * (prediction.masks[parent] if parent >= 0 else 1))[chosen]
    return overlay(image[chosen], outlines, truths, heat, scale, task.palette)


def dotted(image: np.ndarray, masks: dict[str, np.ndarray], colours: dict[str, Colour], scale: float) -> np.ndarray:
    """uint8 (h, w) or (h, w, 3) -> uint8 (h * scale, w * scale, 3): the outline of each class, bool (h, w), as dots of its
    colour and white ones in turn, of two pixels by two."""
    picture = canvas(image, scale)
    bottom, right = picture.shape[0] - 1, picture.shape[1] - 1
    for name, mask in masks.items():
        for contour in contours(mask, picture.shape[1::-1]):
            for turn, colour in enumerate((TRUTH[0], colours[name])):
                x, y = contour[turn * THICK_STEP::2 * THICK_STEP, 0].T
                for across, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
                    picture[np.minimum(y + down, bottom), np.minimum(x + across, right)] = colour
    return picture


def shown_frame(prediction, truth: np.ndarray | None) -> int:
    """See Segmentation.shown_frame."""
    return fullest_frame(truth if truth is not None and truth.any() else prediction.masks)


def side_by_side(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case) -> np.ndarray:
    """See Segmentation.side_by_side."""
    frame = shown_frame(prediction, truth)
    image, scale = native_image(task, frames, case)[frame], panel_scale(case.geometry, *PANEL_PX)
    view = Upright(case.geometry, scale)

    def panel(masks: np.ndarray | None) -> np.ndarray:
        named = {} if masks is None else {name: mask[frame] for name, mask in zip(task.classes, masks)}
        return view.show(filled(image, named, task.palette, scale))

    panels = [("image", panel(None))]
    if truth is not None:
        panels.append(("truth", panel(truth)))
    return row_of([*panels, ("prediction", panel(prediction.masks))], task.palette)


def truth_picture(task, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
    """See Segmentation.truth_picture."""
    frame, scale = fullest_frame(truth), panel_scale(case.geometry, *THUMBNAIL_PX)
    outlines = {name: truth[index, [frame]] for index, name in enumerate(task.classes)}
    picture = overlay(native_image(task, frames, case)[[frame]], outlines, {}, None, scale, task.palette)[0]
    return Upright(case.geometry, scale).show(picture)


def fullest_frame(masks: np.ndarray) -> int:
    """The frame that holds most of the innermost class present; masks: bool (classes, frames, rows, columns)."""
    present = [mask for mask in masks if mask.any()] or list(masks)
    return int(present[-1].sum(axis=(1, 2)).argmax())


def frame_scores(prediction, truth: np.ndarray | None, chosen: Sequence[int]) -> np.ndarray:
    """float (frames,): mean Dice of the classes `chosen` that truth or prediction has in each frame (0 where only one of
    them has it), NaN where neither has any. Without truth: how sure the model is there (0..1)."""
    scores = np.full((len(chosen), prediction.masks.shape[1]), np.nan)
    for row, index in enumerate(chosen):
        for frame, mask in enumerate(prediction.masks[index]):
            if truth is None:
                scores[row, frame] = prediction.probabilities[index, frame][mask].mean() if mask.any() else np.nan
            elif truth[index, frame].any():
                scores[row, frame] = overlap(mask, truth[index, frame])["dice"]
            elif mask.any():
                scores[row, frame] = 0.0
    known = ~np.isnan(scores).all(axis=0)
    result = np.full(scores.shape[1], np.nan)
    result[known] = np.nanmean(scores[:, known], axis=0)
    return result
