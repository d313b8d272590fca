"""Paint masks and probabilities over grey frames, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import cv2
import numpy as np

# Okabe & Ito 2008, without black; given to the outlines in order
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0), (0, 114, 178))
TRUTH = ((255, 255, 255), (0, 0, 0))  # dots in turn, so that they show on bright and on dark
DOT_STEP = 3  # pixels of the contour from dot to dot
HEAT_FLOOR = 0.05  # probabilities below it are not painted
HEAT_OPACITY = (0.5, 0.9)  # at the floor, at certainty


def grey(frames: np.ndarray) -> np.ndarray:
    """float (n, h, w) -> uint8, the 1st to 99.7th percentile of the whole series over 0..255."""
    low, high = np.percentile(frames, [1, 99.7])
    return np.clip((frames - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)


def overlay(image: np.ndarray, outlines: dict[str, np.ndarray], truths: dict[str, np.ndarray],
            heat: np.ndarray | None = None, scale: int = 1) -> np.ndarray:
    """uint8 (n, h, w) -> uint8 (n, h * scale, w * scale, 3): heat, then outlines (colour), then truth (white and black dots).

    outlines, truths: class -> bool (n, h, w); heat: float32 (n, h, w), 0..1.
    """
    return np.stack([
        paint(frame, {k: m[i] for k, m in outlines.items()}, {k: m[i] for k, m in truths.items()},
              None if heat is None else heat[i], scale) for i, frame in enumerate(image)])


def paint(image: np.ndarray, outlines: dict[str, np.ndarray], truths: dict[str, np.ndarray],
          heat: np.ndarray | None, scale: int) -> np.ndarray:
    """One frame of `overlay`."""
    size = (image.shape[1] * scale, image.shape[0] * scale)
    picture = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
    if heat is not None and float(heat.max()) > HEAT_FLOOR:
        heat = np.clip(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), 0, 1)
        colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        low, high = HEAT_OPACITY
        opacity = ((heat > HEAT_FLOOR) * (low + (high - low) * heat))[..., None]
        picture = (picture * (1 - opacity) + colours * opacity).astype(np.uint8)
    for (_, mask), colour in zip(outlines.items(), PALETTE):
        for contour in contours(mask, size):
            cv2.polylines(picture, [contour], True, colour, 1)
    for mask in truths.values():
        for contour in contours(mask, size):
            for turn, colour in enumerate(TRUTH):
                points = contour[turn * DOT_STEP::2 * DOT_STEP, 0]
                picture[points[:, 1], points[:, 0]] = colour
    return picture


def upright(picture: np.ndarray, case) -> np.ndarray:
    """A native frame (h, w, 3) as the eye expects it: turned, square in mm, and R at the patient's right where known."""
    picture = np.rot90(picture, case.turn)
    rows_mm, columns_mm = case.spacing_mm[1:] if case.turn % 2 == 0 else case.spacing_mm[:0:-1]
    small = min(rows_mm, columns_mm)
    size = (round(picture.shape[1] * columns_mm / small), round(picture.shape[0] * rows_mm / small))
    picture = np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR))
    if case.turn == 2:  # radiological view of a RAS volume
        cv2.putText(picture, "R", (3, picture.shape[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.42, TRUTH[0], 1, cv2.LINE_AA)
    return picture


def contours(mask: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    enlarged = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return list(cv2.findContours(enlarged, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0])
