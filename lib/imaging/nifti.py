"""NIfTI volumes: read into the canonical (RAS) grid as (z, y, x), and written back like their source file."""

from __future__ import annotations

import gzip
import io
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
RAS = np.array([[0, 1], [1, 1], [2, 1]])
GZIP = b"\x1f\x8b"
DEFLATE_LIMIT = 1032  # times: deflate cannot shrink any further (https://zlib.net/zlib_tech.html)
HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
SHEAR = 0.02  # largest cosine between two axes that rounding may leave
VOXEL_MM = (1e-3, 1e3)  # a voxel outside these is a damaged header, or one not in mm
SILENT = logging.Logger("silent", logging.CRITICAL + 1)  # nibabel tells what it mends in each header


class VolumeError(Exception):
    """A file that is no usable volume; the message says why, without the file's name."""


@dataclass(frozen=True)
class Layout:
    """What a NIfTI header promises. shape: (x, y, z); scale: (slope, intercept), None
    for as they are; offset: of the voxels; affine: (4, 4), mm."""
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    scale: tuple[float, float] | None
    affine: np.ndarray

    @property
    def count(self) -> int:
        x, y, z = self.shape
        return x * y * z

    @property
    def end(self) -> int:
        """Bytes of the unpacked file up to its last voxel."""
        return self.offset + self.count * self.dtype.itemsize


def read_header(path: Path) -> dict:
    """Shape, affine and orientation of a 3-D NIfTI file (1 or 2, packed or not, whatever its name says).

    Returns `shape` (x, y, z of the file), `affine` (4 x 4 nested lists, mm) and `orientation` (nibabel's
    array of axis and direction, nested lists). Only the first bytes are read. Raises VolumeError.
    """
    try:
        with path.open("rb") as file:
            most = file.seek(0, io.SEEK_END)
            if _is_packed(file):
                most *= DEFLATE_LIMIT
            layout = _layout(_first_bytes(file))
    except OSError as error:
        raise VolumeError(f"cannot be read ({error.strerror})") from None
    if layout.end > most:  # before anything is allocated for what a damaged header claims
        raise VolumeError(_truncated(layout))
    affine = layout.affine
    return {"shape": list(layout.shape), "affine": affine.tolist(), "orientation": io_orientation(affine).tolist()}


def canonical_geometry(header: dict) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape (z, y, x) and spacing (z, y, x) in mm of the volume once it is turned to RAS."""
    orientation = np.asarray(header["orientation"])
    affine = np.asarray(header["affine"]) @ inv_ornt_aff(orientation, header["shape"])
    shape = [0, 0, 0]
    for axis, (target, _) in enumerate(orientation):
        shape[int(target)] = header["shape"][axis]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return tuple(shape[::-1]), tuple(float(s) for s in spacing[::-1])


def read_volume(path: Path, orientation: list) -> np.ndarray:
    """Voxels as float32 (z, y, x) in RAS, scaled by the file's slope and intercept. Raises VolumeError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise VolumeError(f"cannot be read ({error.strerror})") from None
    layout = _layout(_first_bytes(io.BytesIO(raw)))
    if raw[:2] == GZIP:
        raw = _inflate(io.BytesIO(raw), layout.end, len(raw))
    if len(raw) < layout.end:
        raise VolumeError(_truncated(layout, len(raw)))
    voxels = np.frombuffer(raw, layout.dtype, layout.count, layout.offset).reshape(layout.shape, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit into float32 shows as infinite
        if layout.scale:
            voxels = voxels.astype(np.float64) * layout.scale[0] + layout.scale[1]
        volume = apply_orientation(voxels, np.asarray(orientation)).transpose(2, 1, 0)
        return np.ascontiguousarray(volume, dtype=np.float32)


def write_like(path: Path, volume: np.ndarray, source: dict) -> None:
    """Write RAS (z, y, x[, values]) on the grid, orientation and affine of its source file (`read_header`'s dict).

    Colours go through `as_rgb` first.
    """
    back = ornt_transform(RAS, np.asarray(source["orientation"]))
    voxels = apply_orientation(volume.swapaxes(0, 2), back)
    image = nibabel.Nifti1Image(np.asfortranarray(voxels), np.asarray(source["affine"]))
    image.header.set_xyzt_units("mm")
    payload = image.to_bytes()
    # the gzip header would hold the time and the temporary file's name: the same result must be the same bytes
    path.write_bytes(gzip.compress(payload, compresslevel=4, mtime=0))


def as_rgb(colours: np.ndarray) -> np.ndarray:
    """uint8 (z, y, x, 3) -> NIfTI's RGB24 voxels (z, y, x)."""
    return np.ascontiguousarray(colours).view(RGB)[..., 0]


def _first_bytes(file: BinaryIO) -> bytes:
    """The unpacked bytes that a header may take."""
    return _inflate(file, HEADER_BYTES, 4096) if _is_packed(file) else file.read(HEADER_BYTES)


def _is_packed(file: BinaryIO) -> bool:
    """By its first bytes, not by its name; leaves `file` at its beginning."""
    file.seek(0)
    packed = file.read(2) == GZIP
    file.seek(0)
    return packed


def _layout(start: bytes) -> Layout:
    """Check a header and say where the voxels are. Raises VolumeError."""
    if start[344:347] == b"ni1" or start[4:7] == b"ni2":
        raise VolumeError("is the header of a .hdr/.img pair; convert the pair to one .nii.gz file")
    if start[344:347] == b"n+1":
        kind, size = nibabel.Nifti1Header, 348
    elif start[4:7] == b"n+2":
        kind, size = nibabel.Nifti2Header, HEADER_BYTES
    else:
        raise VolumeError("is not a NIfTI file" if start else "is empty (0 bytes)")
    if len(start) < size:
        raise VolumeError("is truncated inside its header; copy the file again")
    try:
        with np.errstate(all="ignore"):
            header = kind(start[:size], check=False)
            header.check_fix(SILENT)
            shape = tuple(int(n) for n in header.get_data_shape())
            dtype, scale, affine = header.get_data_dtype(), header.get_slope_inter(), header.get_best_affine()
            offset = int(header.get_data_offset()) or header.single_vox_offset
    except Exception as error:  # nibabel raises many kinds for damaged headers; each means the same to the user
        raise VolumeError(f"is not a readable NIfTI file ({_short(error)})") from None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    text = " x ".join(map(str, shape))
    if len(shape) != 3:
        raise VolumeError(f"is {len(shape)}-D, of shape {text}; expected one 3-D volume")
    if min(shape) < 1:
        raise VolumeError(f"holds no voxels (shape {text})")
    if dtype.kind not in "iuf":
        kind = {"V": "colour", "c": "complex"}.get(dtype.kind, str(dtype))
        raise VolumeError(f"holds {kind} voxels; expected one number per voxel")
    if offset < size:
        raise VolumeError(f"is not a readable NIfTI file (its voxels begin at byte {offset}, inside the header)")
    _check_affine(affine)
    return Layout(shape, dtype, offset, None if scale in ((None, None), (1.0, 0.0)) else scale, affine)


def _check_affine(affine: np.ndarray) -> None:
    """Raise VolumeError unless `affine` (4, 4) gives every voxel a place, a size and a direction."""
    with np.errstate(all="ignore"):
        sizes = np.linalg.norm(affine[:3, :3].astype(np.float64), axis=0)
        lost = not np.isfinite(affine).all() or not np.isfinite(sizes).all() or (sizes == 0).any()
    # directions, free of the voxel sizes: 0 when two axes are parallel
    if lost or abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-6:
        raise VolumeError("its affine is not invertible, so voxel sizes and orientation are unknown")
    directions = (affine[:3, :3] / sizes).astype(np.float64)
    if np.abs(directions.T @ directions - np.eye(3)).max() > SHEAR:
        raise VolumeError("its affine is sheared (a tilted gantry?), so volumes and distances would be wrong; resample "
                          "it to a rectangular grid")
    if sizes.min() < VOXEL_MM[0] or sizes.max() > VOXEL_MM[1]:
        raise VolumeError(f"its voxels measure {' x '.join(f'{s:.3g}' for s in sizes)} mm, which cannot be; correct "
                          "the affine in its header")


def _truncated(layout: Layout, found: int | None = None) -> str:
    has = "the file cannot hold that" if found is None else f"the file holds {found:,}"
    return (f"is truncated: its header promises {' x '.join(map(str, layout.shape))} voxels, {layout.end:,} bytes, but "
            f"{has}; copy the file again")


def _inflate(file: BinaryIO, limit: int, chunk: int) -> bytes:
    """The first `limit` unpacked bytes of a gzip file (a few less or one more, if that is where it ends).

    Reading stops there, so that no file unpacks to more than its header promises. The checksum is verified if
    the stream ends by then. Raises VolumeError.
    """
    inflater, raw, parts, missing = zlib.decompressobj(31), file.read(chunk), [], limit + 1
    try:
        while raw and missing > 0:
            parts.append(inflater.decompress(raw, missing))
            missing -= len(parts[-1])
            raw = inflater.unused_data.lstrip(b"\0") or file.read(chunk)
            if inflater.eof:  # gzip allows several members, and padding
                if raw[:2] != GZIP:
                    break
                inflater = zlib.decompressobj(31)
    except zlib.error as error:
        raise VolumeError(f"is damaged ({_short(error)}); copy the file again") from None
    if missing > 0 and not inflater.eof:
        raise VolumeError("is truncated (the gzip stream ends too early); copy the file again")
    return b"".join(parts)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
