"""Cine loops, whatever file holds them: what it says, and its frames one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import numpy as np

from lib.imaging.cine import CineError, CineFacts, check_memory

SUFFIXES = (".dcm", ".avi", ".mp4", ".mov", ".mkv")


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_facts(path: Path, channels: int) -> CineFacts:
    """What a DICOM, AVI, MP4, MOV or MKV file says. The whole file is checked to be there; of DICOM no pixel is decoded.

    channels: with which the frames are to be read, 1 or 3. Raises CineError, for a loop that would not fit into memory too.
    """
    try:
        facts = _module(path).read_facts(path)
    except OSError as error:
        raise CineError(f"cannot be read ({error.strerror or error})") from None
    check_memory(facts.shape, channels)
    return facts


def read_frames(path: Path, shape: tuple[int, int, int], channels: int) -> Iterator[np.ndarray]:
    """Frames uint8 (channels, rows, columns), grey (channels 1) or red, green, blue (3); but one is held at a time.

    shape: as `read_facts` found it. More than 8 bits become 8 with the loop's own window, or else with the range of all of
    its frames; grey of colours is their luminance (ITU-R BT.601). Raises CineError, also for other frames than `shape` says.
    """
    count, (frames, *size) = 0, shape
    try:
        for frame in _module(path).read_frames(path, frames, channels):
            if frame.shape[1:] != tuple(size):
                raise CineError(f"has a frame of {frame.shape[1]} x {frame.shape[2]} pixels, expected {size[0]} x {size[1]}")
            if count == frames:
                raise CineError("changed while it was being read")
            count += 1
            yield frame
    except OSError as error:
        raise CineError(f"cannot be read ({error.strerror or error})") from None
    if count < frames:
        raise CineError(f"holds {count} of {frames} frames: it is truncated or damaged; copy the file again")


def _module(path: Path):
    """What reads the file: told by its first bytes, because files are called as people please."""
    if path.stat().st_size == 0:
        raise CineError("is empty (0 bytes)")
    if is_dicom(path):
        from lib.imaging import dicom as module  # pydicom takes a while to import
    elif path.suffix.lower() == ".dcm":
        raise CineError("is no DICOM file (no DICM behind its first 128 bytes)")
    else:
        from lib.imaging import videos as module
    return module
