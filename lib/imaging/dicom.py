"""DICOM cine loops through pydicom: header without pixels, and frames as 8-bit grey or red, green, blue."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, as_pixel_options, get_decoder
from pydicom.uid import (HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000, JPEG2000Lossless,
                         JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless,
                         JPEGLSNearLossless)

from lib.imaging.cine import CineError, CineFacts, check_memory, plausible_rate
from lib.imaging.dicom_file import DAMAGED, UNDEFINED, Source, count_fragments, first_of, number, opened, short, whole

GREY = ("MONOCHROME1", "MONOCHROME2")
YBR = ("YBR_FULL", "YBR_FULL_422")
COLOURS = ("RGB", *YBR, "YBR_ICT", "YBR_RCT")  # the latter two: JPEG 2000, whose decoders undo them

# what decodes a transfer syntax, as pip calls it; RLE and uncompressed pixels need nothing
PACKAGES = {**dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit), "pillow"),
            **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pyjpegls"),
            **dict.fromkeys((JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL),
                            "pylibjpeg pylibjpeg-openjpeg")}
OTHER_PACKAGE = "python-gdcm"  # BSD licence; pydicom uses it where it is installed
LOSSLESS_JPEG = (JPEGLossless, JPEGLosslessSV1)
JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, *LOSSLESS_JPEG)
ADOBE = b"\xff\xee\x00\x0eAdobe"  # marker of 16 bytes; the last says how colours are coded
SCAN = b"\xff\xda"  # behind which are no markers
MOST_OBLONG = 4.0  # longer side of a pixel by the shorter one; more is a slip of the header, and would distort the image

for _syntax in LOSSLESS_JPEG:
    if "pillow" not in get_decoder(_syntax).available_plugins:
        get_decoder(_syntax).add_plugin("pillow", ("lib.imaging.jpeg_lossless", "decode"))


def read_facts(path: Path) -> CineFacts:
    """The header, and whether all pixels are there. Raises CineError and OSError."""
    with opened(path) as source:
        found = source.dataset
        kind, samples = str(first_of(found, "PhotometricInterpretation") or ""), whole(found, "SamplesPerPixel")
        frames, stored = whole(found, "NumberOfFrames", 1), whole(found, "BitsStored")
        allocated = whole(found, "BitsAllocated")
        rows, columns = whole(found, "Rows"), whole(found, "Columns")
        if frames < 1:
            raise CineError(f"holds {frames if frames < 0 else 'zero'} frames (NumberOfFrames)")
        if min(rows, columns, stored, allocated) < 1:
            raise CineError(f"says {rows} rows, {columns} columns, {stored} of {allocated} bits: expected above 0 each")
        if whole(found, "HighBit", stored - 1) != stored - 1:
            raise CineError(f"keeps its {stored} bits in the upper part of each value (HighBit {whole(found, 'HighBit')}), as the "
                            "standard has not allowed for long; convert it, such as with dcmconv of DCMTK")
        known = {1: (*GREY, "PALETTE COLOR"), 3: COLOURS}.get(samples, ())
        if kind not in known:
            raise CineError(f"is {kind or 'of no photometric interpretation'} with {samples} values per pixel; expected one "
                            f"value that is {', '.join(known[:3] or GREY)}, or three that are {', '.join(COLOURS)}")
        check_memory((frames, rows, columns))
        _check_decoder(source.syntax, stored)
        pixel_bits = (16 if kind == "YBR_FULL_422" else 8 * samples) * allocated // 8
        _check_complete(source, frames, -(-frames * rows * columns * pixel_bits // 8), kind)
        return CineFacts(frames, rows, columns, samples == 3 or kind not in GREY, _is_deep(found), source.syntax.name,
                         _frame_rate(found, frames), number(found, "HeartRate"), _spacing(found),
                         str(first_of(found, "PatientID") or "").strip(" \0"))


def read_frames(path: Path, count: int, channels: int) -> Iterator[np.ndarray]:
    """The first `count` frames, uint8 (channels, rows, columns). Raises CineError and OSError."""
    with opened(path) as source:
        found = source.dataset
        levels = _levels(path, found, count) if _is_deep(found) else None
        palette = _palette(found) if first_of(found, "PhotometricInterpretation") == "PALETTE COLOR" else None
        for frame, kind in _decoded(source, count):
            if levels is not None:
                frame = _to_8_bits(frame, *levels)
            elif palette is None:
                frame = frame.astype(np.uint8, copy=False)
            if palette is not None:
                frame, kind = palette[np.minimum(frame, len(palette) - 1)], "RGB"
            yield _planes(~frame if kind == "MONOCHROME1" else frame, kind, channels)


def _check_decoder(syntax: UID, stored: int) -> None:
    """Raise CineError, which names the package to install, if nothing decodes the syntax."""
    try:
        plugins = get_decoder(syntax).available_plugins if syntax.is_encapsulated else ("none is needed",)
    except NotImplementedError:
        raise CineError(f"is coded as {syntax.name}, for which there is no decoder; save the loop as MP4, or as DICOM in JPEG "
                        "or uncompressed") from None
    package = PACKAGES.get(syntax, OTHER_PACKAGE)
    # these two decode but 8 bits, and pydicom tells it only when it meets the pixels
    if stored != 8 and syntax in (*LOSSLESS_JPEG, JPEGExtended12Bit):
        plugins, package = [name for name in plugins if name != "pillow"], OTHER_PACKAGE
    if not plugins:
        raise CineError(f"is coded as {syntax.name}{f' with {stored} bits' if stored != 8 else ''}, for which no decoder is "
                        f"installed: pip install {package}")


def _check_complete(source: Source, frames: int, expected: int, kind: str) -> None:
    """Raise CineError unless all pixels are there; `expected`: bytes of all frames if they are not compressed."""
    if source.syntax.is_encapsulated:
        if source.length != UNDEFINED:
            raise CineError(f"is coded as {source.syntax.name}, but its pixels are not in fragments: {DAMAGED}")
        count = count_fragments(source)
        if count < frames:
            raise CineError(f"holds {count} of {frames} frames: {DAMAGED}")
        return
    there = min(source.length, source.size)
    if source.length == UNDEFINED or there < expected:
        raise CineError(f"holds {there * frames // expected} of {frames} frames ({there} of {expected} bytes): {DAMAGED}")
    if kind == "YBR_FULL_422" and there * 2 >= expected * 3:
        raise CineError("says YBR_FULL_422, but has three bytes per pixel: correct its photometric interpretation, to "
                        "YBR_FULL or RGB")


def _decoded(source: Source, count: int) -> Iterator[tuple[np.ndarray, str]]:
    """(rows, columns) or (rows, columns, 3) as stored, and its photometric interpretation, of the first `count` frames."""
    try:
        options = as_pixel_options(source.dataset, pixel_keyword="PixelData", pixel_vr=source.vr or "OW",
                                   transfer_syntax_uid=source.syntax, number_of_frames=count, allow_excess_frames=False)
        options.setdefault("planar_configuration", 0)
        # of several decoders always the same one
        plugin = "pillow" if source.syntax in JPEG and whole(source.dataset, "BitsStored") == 8 else ""
        undone = plugin and _says_adobe_ycc(source)
        decoded = get_decoder(source.syntax).iter_array(source.stream, raw=True, decoding_plugin=plugin, **options)
        for frame, told in islice(decoded, count):
            yield frame, "RGB" if undone else told["photometric_interpretation"]
    except Exception as error:  # the decoders raise many kinds; each means the same to the user
        raise CineError(f"has pixels that cannot be decoded ({short(error)}): {DAMAGED}") from None


def _says_adobe_ycc(source: Source) -> bool:
    """Whether the first JPEG says in Adobe's marker that its colours are YCbCr: then Pillow has turned them into RGB, whatever
    the header says, and pydicom would do so again."""
    start = source.stream.tell()
    table = int.from_bytes(source.stream.read(8)[4:], "little")
    source.stream.seek(start + 8 + table + 8)
    head = source.stream.read(2048).partition(SCAN)[0]
    source.stream.seek(start)
    place = head.find(ADOBE)
    return place >= 0 and head[place + 15:place + 16] == b"\1" and source.dataset.SamplesPerPixel == 3


# --- pixels ----------------------------------------------------------------------------------------------------------

def _is_deep(found: pydicom.Dataset) -> bool:
    """Whether values must be scaled to 8 bits; those of a palette are none themselves."""
    return (first_of(found, "PhotometricInterpretation") != "PALETTE COLOR"
            and (whole(found, "BitsStored") != 8 or whole(found, "PixelRepresentation", 0) == 1))


def _levels(path: Path, found: pydicom.Dataset, count: int) -> tuple[float, float]:
    """Stored values that become 0 and 255: the ends of the window of grey frames (DICOM PS3.3 C.11.2.1.2, LINEAR), all values
    that fit for luminance and chrominance, else the least and the largest of all frames."""
    kind, width = first_of(found, "PhotometricInterpretation"), number(found, "WindowWidth")
    if kind in YBR:
        return 0.0, 2.0 ** whole(found, "BitsStored") - 1
    if kind in GREY and width > 1 and first_of(found, "WindowCenter") is not None:
        slope, intercept = number(found, "RescaleSlope", 1.0, True) or 1.0, number(found, "RescaleIntercept", 0.0, True)
        middle = number(found, "WindowCenter", 0.0, True) - 0.5
        return tuple((middle + end * (width - 1) / 2 - intercept) / slope for end in (-1, 1))
    low, high = math.inf, -math.inf
    with opened(path) as source:  # a reading of its own, so that no more than a frame is held
        for frame, _ in _decoded(source, count):
            low, high = min(low, float(frame.min())), max(high, float(frame.max()))
    return low, high


def _to_8_bits(frame: np.ndarray, low: float, high: float) -> np.ndarray:
    """Linear from low..high to 0..255; all 0 if these are equal."""
    scale = 255 / (high - low) if high != low else 0.0
    scaled = np.subtract(frame, low, dtype=np.float32 if frame.dtype.itemsize <= 2 else np.float64)
    scaled *= scale
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def _palette(found: pydicom.Dataset) -> np.ndarray:
    """uint8 (values, 3): red, green, blue of every value that a pixel may have."""
    bits = whole(found, "BitsAllocated")
    try:
        colours = apply_color_lut(np.arange(2**min(bits, 16), dtype=np.uint16).reshape(1, -1), found)[0]
    except Exception as error:  # as above
        raise CineError(f"has a palette that cannot be read ({short(error)}): {DAMAGED}") from None
    # some writers put 8 bits into entries of 16
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _planes(frame: np.ndarray, kind: str, channels: int) -> np.ndarray:
    """uint8 (rows, columns) or (rows, columns, 3) -> uint8 (channels, rows, columns)."""
    if frame.ndim == 2:
        return np.broadcast_to(frame, (channels, *frame.shape))
    if kind in YBR and channels == 1:
        return frame[None, :, :, 0]  # luminance is what grey of colours is
    if kind in YBR:
        frame = cv2.cvtColor(np.ascontiguousarray(frame[:, :, [0, 2, 1]]), cv2.COLOR_YCrCb2RGB)
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)[None]
    return np.moveaxis(frame, 2, 0)


# --- values of the header --------------------------------------------------------------------------------------------

def _frame_rate(found: pydicom.Dataset, frames: int) -> float:
    """Frames per second. The time from frame to frame comes first, because it is that of the heart: rates are often those
    of a screen, and whole numbers."""
    time = number(found, "FrameTime")  # ms
    try:
        steps = [float(step) for step in found.get("FrameTimeVector") or ()][1:]
        time = time or (sum(steps) / len(steps) if len(steps) == frames - 1 > 0 else 0.0)
    except (TypeError, ValueError):  # one number is no list, and means nothing
        pass
    rates = [1000 / time if time > 0 else 0.0, number(found, "CineRate"), number(found, "RecommendedDisplayFrameRate")]
    return next((plausible_rate(round(rate, 3)) for rate in rates if plausible_rate(rate)), 0.0)


def _spacing(found: pydicom.Dataset) -> tuple[float, float] | None:
    """(row, column) in mm, if the two-dimensional regions say one in cm."""
    sizes = set()
    try:
        for region in found.get("SequenceOfUltrasoundRegions") or ():
            if region.get("RegionSpatialFormat") == 1:  # 2-D, no trace or spectrum
                units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
                deltas = [abs(float(region.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "YX"]
                sane = units == (3, 3) and 0 < max(deltas) <= MOST_OBLONG * min(deltas) < math.inf
                sizes.add(tuple(deltas) if sane else None)
    except Exception:  # a damaged sequence says no size
        return None
    return sizes.pop() if len(sizes) == 1 else None
