"""Overlays of one case: a colour NIfTI on the native grid, and a picture of its worst and best frames."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from lib.imaging.animation import SPEED, write_gif
from lib.imaging.captions import DARK, draw_marks, shortened, write
from lib.imaging.nifti import as_rgb, write_like
from lib.imaging.painting import Upright, panel_scale
from lib.imaging.writing import is_volume
from lib.workspace import replacing

FRAMES = 3  # of the worst, and of the best
PANEL_PX, LARGEST_PX = 360, 720
AIR = 24  # grey level up to which a pixel is air
MARGIN_PX = 22
WORST, WORST_PX = 8, 1000  # cases on the page of the worst, and its width


def write_heatmap(folder: Path, task, frames: np.ndarray, prediction, truth: np.ndarray | None, case) -> Path:
    """The contact sheet of a case under `folder`, called as the task says; for a NIfTI volume `<case>.nii.gz` (RGB) too,
    and a moving picture where the task has one. Returns the sheet's path.

    frames: (n, channels, *grid), as stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = case.geometry.source
    if is_volume(source):
        write_like(folder / f"{case.case}.nii.gz", as_rgb(task.draw(frames, prediction, None, case)), source)
    moving = task.animated(frames, prediction, truth, case)
    if moving is not None:
        rate = (source.get("frame_rate") or SPEED) * len(moving) / len(frames)  # it may leave frames out
        write_gif(folder / f"{task.sheet_name(prediction, case)}.gif", moving, rate)
    path, chosen = folder / f"{task.sheet_name(prediction, case)}.png", task.sheet_frames(prediction, truth)
    if chosen is not None:
        return write_picture(path, contact_sheet(task, frames, prediction, truth, case, chosen))
    scores = task.frame_scores(prediction, truth)
    if len(scores) == 1:  # the only frame of a photograph is neither worst nor best
        names = ("score",) * 2 if truth is not None else ("certainty",) * 2
    else:
        names = ("worst", "best") if truth is not None else ("least sure", "surest")
    chosen = [(caption(label, frame, scores), frame) for label, frame in worst_and_best(scores, names)]
    return write_picture(path, contact_sheet(task, frames, prediction, truth, case, chosen))


def write_picture(path: Path, picture: np.ndarray) -> Path:
    """Write uint8 RGB (h, w, 3) as a PNG, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes())
    return path


def draw_worst(folder: Path, rows: list[dict], metric: str, larger_is_better: bool = True) -> None:
    """`figures/worst_cases.png` of a results folder: the pictures of the cases with the worst `metric`, the worst first.

    rows: of results.csv; where a case has several (of several folds), its worst counts.
    """
    sign, scores = 1 if larger_is_better else -1, {}
    for row in rows:
        if row["class"] == "all" and row["metric"] == metric and row.get("case") and not math.isnan(row["value"]):
            for path in (folder / "pictures" / f"{row['case']}.png", folder / "pictures" / f"fold{row['fold']}" / f"{row['case']}.png"):
                if path.is_file():
                    scores[row["case"]] = min(scores.get(row["case"], (math.inf, path)), (sign * row["value"], path))
    worst = sorted((score, case, path) for case, (score, path) in scores.items())[:WORST]
    if not worst:
        return
    strips = []
    for score, case, path in worst:
        picture = cv2.imread(str(path))[..., ::-1]
        scale = WORST_PX / picture.shape[1]
        picture = cv2.resize(picture, (WORST_PX, max(1, round(picture.shape[0] * scale))), interpolation=cv2.INTER_AREA)
        strips.append(headed(picture, f"{case}: {metric} {sign * score:.2f}"))
    write_picture(folder / "figures" / "worst_cases.png", np.concatenate(strips))


def worst_and_best(scores: np.ndarray, names: tuple[str, str] = ("worst", "best")) -> list[tuple[str, int]]:
    """(label, frame) of up to FRAMES worst and best frames that have a score; the middle frame if none has."""
    order = [int(i) for i in np.argsort(scores, kind="stable") if not np.isnan(scores[i])]
    if not order:
        return [("no region", len(scores) // 2)]
    half = min(FRAMES, (len(order) + 1) // 2)
    return [(names[0], i) for i in order[:half]] + [(names[1], i) for i in order[half:][-FRAMES:][::-1]]


def contact_sheet(task, frames, prediction, truth, case, chosen) -> np.ndarray:
    """uint8 RGB: a column per chosen (caption, frame), the plain image above its overlay with what was measured on it, cut
    to what is not air."""
    indices = [frame for _, frame in chosen]
    scale = panel_scale(case.geometry, PANEL_PX, LARGEST_PX)
    plain = task.draw(frames, None, None, case, indices, scale)
    painted = task.draw(frames, prediction, truth, case, indices, scale)
    view = Upright(case.geometry, scale, content_box(plain))
    marks, columns = task.marks(prediction, case), []
    for (words, frame), above, below in zip(chosen, plain, painted):
        overlaid = draw_marks(view.show(below), [mark for mark in marks if mark.frame == frame], view)
        framed = [cv2.copyMakeBorder(panel, 0, 2, 0, 2, cv2.BORDER_CONSTANT, value=DARK)
                  for panel in (view.show(above), overlaid)]
        columns.append(headed(np.concatenate(framed), words))
    return np.concatenate(columns, axis=1)


def headed(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture below a line of text, as much of it as fits."""
    picture = cv2.copyMakeBorder(picture, MARGIN_PX, 0, 0, 0, cv2.BORDER_CONSTANT, value=DARK)
    write(picture, shortened(text, picture.shape[1] - 8), (4, 6), letters=0.42)
    return picture


def caption(label: str, frame: int, scores: np.ndarray) -> str:
    """Above a frame: which it is, and how well it went."""
    score = "" if np.isnan(scores[frame]) else f" {scores[frame]:.2f}"
    return f"{label}{score}" if len(scores) == 1 else f"{label}, frame {frame + 1}{score}"


def content_box(pictures: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of uint8 (n, h, w, 3) that show something, a twentieth around it; at least half of each."""
    seen = (pictures.max(axis=3) > AIR).any(axis=0)
    box = []
    for axis, size in ((1, seen.shape[0]), (0, seen.shape[1])):
        present = np.flatnonzero(seen.any(axis=axis))
        first, last = (present[0], present[-1] + 1) if len(present) else (0, size)
        first, last = max(0, first - size // 20), min(size, last + size // 20)
        missing = max(0, size // 2 - (last - first))
        first = max(0, first - (missing + 1) // 2)
        box.append(slice(int(first), int(min(size, max(last, first + size // 2)))))
    return box[0], box[1]
