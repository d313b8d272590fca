"""Photographs and their masks: PNG, JPEG, TIFF and BMP to 8-bit pixels and regions, and predictions written back."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from lib.workspace import replacing

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
ENDS = {b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82", b"\xff\xd8": b"\xff\xd9"}  # first bytes of PNG and JPEG -> last ones
TIFF = (b"II*\0", b"MM\0*")  # first bytes
DAMAGED = "is truncated or damaged; copy the file again"
JPEG_NOISE = 16  # grey levels by which JPEG may move a value of a mask
MOST_VALUES = 32  # a file with more is no mask of classes
FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]

# what OpenCV and PIL say of damaged files on stderr is raised here as PhotographError
warnings.filterwarnings("ignore", module=r"PIL\.")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class PhotographError(Exception):
    """A file that is no usable image or mask; the message says why, without the file's name.

    unnamed: (value, pixels) of a mask that mean no class, the most frequent first.
    """

    def __init__(self, reason: str, unnamed: tuple[tuple[Any, int], ...] = ()):
        super().__init__(reason)
        self.unnamed = unnamed


@dataclass(frozen=True)
class Facts:
    """What the beginning of a file says. channels: once decoded, so 3 for a palette, with alpha. deep: more than 8
    bits per value. lossy: JPEG."""
    rows: int
    columns: int
    mode: str
    channels: int
    alpha: bool
    deep: bool
    lossy: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def colour(self) -> bool:
        return self.channels - self.alpha >= 3


@dataclass(frozen=True)
class MaskCoding:
    """How the pixels of a mask say their class.

    encoding: values (grey levels, or the indices of a palette) | colours | channels (R, G, B, A: one per class).
    values: for each class the whole numbers or (r, g, b) that mean it. Empty for `channels`, and for a single class
    that is the one value besides background.
    """
    encoding: str
    classes: int
    values: tuple[tuple, ...] = ()

    @property
    def background(self) -> int | tuple[int, int, int]:
        return (0, 0, 0) if self.encoding == "colours" else 0

    @property
    def named(self) -> list:
        """All values that mean a class."""
        return [value for several in self.values for value in several]


def read_facts(path: Path) -> Facts:
    """Size and kind of an image file; no pixel is decoded.

    Raises PhotographError, for several pages and for a picture to be turned (EXIF) too.
    """
    try:
        with path.open("rb") as file:
            return _facts(file)
    except OSError as error:
        raise PhotographError(f"cannot be read ({error.strerror})") from None


def read_image(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 (channels, 1, rows, columns), grey (channels 1) or red, green, blue (3); alpha is dropped.

    More than 8 bits are scaled linearly, the image's own minimum and maximum to 0 and 255 (all 0 if they are equal).
    Colours become grey with OpenCV's weights (ITU-R BT.601). Raises PhotographError.
    """
    pixels, _ = _decode(path, size)
    if pixels.dtype != np.uint8:
        pixels = _to_8_bits(pixels)
    if channels == 1:
        return (pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))[None, None]
    if pixels.ndim == 2:
        return np.repeat(pixels[None, None], 3, axis=0)
    planes = np.empty((3, 1, *size), np.uint8)
    for index in range(3):
        cv2.extractChannel(pixels, 2 - index, planes[index, 0])
    return planes


def read_mask(path: Path, coding: MaskCoding, size: tuple[int, int]) -> np.ndarray:
    """bool (classes, rows, columns). Raises PhotographError, with `unnamed` for pixels that mean no class."""
    mask, facts = _decode(path, size, indices=coding.encoding == "values")
    if coding.encoding == "channels":
        return _channel_regions(_planes(mask, facts), coding.classes, facts.alpha)
    mask = _comparable(mask, coding.encoding)
    if facts.mode == "1" and 255 not in coding.named:
        mask = mask & 1  # as values of one bit are 0 and 1 to some programs, 0 and 255 to others
    values = coding.values or ((_any_value(mask),),)
    if not coding.values and values[0][0] == coding.background and not mask.any():
        return np.zeros((1, *size), bool)
    if facts.lossy:
        mask = _snap(mask, [coding.background, *(value for several in values for value in several)])
    regions, counts = np.empty((coding.classes, *size), bool), {}
    for region, several in zip(regions, values):
        for index, value in enumerate(several):
            there = _where(mask, value, None if index else region)
            if index:
                region |= there
            if value not in counts:
                counts[value] = np.count_nonzero(there)
    if coding.background not in counts:
        counts[coding.background] = _count_background(mask)
    if sum(counts.values()) < mask.shape[0] * mask.shape[1]:
        raise PhotographError("holds values of no class", _counts(mask, {coding.background, *coding.named}))
    return regions


def find_values(path: Path, encoding: str, size: tuple[int, int]) -> list:
    """Values or colours (r, g, b) of a mask besides 0 or black, one more than MOST_VALUES at most; for `channels` the
    numbers (from 1) of those in use. Raises PhotographError."""
    mask, facts = _decode(path, size, indices=encoding == "values")
    if encoding == "channels":
        planes = _planes(mask, facts)
        opaque = facts.alpha and planes[-1].min() == planes[-1].max()  # an alpha that says nothing
        return [number for number, plane in enumerate(planes[:-1] if opaque else planes, 1) if plane.any()]
    mask = _comparable(mask, encoding)
    background = MaskCoding(encoding, 1).background
    if facts.lossy:
        mask = _snap(mask, [background, 255 if mask.max() >= 255 - JPEG_NOISE else _any_value(mask)])
    found, rest = [], ~_where(mask, background)
    while len(found) <= MOST_VALUES and rest.any():
        found.append(_value_at(mask, int(rest.argmax())))
        rest &= ~_where(mask, found[-1])
        if found[-1] != found[-1]:  # NaN is equal to nothing
            raise PhotographError("holds NaN")
    return found


def write_prediction(folder: Path, name: str, volume: np.ndarray, source: dict) -> list[Path]:
    """Write a prediction as the masks of its study are, and return the files.

    volume: uint8 label map (1, rows, columns) with 0 background, or 0/1 (1, rows, columns, regions).
    source: `encoding`, `classes` (names) and `values` (that of each class: a number, [r, g, b] or None).
    A label map or a single region becomes `<name>.png` with the values or colours of its classes (255 where none is
    given), three regions of `channels` the R, G, B of one file; else each becomes `<region>/<name>.png` of 0/255.
    """
    if volume.ndim == 4 and volume.shape[-1] > 1:
        if source["encoding"] == "channels" and volume.shape[-1] == 3:
            return [_write(folder / f"{name}.png", volume[0, :, :, ::-1] * np.uint8(255))]
        return write_shares(folder, name, volume, source)
    labels = volume[0] if volume.ndim == 3 else volume[0, :, :, 0]
    values = [255 if value is None else value for value in source["values"]]
    if source["encoding"] == "colours":
        values = [[value] * 3 if isinstance(value, int) else value[::-1] for value in values]  # OpenCV: B, G, R
        table = np.array([[0, 0, 0], *values], np.uint8)
    else:
        table = np.array([0, *values], np.uint16 if max(values) > 255 else np.uint8)
    return [_write(folder / f"{name}.png", table[labels])]


def write_shares(folder: Path, name: str, volume: np.ndarray, source: dict) -> list[Path]:
    """Write shares 0..1 (1, rows, columns, regions) as 0..255: `<region>/<name>.png` each, `<name>.png` if but one."""
    names = source["classes"] if volume.shape[-1] > 1 else [""]
    return [_write(folder / region / f"{name}.png",
                   np.rint(volume[0, :, :, index] * np.float32(255)).astype(np.uint8))
            for index, region in enumerate(names)]


def _write(path: Path, picture: np.ndarray) -> Path:
    _, coded = cv2.imencode(".png", np.ascontiguousarray(picture), FAST)
    with replacing(path) as temporary:
        temporary.write_bytes(coded)
    return path


def _facts(file: BinaryIO) -> Facts:
    try:
        with Image.open(file, formats=FORMATS) as image:
            # a phone's JPEG may carry previews as further pages (MPO)
            pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            # a PNG without orientation would be decoded to its end in search of one
            turned = image.format != "PNG" or "exif" in image.info
            turned = turned and image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
            bands, mode = image.getbands(), image.mode
            # 16 bits of grey are a mode, those of colours show in how they are packed alone
            deep = mode[0] in "IF" or any(";16" in str(tile.args) for tile in image.tile)
            facts = Facts(image.height, image.width, mode, 3 if mode == "P" else len(bands), "A" in bands, deep,
                          image.format in ("JPEG", "MPO"))
    except UnidentifiedImageError:
        raise PhotographError("is no PNG, JPEG, TIFF or BMP image" if file.seek(0, io.SEEK_END) else
                              "is empty (0 bytes)") from None
    except Exception as error:  # PIL raises many kinds for damaged headers; each means the same to the user
        short = " ".join(str(error).split())[:120] or type(error).__name__
        raise PhotographError(f"is not a readable image ({short})") from None
    if pages > 1:
        raise PhotographError(f"holds {pages} pages; expected one image per file, so save them one by one")
    if turned:
        raise PhotographError("is to be shown turned (its EXIF orientation is not 1), and a mask would lie on other "
                              "pixels; save it upright, without that entry")
    return facts


def _decode(path: Path, size: tuple[int, int], indices: bool = False) -> tuple[np.ndarray, Facts]:
    """The pixels as they are stored, (rows, columns) or (rows, columns, BGR or BGRA); `indices` those of a palette."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PhotographError(f"cannot be read ({error.strerror})") from None
    facts = _facts(io.BytesIO(raw))
    # some versions of the decoders fill what is missing with grey
    if any(raw.startswith(start) and raw.rfind(end) < 0 for start, end in ENDS.items()):
        raise PhotographError(DAMAGED)
    try:
        if facts.mode in ("1", "P"):
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                as_stored = facts.mode == "P" and indices
                pixels = np.asarray(image if as_stored else image.convert("L" if facts.mode == "1" else "RGB"))
            pixels = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
        else:
            if raw.startswith(TIFF):  # OpenCV hands on what it has of a damaged one
                with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                    image.load()
            pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, OSError, SyntaxError, ValueError):  # the latter three: PIL
        pixels = None
    if pixels is None:
        raise PhotographError(DAMAGED)
    if pixels.shape[:2] != tuple(size):
        raise PhotographError("changed while it was being read")
    if pixels.ndim == 3 and pixels.shape[2] not in (3, 4):
        raise PhotographError(f"holds {pixels.shape[2]} channels; expected grey or RGB, with or without alpha")
    return pixels, facts


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    pixels = np.ascontiguousarray(pixels[..., :3]) if pixels.ndim == 3 else pixels
    flat = pixels.reshape(len(pixels), -1)  # one minimum for all colours
    if not np.isfinite(flat).all():
        raise PhotographError("holds NaN or infinite pixels")
    return cv2.normalize(flat, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U).reshape(pixels.shape)


def _comparable(mask: np.ndarray, encoding: str) -> np.ndarray:
    """(rows, columns) for values, uint8 (rows, columns, BGR) for colours; alpha is dropped."""
    if mask.ndim == 3 and mask.shape[2] == 4 and np.ptp(mask[:, :, 3]) and not np.ptp(mask[:, :, :3], axis=(0, 1)).any():
        raise PhotographError("is of one colour, with its shapes in the transparency; save them as values or colours")
    if encoding == "colours":
        if mask.dtype != np.uint8:
            raise PhotographError(f"is {mask.dtype}; expected colours of 8 bits per channel")
        codes = {2: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}
        code = codes.get(mask.shape[2] if mask.ndim == 3 else 2)
        return mask if code is None else cv2.cvtColor(mask, code)
    if mask.ndim == 2:
        return mask
    blue, green, red = cv2.split(mask)[:3]
    if not (np.array_equal(blue, green) and np.array_equal(blue, red)):
        raise PhotographError("holds colours; expected grey values (or set mask_encoding to colours or channels)")
    return blue


def _where(mask: np.ndarray, value: Any, out: np.ndarray | None = None) -> np.ndarray:
    """bool (rows, columns), `out` if given: the pixels of a value, or of a colour (r, g, b)."""
    if mask.ndim == 2:
        return np.equal(mask, value, out=out)
    return np.not_equal(cv2.inRange(mask, value[::-1], value[::-1]), 0, out=out)


def _count_background(mask: np.ndarray) -> int:
    if mask.ndim == 3:
        return int(np.count_nonzero(_where(mask, (0, 0, 0))))
    return mask.size - (cv2.countNonZero(mask) if mask.dtype == np.uint8 else int(np.count_nonzero(mask)))


def _value_at(mask: np.ndarray, index: int) -> Any:
    """Value, or (r, g, b), of a pixel in the flattened mask; whole numbers as int."""
    value = mask.reshape(-1, *mask.shape[2:])[index]
    if mask.ndim == 3:
        return tuple(int(v) for v in value[::-1])
    return int(value) if value == np.floor(value) and np.isfinite(value) else float(value)


def _any_value(mask: np.ndarray) -> Any:
    """The largest value, or one colour, besides background (which it is if there is none)."""
    return _value_at(mask, int((mask if mask.ndim == 2 else ~_where(mask, (0, 0, 0))).argmax()))


def _snap(mask: np.ndarray, values: list) -> np.ndarray:
    """Undo what JPEG does to a mask of grey values, where they are far enough apart to tell."""
    if mask.ndim == 3 or any(b - a <= 2 * JPEG_NOISE for a, b in pairwise(sorted(set(values)))):
        return mask
    levels, grey = np.array([v for v in values if v <= 255]), np.arange(256)
    nearest = levels[np.abs(levels[:, None] - grey).argmin(axis=0)]
    return cv2.LUT(mask, np.where(np.abs(nearest - grey) <= JPEG_NOISE, nearest, grey).astype(np.uint8))


def _counts(mask: np.ndarray, named) -> tuple[tuple[Any, int], ...]:
    """(value, pixels) of what is not in `named`, the most frequent first."""
    grey = mask if mask.ndim == 2 else mask.astype(np.int32) @ [1, 256, 65536]  # B, G, R
    values, pixels = np.unique(grey, return_counts=True)
    if mask.ndim == 3:
        keys = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in values]
    else:
        keys = [int(v) if v == np.floor(v) else float(v) for v in values]
    found = [(key, int(count)) for key, count in zip(keys, pixels) if key not in named]
    return tuple(sorted(found, key=lambda item: -item[1]))


def _planes(mask: np.ndarray, facts: Facts) -> list[np.ndarray]:
    """The channels in the order of the file: R, G, B, A, or grey and alpha."""
    if mask.ndim == 2:
        return [mask]
    planes = list(cv2.split(mask))
    return [planes[0], planes[3]] if facts.channels == 2 else [planes[2], planes[1], planes[0], *planes[3:]]


def _channel_regions(planes: list[np.ndarray], classes: int, alpha: bool) -> np.ndarray:
    """A channel marks its region with more than half of its range, or with 1 if that is the largest value. What is
    left over has to be alpha or empty."""
    if len(planes) < classes:
        raise PhotographError(f"has {len(planes)} channels; expected one for each of {classes} classes")
    top = max(plane.max() for plane in planes[:classes])
    half = 0.5 if top <= 1 or planes[0].dtype.kind == "f" else np.iinfo(planes[0].dtype).max / 2
    if 0 < top <= half:
        raise PhotographError(f"has {top} as its largest value; expected 0 and 255, or 0 and 1, in each channel")
    for number, plane in enumerate(planes[classes:-1 if alpha else None], classes + 1):
        count = int(np.count_nonzero(plane > half))
        if count:
            raise PhotographError(f"marks {count} pixels in channel {number}; expected {classes} classes")
    return np.stack([plane > half for plane in planes[:classes]])
