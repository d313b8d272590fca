"""Overlays of one case: a colour NIfTI on the native grid, and a picture of its worst and best frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from lib.imaging.nifti import as_rgb, write_like
from lib.reporting.painting import upright

FRAMES = 3  # of the worst, and of the best
PANEL_PX = 360
AIR = 24  # grey level up to which a pixel is air
MARGIN_PX = 22
TEXT = (235, 235, 235)


def write_heatmap(folder: Path, task, frames: np.ndarray, prediction, truth: np.ndarray | None, case) -> None:
    """`<case>.nii.gz` (RGB) and `<case>.png` under `folder`. frames: (n, channels, *grid), as stored."""
    folder.mkdir(parents=True, exist_ok=True)
    write_like(folder / f"{case.case}.nii.gz", as_rgb(task.draw(frames, prediction, None, case)), case.source)
    scores = task.frame_scores(prediction, truth)
    chosen = worst_and_best(scores, ("worst", "best") if truth is not None else ("least sure", "surest"))
    picture = contact_sheet(task, frames, prediction, truth, case, scores, chosen)
    cv2.imwrite(str(folder / f"{case.case}.png"), picture[..., ::-1])


def worst_and_best(scores: np.ndarray, names: tuple[str, str] = ("worst", "best")) -> list[tuple[str, int]]:
    """(label, frame) of up to FRAMES worst and best frames that have a score; the middle frame if none has."""
    order = [int(i) for i in np.argsort(scores, kind="stable") if not np.isnan(scores[i])]
    if not order:
        return [("no region", len(scores) // 2)]
    half = min(FRAMES, (len(order) + 1) // 2)
    return [(names[0], i) for i in order[:half]] + [(names[1], i) for i in order[half:][-FRAMES:][::-1]]


def contact_sheet(task, frames, prediction, truth, case, scores, chosen) -> np.ndarray:
    """uint8 RGB: a column per frame, the plain image above its overlay, cut to what is not air."""
    indices = [frame for _, frame in chosen]
    scale = max(1, round(PANEL_PX / max(case.shape[1:])))
    nothing = type(prediction)(np.zeros_like(prediction.probabilities), np.zeros_like(prediction.masks), prediction.thresholds)
    plain = task.draw(frames, nothing, None, case, indices, scale)
    painted = task.draw(frames, prediction, truth, case, indices, scale)
    box = content_box(plain)
    columns = []
    for (label, frame), below, above in zip(chosen, painted[:, *box], plain[:, *box]):
        column = np.concatenate([upright(above, case), upright(below, case)])
        column = cv2.copyMakeBorder(column, MARGIN_PX, 0, 0, 2, cv2.BORDER_CONSTANT)
        score = "" if np.isnan(scores[frame]) else f" {scores[frame]:.2f}"
        cv2.putText(column, f"{label}, frame {frame + 1}{score}", (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, TEXT, 1, cv2.LINE_AA)
        columns.append(column)
    return np.concatenate(columns, axis=1)


def content_box(pictures: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of uint8 (n, h, w, 3) that show something, with a margin of a twentieth; at least half of each."""
    seen = (pictures.max(axis=3) > AIR).any(axis=0)
    box = []
    for axis, size in ((1, seen.shape[0]), (0, seen.shape[1])):
        present = np.flatnonzero(seen.any(axis=axis))
        first, last = (present[0], present[-1] + 1) if len(present) else (0, size)
        first, last = max(0, first - size // 20), min(size, last + size // 20)
        missing = max(0, size // 2 - (last - first))
        first = max(0, first - (missing + 1) // 2)
        box.append(slice(first, min(size, max(last, first + size // 2))))
    return box[0], box[1]
