"""lib.imaging.nifti: every orientation to one RAS volume and back, odd but legal files, and files that are none."""

from __future__ import annotations

import gzip
import itertools
import struct

import nibabel
import numpy as np
import pytest

from lib.data.case import CaseError
from lib.imaging.nifti import VolumeError, as_rgb, canonical_geometry, read_header, read_volume, write_like
from lib.readers import make_reader
from lib.study import Data, InputError

SHAPE_XYZ, SPACING_XYZ, ORIGIN = (2, 3, 5), (0.5, 1.25, 3.0), (-11.0, 7.0, 20.0)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
TURN_20_DEG = np.array([[np.cos(0.35), -np.sin(0.35), 0], [np.sin(0.35), np.cos(0.35), 0], [0, 0, 1]])


def ras_volume() -> np.ndarray:
    """(z, y, x), every voxel different."""
    return np.arange(30, dtype=np.int16).reshape(SHAPE_XYZ).transpose(2, 1, 0) * 7 - 50


def save(path, axes=(0, 1, 2), signs=(1, 1, 1), turn=np.eye(3), dtype=np.int16):
    """`ras_volume` stored with file axis k running along RAS axis axes[k], backwards if signs[k] is -1."""
    ras_affine = np.eye(4)
    ras_affine[:3, :3] = turn @ np.diag(SPACING_XYZ)
    ras_affine[:3, 3] = ORIGIN
    voxels = ras_volume().transpose(2, 1, 0).transpose(axes)[tuple(slice(None, None, s) for s in signs)]
    affine = np.eye(4)
    corner = np.zeros(3)  # RAS voxel index of the file's first voxel
    for k, (axis, sign) in enumerate(zip(axes, signs)):
        affine[:3, k] = ras_affine[:3, axis] * sign
        corner[axis] = SHAPE_XYZ[axis] - 1 if sign < 0 else 0
    affine[:3, 3] = (ras_affine @ [*corner, 1])[:3]
    nibabel.save(nibabel.Nifti1Image(voxels.astype(dtype), affine), path)
    return path


def patched(path, offset: int, data: bytes):
    """An uncompressed file with bytes of its header replaced."""
    raw = bytearray(path.read_bytes())
    raw[offset:offset + len(data)] = data
    path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize("turn", [np.eye(3), TURN_20_DEG], ids=["straight", "oblique"])
def test_every_orientation_reads_the_same_and_writes_back_like_its_source(tmp_path, turn):
    assert len(ORIENTATIONS) == 48
    volume = ras_volume().astype(np.float32)
    seen = set()
    for axes, signs in ORIENTATIONS:
        path = save(tmp_path / "source.nii", axes, signs, turn)
        seen.add(nibabel.aff2axcodes(nibabel.load(path).affine))
        header = read_header(path)
        found = read_volume(path, header["orientation"])
        assert found.dtype == np.float32 and found.flags.c_contiguous
        np.testing.assert_array_equal(found, volume, str((axes, signs)))
        shape, spacing = canonical_geometry(header)
        assert shape == (5, 3, 2) and spacing == pytest.approx((3.0, 1.25, 0.5), rel=1e-6)
        write_like(tmp_path / "back.nii.gz", ras_volume(), header)
        source, back = nibabel.load(path), nibabel.load(tmp_path / "back.nii.gz")
        np.testing.assert_array_equal(back.affine, source.affine)
        assert back.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(source.dataobj))
    assert len(seen) == 48  # the files really were stored in 48 ways


def test_several_values_per_voxel_follow_the_orientation(tmp_path):
    """uint8 (z, y, x, values) is written as a 4-D file, each volume as a 3-D one would be."""
    header = read_header(save(tmp_path / "source.nii", (2, 0, 1), (1, -1, -1)))
    masks = np.random.default_rng(0).integers(0, 2, (5, 3, 2, 3)).astype(np.uint8)
    write_like(tmp_path / "all.nii.gz", masks, header)
    image = nibabel.load(tmp_path / "all.nii.gz")
    assert image.shape == (5, 2, 3, 3) and image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.affine, header["affine"])
    for value in range(3):
        write_like(tmp_path / "one.nii.gz", masks[..., value], header)
        np.testing.assert_array_equal(np.asarray(image.dataobj)[..., value],
                                      np.asarray(nibabel.load(tmp_path / "one.nii.gz").dataobj))


def test_colours_are_written_as_rgb24(tmp_path):
    header = read_header(save(tmp_path / "source.nii", (1, 0, 2), (-1, 1, 1)))
    colours = np.random.default_rng(0).integers(0, 256, (5, 3, 2, 3)).astype(np.uint8)
    write_like(tmp_path / "colours.nii.gz", as_rgb(colours), header)
    image = nibabel.load(tmp_path / "colours.nii.gz")
    assert int(image.header["datatype"]) == 128 and image.shape == (3, 2, 5)
    voxels = np.asarray(image.dataobj)
    ras = voxels[::-1].transpose(1, 0, 2)  # file axes: y backwards, x, z
    np.testing.assert_array_equal(np.stack([ras[c] for c in "RGB"], -1), colours.transpose(2, 1, 0, 3))


def test_the_same_result_is_the_same_bytes(tmp_path):
    header = read_header(save(tmp_path / "source.nii"))
    for name in ("one.nii.gz", "two.nii.gz"):
        write_like(tmp_path / name, ras_volume(), header)
    first = (tmp_path / "one.nii.gz").read_bytes()
    assert first == (tmp_path / "two.nii.gz").read_bytes()
    assert first[3] == 0 and first[4:8] == b"\0\0\0\0"  # no file name, no time in the gzip header
    assert str(tmp_path).encode() not in gzip.decompress(first)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_every_number_type_is_read(tmp_path, dtype):
    path = tmp_path / "typed.nii.gz"
    voxels = np.arange(30).reshape(SHAPE_XYZ)
    image = nibabel.Nifti1Image(voxels.astype(dtype), np.eye(4),
                                nibabel.Nifti1Header(endianness=">") if str(dtype)[0] == ">" else None)
    image.set_data_dtype(dtype)
    nibabel.save(image, path)
    np.testing.assert_array_equal(read_volume(path, read_header(path)["orientation"]), voxels.transpose(2, 1, 0))


def test_slope_and_intercept_are_applied(tmp_path):
    """Byte offsets 112 and 116 of a NIfTI-1 header: value = 2.5 * stored - 4."""
    path = patched(save(tmp_path / "scaled.nii"), 112, struct.pack("<ff", 2.5, -4))
    np.testing.assert_array_equal(read_volume(path, read_header(path)["orientation"]), ras_volume() * 2.5 - 4)


@pytest.mark.parametrize("name", ["second.nii", "second.nii.gz"])
def test_nifti_2_is_read_too(tmp_path, name):
    path = tmp_path / name
    nibabel.save(nibabel.Nifti2Image(ras_volume().transpose(2, 1, 0), np.eye(4)), path)
    np.testing.assert_array_equal(read_volume(path, read_header(path)["orientation"]), ras_volume())


def test_a_fourth_axis_of_length_one_is_no_axis(tmp_path):
    path = tmp_path / "one.nii.gz"
    nibabel.save(nibabel.Nifti1Image(ras_volume().transpose(2, 1, 0)[..., None], np.eye(4)), path)
    header = read_header(path)
    assert header["shape"] == [2, 3, 5]
    np.testing.assert_array_equal(read_volume(path, header["orientation"]), ras_volume())


def test_a_gzip_of_several_members_and_padding_is_read_whole(tmp_path):
    """pigz and `cat a.gz b.gz` make them; reading the first member alone would lose voxels."""
    raw = save(tmp_path / "plain.nii").read_bytes()
    path = tmp_path / "members.nii.gz"
    path.write_bytes(gzip.compress(raw[:100]) + gzip.compress(raw[100:371]) + gzip.compress(raw[371:]) + b"\0" * 512)
    np.testing.assert_array_equal(read_volume(path, read_header(path)["orientation"]), ras_volume())


def test_a_compressed_file_without_the_suffix_is_read(tmp_path):
    header = read_header(save(tmp_path / "a.nii.gz"))
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii", header["orientation"]), ras_volume())


@pytest.mark.parametrize("keep", [2, 12, 0.5, 0.9, -1])
def test_a_truncated_gzip_says_so(tmp_path, keep):
    path = save(tmp_path / "a.nii.gz")
    orientation, raw = read_header(path)["orientation"], path.read_bytes()
    path.write_bytes(raw[:int(keep * len(raw)) if 0 < keep < 1 else keep])
    with pytest.raises(VolumeError, match="truncated.*copy the file again"):
        read_volume(path, orientation)


def test_a_damaged_or_cut_file_says_so(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    orientation, raw = read_header(path)["orientation"], bytearray(path.read_bytes())
    raw[-6] ^= 0xFF  # in the checksum
    path.write_bytes(bytes(raw))
    with pytest.raises(VolumeError, match="damaged.*copy the file again"):
        read_volume(path, orientation)
    plain = save(tmp_path / "b.nii")
    plain.write_bytes(plain.read_bytes()[:-1])
    with pytest.raises(VolumeError, match="truncated|cannot be read"):
        read_volume(plain, orientation)
    plain.write_bytes(b"")
    with pytest.raises(VolumeError):
        read_volume(plain, orientation)


@pytest.mark.parametrize("shape, reason", [((3, 4, 5, 2), "is 4-D, of shape 3 x 4 x 5 x 2"), ((3, 4), "is 2-D"),
                                           ((3, 4, 5, 1, 2), "is 5-D")])
def test_only_one_3d_volume_is_taken(tmp_path, shape, reason):
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)
    with pytest.raises(VolumeError, match=reason):
        read_header(path)


@pytest.mark.parametrize("row", [(0, 0, 0, 0), (float("nan"), 0, 0, 0), (float("inf"), 0, 0, 0)])
def test_an_affine_that_places_nothing_is_refused(tmp_path, row):
    """Byte offset 280: the first row of the sform."""
    path = patched(save(tmp_path / "a.nii"), 280, struct.pack("<ffff", *row))
    with pytest.raises(VolumeError, match="affine is not invertible"):
        read_header(path)


def test_what_is_no_volume_of_numbers_is_refused(tmp_path):
    text = tmp_path / "a.nii"
    text.write_text("this is a letter, not an image\n" * 40)
    with pytest.raises(VolumeError, match="not a .*NIfTI file"):
        read_header(text)
    mgh = tmp_path / "a.mgz"
    nibabel.save(nibabel.MGHImage(np.zeros((2, 2, 2), np.float32), np.eye(4)), mgh)
    with pytest.raises(VolumeError, match="not a NIfTI file"):
        read_header(mgh)
    for voxels in (as_rgb(np.zeros((2, 2, 2, 3), np.uint8)), np.zeros((2, 2, 2), np.complex64)):
        path = tmp_path / "colours.nii"
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
        with pytest.raises(VolumeError, match="expected .*number"):
            read_volume(path, read_header(path)["orientation"])


def labelled_reader(classes):
    reader = {"kind": "nifti_folders", "channels": {"ct": "ct"}, "truth": {"liver": "seg", "tumour": "seg"},
              "brain_mask": "none"}
    return make_reader(Data(reader=reader, classes=classes))


def test_one_file_with_several_labels(tmp_path):
    """A class's values come with its name; the outer region takes the inner one's value too."""
    (tmp_path / "P1").mkdir()
    save(tmp_path / "P1" / "ct.nii.gz")
    labels = np.zeros(SHAPE_XYZ, np.uint8)
    labels[0, 0, 0], labels[1, 1, 1:3] = 1, 2
    affine = nibabel.load(tmp_path / "P1" / "ct.nii.gz").affine
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "P1" / "seg.nii.gz")
    reader = labelled_reader({"liver": [1, 2], "tumour": 2})
    (header,) = reader.headers(tmp_path).headers
    assert header.geometry.shape == (5, 3, 2) and not header.geometry.flat and header.geometry.turn == 2
    case = reader.read(tmp_path, header)
    assert {name: int(mask.sum()) for name, mask in case.truth.items()} == {"liver": 3, "tumour": 2}
    with pytest.raises(CaseError) as caught:
        labelled_reader(("liver", "tumour")).read(tmp_path, header)
    assert "say in data.classes which values mean it, such as {liver: 2}" in str(caught.value.problem)
    assert reader.expected.startswith("a folder per patient holding ct")


@pytest.mark.parametrize("classes", [{"liver": value, "tumour": 2} for value in ("red", 1.5, [])])
def test_labels_are_whole_numbers(classes):
    with pytest.raises(InputError, match="data.classes.liver: found .*, expected the mask value"):
        labelled_reader(classes)
    with pytest.raises(InputError, match="at least one class"):
        labelled_reader(())
