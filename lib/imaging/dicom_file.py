"""A DICOM file opened at its pixels: its header, what stands in it, and whether the file ends where it should."""

from __future__ import annotations

import io
import math
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterator

import pydicom
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from lib.imaging.cine import CineError, memory_limit

PIXELS, FLOATS = 0x7FE00010, (0x7FE00008, 0x7FE00009)
DAMAGED = "it is truncated or damaged; copy the file again"
ITEM, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
UNDEFINED = 0xFFFFFFFF  # length of what ends with a delimiter: frames that are coded one by one
TAGS = [pydicom.datadict.tag_for_keyword(name) for name in (
    "SOPClassUID", "PatientID", "CineRate", "RecommendedDisplayFrameRate", "FrameTime", "FrameTimeVector", "HeartRate",
    "SequenceOfUltrasoundRegions", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter", "WindowWidth",
    "RescaleSlope", "RescaleIntercept", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")]

# what pydicom says of odd headers on stderr is either harmless or raised here as CineError
warnings.filterwarnings("ignore", module=r"pydicom\.")
# but this one says that pixels are damaged
warnings.filterwarnings("error", ".*non-conformant padding", module=r"pydicom\.")


@dataclass(frozen=True)
class Source:
    """A file opened at its pixels. stream: at their first byte, `size` bytes before its end. vr: None if implicit.
    length: of the pixels in bytes, or UNDEFINED."""
    stream: BinaryIO
    dataset: pydicom.Dataset
    syntax: UID
    vr: str | None
    length: int
    size: int


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The file at its pixels, its header read. Raises CineError for one without."""
    with path.open("rb") as file:
        try:
            file.seek(132)
            meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
            syntax = UID(meta.get("TransferSyntaxUID", ""))
            # a private transfer syntax may be anything
            if not syntax.is_transfer_syntax or syntax.is_private:
                raise CineError(f"has the transfer syntax {str(syntax)!r}, which DICOM does not know" if syntax else
                                "does not say how it is coded (no transfer syntax)")
            stream = _inflated(file) if syntax == DeflatedExplicitVRLittleEndian else file
            met = []

            def at_pixels(tag, vr, length) -> bool:
                if tag == PIXELS or tag in FLOATS:
                    met.append((tag, vr, length))
                return bool(met)

            dataset = read_dataset(stream, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=at_pixels,
                                   specific_tags=list(TAGS))
        except (CineError, OSError):
            raise
        except Exception as error:  # pydicom raises many kinds for damaged headers; each means the same to the user
            raise CineError(f"has a header that cannot be read ({short(error)}): {DAMAGED}") from None
        if not met:
            kind = UID(str(first_of(dataset, "SOPClassUID") or "")).name
            raise CineError(f"holds no pixels{f' (it is {kind})' if kind else ''}, or is cut off before them")
        tag, vr, length = met[-1]
        if tag in FLOATS:
            raise CineError("holds floating-point pixels, as no ultrasound loop does")
        stream.seek(8 if vr is None else 12, io.SEEK_CUR)
        start = stream.tell()
        size = stream.seek(0, io.SEEK_END) - start
        stream.seek(start)
        yield Source(stream, dataset, syntax, vr, length, size)


def _inflated(file: BinaryIO) -> BinaryIO:
    """What is deflated from here to the end, no more of it than a loop may take."""
    inflate, most = zlib.decompressobj(-zlib.MAX_WBITS), memory_limit()
    plain = inflate.decompress(file.read(), most)
    if inflate.unconsumed_tail:
        raise CineError(f"inflates to more than the {most / 2**30:.1f} GiB that one video may take")
    if not inflate.eof:
        raise CineError(f"ends within its deflated part: {DAMAGED}")
    return io.BytesIO(plain)


def count_fragments(source: Source) -> int:
    """Items of the pixels behind the offset table, none of which is read. Raises CineError if the file ends within one."""
    stream, start, order = source.stream, source.stream.tell(), "little" if source.syntax.is_little_endian else "big"
    count, place = -1, start
    while True:
        stream.seek(place)
        head = stream.read(8)
        tag, length = (int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)), int.from_bytes(head[4:], order)
        # some writers forget the delimiter at the end
        if tag == SEQUENCE_END or not head:
            stream.seek(start)
            return count
        if len(head) < 8 or tag == ITEM and place + 8 + length > start + source.size:
            raise CineError(f"ends within frame {max(count, 0) + 1}: {DAMAGED}")
        if tag != ITEM:
            raise CineError(f"has pixels that are not in fragments behind the {max(count, 0)}th: {DAMAGED}")
        count, place = count + 1, place + 8 + length


# --- values of the header --------------------------------------------------------------------------------------------

def first_of(found: pydicom.Dataset, keyword: str):
    """The value, the first of several; None if there is none or it cannot be read."""
    try:
        value = found.get(keyword)
        return value[0] if isinstance(value, pydicom.multival.MultiValue) else value
    except Exception:  # such as letters where a number is expected
        return None


def whole(found: pydicom.Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number that the pixels need. Raises CineError if it is not there, or none."""
    try:
        value = found.get(keyword)
        if value in (None, "") and default is not None:
            return default
        return int(value)
    except Exception:  # pydicom reads values when they are asked for, and raises many kinds
        raise CineError(f"does not say its {keyword}: {DAMAGED}" if keyword not in found else
                        f"has a {keyword} that is no number: {DAMAGED}") from None


def number(found: pydicom.Dataset, keyword: str, default: float = 0.0, negative: bool = False) -> float:
    """A finite number, above 0 unless it may be negative; else the default."""
    try:
        value = float(first_of(found, keyword))
    except (TypeError, ValueError):
        return default
    return value if math.isfinite(value) and (negative or value > 0) else default


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
