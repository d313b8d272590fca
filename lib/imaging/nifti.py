"""NIfTI volumes: read into the canonical (RAS) grid as (z, y, x), and written back like their source file."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
RAS = np.array([[0, 1], [1, 1], [2, 1]])


class VolumeError(Exception):
    """A file that is no usable volume; the message says why, without the file's name."""


def read_header(path: Path) -> dict:
    """Shape, affine and orientation of a 3-D NIfTI file, without its voxels.

    Returns `shape` (x, y, z of the file), `affine` (4 x 4 nested lists, mm) and `orientation` (nibabel's
    array of axis and direction, nested lists). Raises VolumeError.
    """
    try:
        image = nibabel.load(path)
        shape, affine = image.shape, np.asarray(image.affine, np.float64)
    except Exception as error:  # nibabel raises many kinds for damaged headers; each means the same to the user
        raise VolumeError(f"not a readable NIfTI file ({_short(error)})") from None
    if not isinstance(image, (nibabel.Nifti1Image, nibabel.Nifti1Pair)):
        raise VolumeError("not a NIfTI file")
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3:
        raise VolumeError(f"is {len(shape)}-D, of shape {' x '.join(map(str, shape))}; expected one 3-D volume")
    if min(shape) < 1:
        raise VolumeError(f"holds no voxels (shape {' x '.join(map(str, shape))})")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VolumeError("its affine is not invertible, so voxel sizes and orientation are unknown")
    orientation = io_orientation(affine)
    return {"shape": [int(n) for n in shape], "affine": affine.tolist(), "orientation": orientation.tolist()}


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
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = _inflate(raw)
    try:
        image = nibabel.Nifti1Image.from_bytes(raw)
        voxels = np.asarray(image.dataobj)
    except Exception as error:
        raise VolumeError(f"its voxels cannot be read ({_short(error)})") from None
    if voxels.dtype.kind not in "iufb":
        raise VolumeError(f"holds {voxels.dtype} voxels; expected numbers")
    voxels = voxels.reshape(voxels.shape[:3])
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


def _inflate(raw: bytes) -> bytes:
    inflater, parts = zlib.decompressobj(31), []
    try:
        while raw:
            parts.append(inflater.decompress(raw))
            if not inflater.eof:
                raise VolumeError("is truncated (the gzip stream ends too early); copy the file again")
            raw = inflater.unused_data.lstrip(b"\0")  # gzip allows several members, and padding
            inflater = zlib.decompressobj(31)
    except zlib.error as error:
        raise VolumeError(f"is damaged ({_short(error)}); copy the file again") from None
    return b"".join(parts)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
