"""Pictures of a classification: where the network looked, and image, truth and the likeliest classes side by side."""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

from lib.imaging.boxes import legible
from lib.imaging.captions import DARK, GAP_PX, LINE_PX, TEXT, extent, row_of, shortened, write
from lib.imaging.painting import Colour, Upright, canvas, panel_scale, stretched
from lib.tasks.drawing import PANEL_PX, THUMBNAIL_PX, as_levels, in_colour, native_colours

CLIP_PX = (256, 320)  # longer side of each of a clip's frames: about, at most
CLIP_FRAMES, SHEET_FRAMES, ANIMATED_FRAMES = 3, 6, 64  # beside a prediction, on a contact sheet, at most in an animation
ANIMATED_PX = 320  # longer side, at most
FLOOR, OPACITY, DARKEST = 0.1, 0.7, 0.35  # of a map: up to which value it is clear, how opaque it is at 1, its first colour
NAME_PX = 220  # width up to which the name of a class makes room for itself
CARD_PX, BAR_PX, TOP = 300, 12, 3  # width of the card of classes, height of a bar, how many classes
WRONG = (255, 90, 90)  # no class has it


def draw_frames(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case, chosen: Sequence[int] | None,
                scale: float) -> np.ndarray:
    """See Classification.draw."""
    chosen = list(range(len(frames)) if chosen is None else chosen)
    pictures = [canvas(image, scale) for image in native_images(task, frames, case, chosen)]
    maps = None if prediction is None else heat_of(prediction)
    if maps is not None:
        seen = native_map(shown_part(frames), case)
        pictures = [heated(picture, native_map(maps[frame], case) * seen) for picture, frame in zip(pictures, chosen)]
    return np.stack(pictures)


def native_images(task, frames: np.ndarray, case, chosen: Sequence[int]) -> np.ndarray:
    """uint8 (chosen, rows, columns): the background channel of stored frames (n, channels, *grid), restored; of pictures
    `in_colour` their `native_colours`, (chosen, rows, columns, 3). Grey levels are shown as they are, because contrast may
    be what is judged; z-scores from the 1st to the 99.7th percentile of the series."""
    if in_colour(task, frames, case):
        return native_colours(frames, case, chosen)
    as_stored = frames.dtype == np.uint8
    part = np.asarray(frames[list(chosen)] if as_stored else frames)
    native = case.fit.restore(part[:, task.background].astype(np.float32))
    return as_levels(native) if as_stored else stretched(native)[list(chosen)]


def heat_of(prediction) -> np.ndarray | None:
    """float32 (frames, h, w), 0..1: the map of the predicted class, 1 where it is greatest in all frames; None without
    one, or if nothing spoke for the class."""
    if prediction.cam is None:
        return None
    maps = prediction.cam[prediction.predicted]
    most = float(maps.max(initial=0))
    return maps / most if most > 0 else None


def shown_part(frames: np.ndarray) -> np.ndarray:
    """float32 (rows, columns) of the grid: 1 where a loop of grey levels ever shows something, 0 around its sector, which
    preparation made black; all of a single image."""
    if len(frames) == 1 or frames.dtype != np.uint8:
        return np.ones(frames.shape[-2:], np.float32)
    return (frames.max(axis=(0, 1)) > 0).astype(np.float32)


def native_map(values: np.ndarray, case) -> np.ndarray:
    """A map (h, w) that lies evenly over the grid -> float32 (rows, columns) on the native frame."""
    on_grid = cv2.resize(np.float32(values), case.fit.grid[::-1], interpolation=cv2.INTER_LINEAR)
    return case.fit.restore(on_grid)


def heated(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3) under a map (0..1, any size): the greater, the brighter and the less transparent."""
    heat = np.clip(cv2.resize(heat, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR), 0, 1)
    colour = np.rint((DARKEST + (1 - DARKEST) * heat) * 255).astype(np.uint8)  # without black, which would hide dark tissue
    painted = cv2.applyColorMap(colour, cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = (np.sqrt(np.clip((heat - FLOOR) / (1 - FLOOR), 0, 1)) * OPACITY)[..., None]
    return np.rint(picture * (1 - opacity) + painted * opacity).astype(np.uint8)


# --- words -------------------------------------------------------------------------------------------------------


def verdict(task, prediction, truth: np.ndarray | None) -> str:
    """Which class, how sure, and whether it is right."""
    index = prediction.predicted
    said = f"{task.shown(task.classes[index])} {prediction.probabilities[index]:.2f}"
    if prediction.cam is not None and heat_of(prediction) is None:
        said = f"{said}, empty map: nothing spoke for it"
    if truth is None:
        return said
    return f"right: {said}" if truth[0] == index else f"WRONG: {said} (truth: {task.shown(task.classes[truth[0]])})"


def moment(frame: int, frame_rate: float) -> str:
    """Which frame, and its time if that is known."""
    return f"frame {frame + 1}" + (f", {frame / frame_rate:.2f} s" if frame_rate > 0 else "")


def evenly(frames: int, most: int) -> list[int]:
    """Up to `most` frames from the first to the last."""
    return np.unique(np.rint(np.linspace(0, frames - 1, min(most, frames))).astype(int)).tolist()


def sheet_frames(task, prediction, truth: np.ndarray | None) -> list[tuple[str, int]]:
    """See Classification.sheet_frames."""
    if prediction.frames == 1:
        return [(verdict(task, prediction, truth), 0)]
    first, *others = evenly(prediction.frames, SHEET_FRAMES)
    return [(f"frame {first + 1}, {verdict(task, prediction, truth)}", first),
            *((moment(frame, prediction.frame_rate), frame) for frame in others)]


def named_below(picture: np.ndarray, text: str, colour: Colour = TEXT) -> np.ndarray:
    """A picture above a line of text, as much of it as fits; a narrow picture gets room for it at its sides."""
    missing = max(0, min(extent(text)[0] + 2 * GAP_PX, NAME_PX) - picture.shape[1])
    picture = cv2.copyMakeBorder(picture, 0, 0, missing // 2, missing - missing // 2, cv2.BORDER_CONSTANT, value=DARK)
    strip = np.full((LINE_PX, picture.shape[1], 3), DARK, np.uint8)
    text = shortened(text, strip.shape[1] - 2 * GAP_PX)
    write(strip, text, ((strip.shape[1] - extent(text)[0]) / 2, GAP_PX), colour)
    return np.concatenate([picture, strip])


# --- pictures ----------------------------------------------------------------------------------------------------


def side_by_side(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case) -> np.ndarray:
    """See Classification.side_by_side."""
    single = len(frames) == 1
    scale = panel_scale(case.geometry, *(PANEL_PX if single else CLIP_PX))
    chosen = [round((part + 0.5) * len(frames) / CLIP_FRAMES - 0.5) for part in range(CLIP_FRAMES)]
    chosen = [0] if single else sorted(set(chosen))
    view, images = Upright(case.geometry, scale), native_images(task, frames, case, chosen)
    panels = [("image" if single else moment(frame, prediction.frame_rate), view.show(canvas(image, scale)))
              for frame, image in zip(chosen, images)]
    return row_of([*panels, ("prediction" if truth is None else "truth and prediction", card(task, prediction, truth))])


def card(task, prediction, truth: np.ndarray | None) -> np.ndarray:
    """uint8 (rows, CARD_PX, 3): truth, prediction, and the likeliest classes with their probabilities as bars."""
    order = np.argsort(-prediction.probabilities, kind="stable")
    shown = order[:TOP].tolist()
    if truth is not None and truth[0] not in shown:
        shown.append(int(truth[0]))
    names = [task.shown(name) for name in task.classes]
    lines = [] if truth is None else [("truth", names[truth[0]], TEXT)]
    right = truth is None or truth[0] == prediction.predicted
    lines.append(("predicted", names[prediction.predicted], TEXT if right else WRONG))
    if truth is not None:
        lines.append(("", "right" if right else "WRONG", TEXT if right else WRONG))
    step = LINE_PX + BAR_PX + 2 * GAP_PX
    picture = np.full((GAP_PX + len(lines) * LINE_PX + LINE_PX + len(shown) * step, CARD_PX, 3), DARK, np.uint8)
    left = 2 * GAP_PX + extent("predicted")[0]
    for number, (title, text, colour) in enumerate(lines):
        y = GAP_PX + number * LINE_PX
        write(picture, title, (GAP_PX, y))
        write(picture, shortened(text, CARD_PX - left - GAP_PX), (left, y), colour)
    for number, index in enumerate(shown):
        threshold = prediction.threshold if index == 1 else None
        bar(picture[GAP_PX + (len(lines) + 1) * LINE_PX + number * step:], names[index],
            float(prediction.probabilities[index]), task.palette[task.classes[index]], threshold)
    return picture


def bar(area: np.ndarray, name: str, probability: float, colour: Colour, threshold: float | None) -> None:
    """Write a class with its probability into the top of `area`, its bar below them, on it a tick where a threshold is."""
    value = f"{probability:.2f}"
    if threshold is not None:
        value = f"{value} (threshold {threshold:.2f})"
    room = CARD_PX - 2 * GAP_PX - extent(value)[0]
    write(area, shortened(name, room - 2 * GAP_PX), (GAP_PX, 0))
    write(area, value, (GAP_PX + room, 0))
    top, length = LINE_PX - GAP_PX // 2, CARD_PX - 2 * GAP_PX
    end = GAP_PX + round(length * min(max(probability, 0), 1))
    area[top:top + BAR_PX, GAP_PX:GAP_PX + length] = 60
    area[top:top + BAR_PX, GAP_PX:end] = colour
    if threshold is not None:
        place = GAP_PX + round((length - 2) * min(max(threshold, 0), 1))
        area[top - 3:top + BAR_PX + 3, max(0, place - 1):place + 3] = DARK
        area[top - 3:top + BAR_PX + 3, place:place + 2] = TEXT


def truth_picture(task, frames: np.ndarray, truth: np.ndarray, case) -> np.ndarray:
    """See Classification.truth_picture."""
    scale = panel_scale(case.geometry, *THUMBNAIL_PX)
    image = native_images(task, frames, case, [len(frames) // 2])[0]
    name = task.classes[truth[0]]
    return named_below(Upright(case.geometry, scale).show(canvas(image, scale)), task.shown(name), legible(task.palette[name]))


def animated(task, frames: np.ndarray, prediction, truth: np.ndarray | None, case) -> np.ndarray | None:
    """See Classification.animated."""
    if len(frames) == 1 or prediction.cam is None:
        return None
    chosen = range(0, len(frames), -(-len(frames) // ANIMATED_FRAMES))
    scale = panel_scale(case.geometry, ANIMATED_PX, ANIMATED_PX)
    pictures, view = draw_frames(task, frames, prediction, truth, case, chosen, scale), Upright(case.geometry, scale)
    text = verdict(task, prediction, truth)
    return np.stack([named_below(view.show(picture), text, WRONG if text.startswith("WRONG") else TEXT) for picture in pictures])
