"""AVI, MP4, MOV and MKV files through OpenCV: checked to be whole, counted, and read frame by frame."""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator

import cv2
import numpy as np

from lib.imaging.cine import CineError, CineFacts, check_memory, plausible_rate

DAMAGED = "it is truncated or damaged; copy the file again"
BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")  # of which one is the first of an MP4 or MOV file
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # elements of an MKV file
COLOURFUL = 12  # grey levels between channels; what grey frames lose to a video codec is less


def read_facts(path: Path) -> CineFacts:
    """Size, rate and exact number of frames: all of them are decoded, because headers only estimate it.

    Raises CineError and OSError.
    """
    with path.open("rb") as file:
        coding = _check_whole(file)
    with _opened(path) as capture:
        told, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), plausible_rate(capture.get(cv2.CAP_PROP_FPS))
        there, first = capture.read()
        if not there:
            raise CineError("holds zero frames that can be decoded")
        frames = 1
        while capture.grab():
            frames += 1
            check_memory((frames, *first.shape[:2]))
    # MKV files have an estimate alone; of the others a last frame may be announced that never was
    if frames < told - (1 if coding != "MKV" else max(2, 0.1 * told)):
        raise CineError(f"holds {frames} of {told:.0f} frames: {DAMAGED}")
    colour = bool((first.max(axis=2) - first.min(axis=2)).max() > COLOURFUL)
    return CineFacts(frames, *first.shape[:2], colour, False, coding, round(rate, 3))


def read_frames(path: Path, count: int, channels: int) -> Iterator[np.ndarray]:
    """All frames, uint8 (channels, rows, columns), more than `count` if there are. Raises CineError."""
    with _opened(path) as capture:
        there, frame = capture.read()
        while there:
            if channels == 1:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[None]
            else:
                yield np.moveaxis(frame[:, :, ::-1], 2, 0)
            there, frame = capture.read()


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    # one thread per video: the videos are the parallel work
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise CineError(f"cannot be opened as a video: {DAMAGED}")
        yield capture
    except cv2.error as error:
        raise CineError(f"cannot be decoded ({' '.join(str(error).split())[:120]}): {DAMAGED}") from None
    finally:
        capture.release()


# --- whole files -----------------------------------------------------------------------------------------------------

def _check_whole(file: BinaryIO) -> str:
    """AVI, MP4 or MKV. Raises CineError for other files (playlists, which would lead elsewhere, among them), and for one that
    is shorter than its parts say: decoders make up what is missing."""
    size, start = file.seek(0, io.SEEK_END), _at(file, 0, 12)
    if start[:4] == b"RIFF" and start[8:] == b"AVI ":
        kind, end = "AVI", _end_of_chunks(file, size)
    elif start[4:8] in BOXES:
        kind, end = "MP4", _end_of_boxes(file, size)
    elif start[:4] == EBML:
        kind, end = "MKV", _end_of_segment(file, size)
    else:
        raise CineError("is no DICOM, AVI, MP4, MOV or MKV file")
    if end > size:
        raise CineError(f"has {size} of {end} bytes: {DAMAGED}")
    return kind


def _end_of_chunks(file: BinaryIO, size: int) -> int:
    """Where the last chunk of an AVI file should end. A length of 0 was never filled in: then only frames can be counted."""
    place = 0
    while place + 8 <= size:
        head = _at(file, place, 8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            break
        place += 8 + length + length % 2
    return place - 1 if place == size + 1 else place  # the last byte of padding may be missing


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last box of an MP4 or MOV file should end (ISO/IEC 14496-12, 4.2)."""
    place = 0
    while place + 8 <= size:
        head = _at(file, place, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length == 0:  # to the end of the file
            return size
        if length < 8:
            raise CineError(f"has a part without length at byte {place}: {DAMAGED}")
        place += length
    return place


def _end_of_segment(file: BinaryIO, size: int) -> int:
    """Where the segment of an MKV file should end (RFC 8794, 4); `size` if the file does not know."""
    length, width = _vint(_at(file, 4, 8))
    place = 4 + width + length
    if _at(file, place, 4) != SEGMENT:
        return max(place, size)
    length, width = _vint(_at(file, place + 4, 8))
    return size if length == 2**(7 * width) - 1 else place + 4 + width + length


def _vint(raw: bytes) -> tuple[int, int]:
    """(value, bytes) of a number whose leading zeros say how long it is."""
    width = 9 - raw[0].bit_length() if raw and raw[0] else 8
    return int.from_bytes(raw[:width], "big") & (2**(7 * width) - 1), width


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
