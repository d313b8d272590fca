"""Moving pictures: animated GIFs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from lib.workspace import replacing

SPEED = 15.0  # frames per second where it is not known
LEAST_CS = 2  # hundredths of a second that a frame lasts: viewers slow down what claims less


def write_gif(path: Path, frames: np.ndarray, frames_per_second: float) -> Path:
    """Write uint8 RGB frames (n, h, w, 3) as a GIF that repeats for ever, atomically; the same frames are the same bytes.

    frames_per_second: 0 or NaN where it is not known. GIF counts in hundredths of a second, so that 30 frames/s become 33.3.
    Raises ValueError without frames.
    """
    if not len(frames):
        raise ValueError(f"{path}: an animation needs at least one frame")
    speed = frames_per_second if math.isfinite(frames_per_second) and frames_per_second > 0 else SPEED
    pictures = [Image.fromarray(np.ascontiguousarray(frame)).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
                for frame in frames]
    with replacing(path) as temporary:
        pictures[0].save(temporary, format="GIF", save_all=True, append_images=pictures[1:], loop=0, optimize=False,
                         duration=10 * max(LEAST_CS, round(100 / speed)))
    return path
