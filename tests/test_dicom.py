"""Cine loops: DICOM in every coding that ultrasound has, AVI and MP4; colours, grey levels, and all that can be wrong."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian,
                         JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, MPEG4HP41, RLELossless,
                         UltrasoundMultiFrameImageStorage, generate_uid)

from conftest import ROOT
from lib.imaging import cine
from lib.imaging.cine import CineError
from lib.imaging.loops import read_facts, read_frames

SHARED = ROOT.parent / "shared" / "data" / "dicom"
BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"


def write_dicom(path: Path, frames, syntax=ExplicitVRLittleEndian, kind: str = "", coded=None, bits: int = 8, **tags) -> Path:
    """A loop of `frames` (n, rows, columns) or (n, rows, columns, 3); `coded`: bytes of each frame instead of their values."""
    frames = np.asarray(frames)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape[:3]
    dataset.SamplesPerPixel = samples = 3 if frames.ndim == 4 else 1
    dataset.PhotometricInterpretation = kind or ("RGB" if samples == 3 else "MONOCHROME2")
    if samples == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * frames.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    compress = syntax.is_encapsulated and coded is None
    if compress:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    raw = frames.astype(frames.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = encapsulate(coded) if coded is not None else raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if frames.dtype.itemsize == 1 else "OW"
    dataset["PixelData"].is_undefined_length = coded is not None
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    if compress:
        dataset.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def loop(path: Path, channels: int = 1) -> np.ndarray:
    """uint8 (n, channels, rows, columns), through the two calls that a reader makes."""
    return np.stack([frame.copy() for frame in read_frames(path, read_facts(path, channels).shape, channels)])


def speckle(*shape, seed=0, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def jpeg(picture: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", **{"quality": 95, **options})
    return stream.getvalue()


def reason(path: Path, channels: int = 1) -> str:
    with pytest.raises(CineError) as caught:
        loop(path, channels)
    return str(caught.value)


# --- codings -------------------------------------------------------------------------------------------------------

LOSSLESS = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
            JPEG2000Lossless, JPEGLSLossless]


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("colours", [False, True])
def test_every_lossless_coding_gives_back_the_very_values(tmp_path, syntax, colours):
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls")
    frames = speckle(3, 33, 35, *([3] if colours else []))  # odd sizes, so that frames begin at odd bytes
    path = write_dicom(tmp_path / "a.dcm", frames, syntax)
    facts = read_facts(path, 1)
    assert facts.shape == (3, 33, 35) and facts.colour is colours and not facts.deep and facts.coding == syntax.name
    if colours:
        np.testing.assert_array_equal(loop(path, 3), np.moveaxis(frames, 3, 1))
        weighted = frames @ [0.299, 0.587, 0.114]
        assert np.abs(loop(path)[:, 0] - weighted).max() <= 1
    else:
        np.testing.assert_array_equal(loop(path), frames[:, None])
        np.testing.assert_array_equal(loop(path, 3), np.repeat(frames[:, None], 3, axis=1))


def test_planes_of_colours_one_after_the_other(tmp_path):
    frames = speckle(2, 6, 8, 3)
    path = write_dicom(tmp_path / "a.dcm", frames)
    dataset = pydicom.dcmread(path)
    dataset.PlanarConfiguration, dataset.PixelData = 1, np.ascontiguousarray(np.moveaxis(frames, 3, 1)).tobytes()
    dataset.save_as(path)
    np.testing.assert_array_equal(loop(path, 3), np.moveaxis(frames, 3, 1))


def test_ybr_full_is_the_jfif_transform_and_grey_stays_grey(tmp_path):
    # red (255, 0, 0) is Y 76.245, Cb 84.97, Cr 255.5 (ITU-T T.871); grey has Cb = Cr = 128
    frames = np.array([[[[76, 85, 255], [77, 128, 128]]]], np.uint8)
    path = write_dicom(tmp_path / "a.dcm", frames, kind="YBR_FULL")
    colours = loop(path, 3)[0, :, 0]
    assert np.abs(colours[:, 0].astype(int) - [255, 0, 0]).max() <= 2
    np.testing.assert_array_equal(colours[:, 1], 77)
    np.testing.assert_array_equal(loop(path)[0, 0, 0], [76, 77])


def test_ybr_full_422_shares_colours_between_two_pixels(tmp_path):
    # Y1 Y2 Cb Cr
    path = write_dicom(tmp_path / "a.dcm", np.zeros((1, 1, 4, 3), np.uint8), kind="YBR_FULL_422",
                       PixelData=bytes([10, 20, 128, 128, 76, 76, 85, 255]))
    colours = loop(path, 3)[0, :, 0]
    np.testing.assert_array_equal(colours[:, :2], [[10, 20]] * 3)
    assert np.abs(colours[:, 2:].astype(int) - [[255], [0], [0]]).max() <= 2
    np.testing.assert_array_equal(loop(path)[0, 0, 0], [10, 20, 76, 76])


def test_a_422_of_three_bytes_per_pixel_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", speckle(1, 4, 4, 3), kind="YBR_FULL_422")
    assert "YBR_FULL_422, but has three bytes per pixel" in reason(path)


@pytest.mark.parametrize("marker", ["jfif", "none", "adobe"])
def test_jpeg_baseline_has_its_colours_whatever_its_markers(tmp_path, marker):
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, :16], picture[:, 16:] = (200, 40, 40), (90, 90, 90)
    coded = jpeg(picture, subsampling=0)
    rest = coded[4 + int.from_bytes(coded[4:6], "big"):]  # behind the JFIF marker
    head = {"jfif": coded[:-len(rest)], "none": b"\xff\xd8",
            "adobe": b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"}[marker]
    path = write_dicom(tmp_path / "a.dcm", picture[None], JPEGBaseline8Bit, "YBR_FULL_422", [head + rest])
    colours = loop(path, 3)[0].astype(int)
    assert np.abs(colours[:, 8, 8] - [200, 40, 40]).max() <= 3 and np.ptp(colours[:, 8, 24]) <= 2
    assert abs(int(loop(path)[0, 0, 8, 8]) - 88) <= 2 and abs(int(loop(path)[0, 0, 8, 24]) - 90) <= 2


def test_jpeg_baseline_in_grey(tmp_path):
    frames = np.stack([np.full((16, 16), grey, np.uint8) for grey in (10, 130, 250)])
    path = write_dicom(tmp_path / "a.dcm", frames, JPEGBaseline8Bit, coded=[jpeg(frame) for frame in frames])
    assert [int(frame.mean().round()) for frame in loop(path)] == [10, 130, 250]


def test_lossless_jpeg_of_8_bits_is_decoded(tmp_path):
    reference = pydicom.dcmread(BUNDLED / "SC_rgb_rle.dcm").pixel_array  # the same test chart in another coding
    np.testing.assert_array_equal(loop(BUNDLED / "SC_rgb_jpeg_gdcm.dcm", 3)[0], np.moveaxis(reference, 2, 0))


def test_monochrome1_is_turned_to_white_on_black(tmp_path):
    frames = speckle(2, 4, 6)
    np.testing.assert_array_equal(loop(write_dicom(tmp_path / "a.dcm", frames, kind="MONOCHROME1"))[:, 0], 255 - frames)


@pytest.mark.parametrize("top, deep", [(65535, True), (255, False)])
def test_palettes(tmp_path, top, deep):
    """Value 1 is pure red, 2 mid grey; entries of 16 bits that hold 8 are known by their largest."""
    tables = np.zeros((3, 4), np.uint16)
    tables[0, 1], tables[:, 2], tables[:, 3] = top, top // 2, top
    names = ("Red", "Green", "Blue")
    tags = {f"{name}PaletteColorLookupTableDescriptor": [4, 0, 16] for name in names}
    tags |= {f"{name}PaletteColorLookupTableData": table.tobytes() for name, table in zip(names, tables)}
    path = write_dicom(tmp_path / "a.dcm", np.array([[[0, 1], [2, 3]]], np.uint8), kind="PALETTE COLOR", **tags)
    assert read_facts(path, 1).colour and not read_facts(path, 1).deep
    np.testing.assert_array_equal(loop(path, 3)[0].reshape(3, 4).T, [[0] * 3, [255, 0, 0], [127] * 3, [255] * 3])
    np.testing.assert_array_equal(loop(path)[0, 0], [[0, 76], [127, 255]])


# --- more than 8 bits ----------------------------------------------------------------------------------------------

def test_deep_values_are_scaled_over_the_whole_loop(tmp_path):
    frames = np.array([[[100, 200]], [[300, 600]]], np.uint16)
    path = write_dicom(tmp_path / "a.dcm", frames, bits=12)
    assert read_facts(path, 1).deep
    np.testing.assert_array_equal(loop(path)[:, 0, 0], [[0, 51], [102, 255]])  # (v - 100) / 500 * 255


def test_signed_values_and_a_constant_loop(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.array([[[-100, 0, 100]]], np.int16), bits=16)
    np.testing.assert_array_equal(loop(path)[0, 0, 0], [0, 128, 255])
    path = write_dicom(tmp_path / "b.dcm", np.full((2, 3, 3), 900, np.uint16), bits=12)
    assert not loop(path).any()


def test_the_window_of_the_file_wins_over_its_range(tmp_path):
    frames = np.array([[[0, 500, 755, 1010, 4095]]], np.uint16)
    tags = {"WindowCenter": [378, 9], "WindowWidth": [256, 9], "RescaleSlope": 0.5, "RescaleIntercept": 0}
    path = write_dicom(tmp_path / "a.dcm", frames, bits=12, **tags)
    # PS3.3 C.11.2.1.2.1: from 378 - 0.5 - 127.5 = 250 to 505, of half the stored values: 500 to 1010
    np.testing.assert_array_equal(loop(path)[0, 0, 0], [0, 0, 128, 255, 255])
    write_dicom(path, frames, bits=12, kind="MONOCHROME1", **tags)
    np.testing.assert_array_equal(loop(path)[0, 0, 0], [255, 255, 127, 0, 0])


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless], ids=lambda syntax: syntax.name)
def test_deep_values_in_other_codings(tmp_path, syntax):
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls")
    frames = np.random.default_rng(1).integers(0, 4096, (3, 34, 40)).astype(np.uint16)
    low, high = int(frames.min()), int(frames.max())
    path = write_dicom(tmp_path / "a.dcm", frames, syntax, bits=12)
    np.testing.assert_array_equal(loop(path)[:, 0], np.rint((frames - low) * (255 / (high - low))))


# --- the header ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tags, rate", [({"FrameTime": 20}, 50), ({"CineRate": 30}, 30),
                                        ({"RecommendedDisplayFrameRate": 25}, 25),
                                        ({"FrameTime": 40, "CineRate": 30}, 25), ({"FrameTimeVector": [0, 10, 30]}, 50),
                                        ({}, 0), ({"CineRate": 0}, 0), ({"FrameTime": 0, "CineRate": 24}, 24),
                                        ({"FrameTime": 1e-6}, 0)])
def test_frame_rate(tmp_path, tags, rate):
    assert read_facts(write_dicom(tmp_path / "a.dcm", speckle(3, 4, 4), **tags), 1).frame_rate == rate


def region(x=0.05, y=0.05, units=3, form=1) -> pydicom.Dataset:
    found = pydicom.Dataset()
    found.RegionSpatialFormat, found.PhysicalUnitsXDirection, found.PhysicalUnitsYDirection = form, units, units
    found.PhysicalDeltaX, found.PhysicalDeltaY = x, y
    return found


@pytest.mark.parametrize("regions, spacing", [([region(0.05, 0.04)], (0.4, 0.5)),
                                              ([region(), region(0.01, units=4, form=3)], (0.5, 0.5)),
                                              ([region(), region(0.06)], None), ([region(units=0)], None), ([region(0)], None),
                                              ([region(-0.05)], (0.5, 0.5)), ([region(5.0)], None), ([], None)])
def test_spacing_is_that_of_the_two_dimensional_regions(tmp_path, regions, spacing):
    found = read_facts(write_dicom(tmp_path / "a.dcm", speckle(1, 4, 4), SequenceOfUltrasoundRegions=regions), 1).spacing_mm
    assert found == (spacing and pytest.approx(spacing))


def test_what_the_header_says_and_that_it_is_not_shown(tmp_path):
    facts = read_facts(write_dicom(tmp_path / "a", speckle(2, 4, 4), PatientID=" P7 ", PatientName="Doe^Jane", HeartRate=61), 1)
    assert (facts.patient_id, facts.heart_rate) == ("P7", 61) and "P7" not in repr(facts) and "Doe" not in repr(facts)
    assert read_facts(write_dicom(tmp_path / "b", speckle(2, 4, 4), HeartRate=0), 1).heart_rate == 0


def test_no_pixel_is_read_for_the_header(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", speckle(40, 200, 200))
    opened = []

    class Watched(io.FileIO):
        def read(self, count=-1):
            opened.append(count if count >= 0 else 10**9)
            return super().read(count)

        def readinto(self, buffer):
            opened.append(len(buffer))
            return super().readinto(buffer)

    original = Path.open
    try:
        Path.open = lambda self, *args: io.BufferedReader(Watched(str(self)), 4096)
        read_facts(path, 1)
    finally:
        Path.open = original
    assert sum(opened) < 200 * 200 * 10


# --- what can be wrong ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEG2000Lossless],
                         ids=lambda syntax: syntax.name)
def test_truncated_files_are_found_by_the_header_alone(tmp_path, syntax, share):
    path = write_dicom(tmp_path / "a.dcm", speckle(6, 40, 40), syntax)
    raw = path.read_bytes()
    path.write_bytes(raw[:max(400, int(len(raw) * share))])
    with pytest.raises(CineError, match="truncated|cut off"):
        read_facts(path, 1)


def test_fewer_frames_than_the_header_says(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", speckle(4, 8, 8), NumberOfFrames=5)
    assert "holds 4 of 5 frames (256 of 320 bytes)" in reason(path)
    path = write_dicom(tmp_path / "b.dcm", speckle(3, 8, 8), JPEGBaseline8Bit, coded=[jpeg(np.zeros((8, 8), np.uint8))] * 2)
    assert "holds 2 of 3 frames" in reason(path)


def test_a_broken_frame_is_an_error_and_no_zeros(tmp_path):
    good = jpeg(speckle(32, 32))
    path = write_dicom(tmp_path / "a.dcm", speckle(2, 32, 32), JPEGBaseline8Bit, coded=[good, good[:len(good) // 2]])
    assert "cannot be decoded" in reason(path)
    other = jpeg(speckle(16, 32))
    assert "cannot be decoded" in reason(write_dicom(path, speckle(2, 32, 32), JPEGBaseline8Bit, coded=[good, other]))


def test_a_file_without_its_last_delimiter_is_whole(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", speckle(3, 8, 8), RLELossless)
    raw = path.read_bytes()
    assert raw.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    path.write_bytes(raw[:-8])
    assert loop(path).shape == (3, 1, 8, 8)


def test_zero_frames_no_pixels_and_other_files(tmp_path):
    path = tmp_path / "a.dcm"
    assert "zero frames" in reason(write_dicom(path, speckle(1, 8, 8), NumberOfFrames=0))
    assert "-2 frames" in reason(write_dicom(path, speckle(1, 8, 8), NumberOfFrames=-2))
    assert "Basic Text SR Storage" in reason(BUNDLED / "reportsi.dcm")
    assert "is no DICOM file" in reason(_written(path, b"x" * 500)) and "is empty (0 bytes)" in reason(_written(path, b""))
    assert "cannot be read (No such file" in reason(tmp_path / "none.dcm")
    assert "no transfer syntax" in reason(_written(path, b"\0" * 128 + b"DICM\2\0"))
    assert "CMYK" in reason(write_dicom(path, speckle(1, 8, 8, 3), kind="CMYK"))
    assert "no transfer syntax" in reason(BUNDLED / "meta_missing_tsyntax.dcm")
    assert "NumberOfFrames that is no number" in reason(BUNDLED / "badVR.dcm")


def _written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def test_more_pixels_than_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", speckle(1, 8, 8), Rows=60000, Columns=60000, NumberOfFrames=2**31 - 1)
    assert "GiB decoded, more than" in reason(path)
    write_dicom(path, speckle(1, 8, 8), JPEGBaseline8Bit, coded=[jpeg(speckle(8, 8))], Rows=60000, Columns=60000,
                NumberOfFrames=10**6)
    assert "GiB decoded, more than" in reason(path)
    write_dicom(path, speckle(10, 100, 100))
    monkeypatch.setattr(cine, "MEMORY_SHARE", 150_000 / (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    assert read_facts(path, 1).shape == (10, 100, 100)
    with pytest.raises(CineError, match="cut it into shorter videos"):
        read_facts(path, 3)  # three times as many bytes


def test_a_deflated_file_that_never_ends_is_stopped(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((50, 200, 200), np.uint8), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 20_000
    assert loop(path).shape == (50, 1, 200, 200)
    monkeypatch.setattr(cine, "memory_limit", lambda: 10**6)
    monkeypatch.setattr("lib.imaging.dicom_file.memory_limit", lambda: 10**6)
    assert "inflates to more than" in reason(path)


@pytest.mark.parametrize("syntax, package", [(JPEGLSLossless, "pyjpegls"), (JPEG2000Lossless, "pylibjpeg pylibjpeg-openjpeg"),
                                             (JPEGBaseline8Bit, "pillow"), (JPEGLosslessSV1, "python-gdcm")])
def test_a_missing_decoder_names_its_package(tmp_path, monkeypatch, syntax, package):
    path = write_dicom(tmp_path / "a.dcm", speckle(1, 8, 8), syntax, coded=[b"\xff\xd8"])
    monkeypatch.setattr(get_decoder(syntax), "_available", {})
    with pytest.raises(CineError) as caught:
        read_facts(path, 1)
    assert str(caught.value) == f"is coded as {syntax.name}, for which no decoder is installed: pip install {package}"


def test_codings_that_nothing_decodes(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", speckle(1, 8, 8), MPEG4HP41, coded=[b"\0" * 8])
    assert "there is no decoder; save the loop as MP4" in reason(path)
    assert "with 12 bits, for which no decoder is installed: pip install python-gdcm" in reason(BUNDLED / "JPGExtended.dcm")


# --- real files ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, shape", [("examples_ybr_color", (30, 240, 320)), ("examples_rgb_color", (1, 240, 320)),
                                         ("examples_palette", (1, 350, 800)), ("examples_jpeg2k", (1, 480, 640)),
                                         ("ExplVR_BigEnd", (1, 60, 80)), ("image_dfl", (1, 512, 512)),
                                         ("SC_ybr_full_422_uncompressed", (1, 100, 100)), ("SC_rgb_rle_2frame", (2, 100, 100))])
def test_bundled_examples_have_the_colours_that_pydicom_gives_them(name, shape):
    path = Path(get_testdata_file(f"{name}.dcm"))
    assert read_facts(path, 3).shape == shape
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array.reshape(*shape, -1)
    if name == "examples_palette":
        expected = pydicom.pixels.apply_color_lut(dataset.pixel_array, dataset)[None] >> 8
    found = np.moveaxis(loop(path, 3), 1, 3).astype(int)
    assert np.abs(found - expected).max() <= 1  # rounding of YCbCr
    grey = loop(path)[:, 0].astype(int)
    assert np.abs(grey - np.broadcast_to(expected, (*shape, 3)) @ [0.299, 0.587, 0.114]).max() <= (
        60 if dataset.PhotometricInterpretation.startswith("YBR_FULL") else 1)  # saturated colours lie outside RGB
    if name == "examples_rgb_color":  # its picture has grey and coloured pixels: the former stay what they are
        neutral = np.ptp(expected[0].astype(int), axis=2) == 0
        assert neutral.any() and not neutral.all()
        np.testing.assert_array_equal(grey[0][neutral], expected[0][neutral][:, 0])


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
def test_real_loops():
    echo = read_facts(SHARED / "examples_ybr_color.dcm", 1)
    assert (echo.shape, echo.colour, echo.frame_rate, echo.heart_rate) == ((30, 240, 320), True, 30.0, 0.0)
    assert echo.spacing_mm == pytest.approx((0.5105, 0.5105), abs=1e-4)
    found = loop(SHARED / "examples_ybr_color.dcm", 3).astype(int)
    assert np.median(np.ptp(found[:, :, 60:200, 60:260], axis=1)) <= 2  # the sector is grey
    grey = read_facts(SHARED / "GREYSCALE_CINE.dcm", 1)
    assert (grey.shape, grey.colour, grey.frame_rate) == ((27, 600, 800), False, 30.0)
    raw = pydicom.dcmread(SHARED / "GREYSCALE_CINE.dcm").pixel_array
    np.testing.assert_array_equal(loop(SHARED / "GREYSCALE_CINE.dcm")[:, 0], raw)


# --- AVI, MP4, MOV and MKV -----------------------------------------------------------------------------------------

VIDEOS = [("a.avi", "MJPG"), ("a.avi", "XVID"), ("a.mp4", "mp4v"), ("a.mov", "mp4v"), ("a.mkv", "XVID")]


def write_video(path: Path, frames: np.ndarray, code: str = "MJPG", rate: float = 20.0) -> Path:
    """frames: uint8 (n, rows, columns) or (n, rows, columns, 3) of red, green, blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, frames.shape[2:0:-1])
    if not writer.isOpened():
        pytest.skip(f"OpenCV writes no {code} here")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if frame.ndim == 2 else np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def moving(count: int = 9, size=(48, 64)) -> np.ndarray:
    """A grey step that moves by a block."""
    frames = np.full((count, *size), 40, np.uint8)
    for index, frame in enumerate(frames):
        frame[:, 16:24 + 2 * index] = 200
    return frames


@pytest.mark.parametrize("name, code", VIDEOS)
def test_videos(tmp_path, name, code):
    frames = moving()
    path = write_video(tmp_path / name, frames, code)
    facts = read_facts(path, 1)
    assert (facts.shape, facts.colour, facts.frame_rate, facts.patient_id) == ((9, 48, 64), False, 20.0, "")
    found = loop(path)
    assert found.shape == (9, 1, 48, 64) and np.abs(found[:, 0].astype(int) - frames).mean() < 3
    assert np.ptp(loop(path, 3).astype(int), axis=1).max() <= 4  # grey stays grey


def test_colours_of_a_video(tmp_path):
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    frames[..., 0] = 220
    path = write_video(tmp_path / "a.avi", frames)
    assert read_facts(path, 1).colour
    assert np.abs(loop(path, 3).astype(int) - np.array([220, 0, 0])[:, None, None]).max() <= 8


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97, 0.999])
@pytest.mark.parametrize("name, code", VIDEOS)
def test_truncated_videos_are_errors(tmp_path, name, code, share):
    path = write_video(tmp_path / name, moving(), code)
    raw = path.read_bytes()
    path.write_bytes(raw[:int(len(raw) * share)])
    with pytest.raises(CineError, match="truncated or damaged"):
        read_facts(path, 1)


def test_a_video_that_lacks_announced_frames(tmp_path):
    """The beginning says 9; the last four are gone, and all lengths fit what is left."""
    path = write_video(tmp_path / "a.avi", moving())
    raw = bytearray(path.read_bytes())
    movi = raw.index(b"movi")
    place, kept = movi + 4, 0
    while kept < 5:
        place += 8 + (length := struct.unpack("<I", raw[place + 4:place + 8])[0]) + length % 2
        kept += 1
    raw[movi - 4:movi] = struct.pack("<I", place - movi)
    raw[4:8] = struct.pack("<I", place - 8)
    path.write_bytes(raw[:place])
    with pytest.raises(CineError, match="holds 5 of 9 frames"):
        read_facts(path, 1)


def test_a_playlist_or_a_picture_is_no_video(tmp_path):
    for name, raw in (("a.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/x.ts\n"), ("a.avi", b"RIFF\4\0\0\0WAVE"),
                      ("a.mkv", b"x" * 50)):
        assert "is no DICOM, AVI, MP4, MOV or MKV file" in reason(_written(tmp_path / name, raw))
    assert "is empty" in reason(_written(tmp_path / "b.avi", b""))
    empty = struct.pack(">I4s", 16, b"ftyp") + b"isom\0\0\0\0"
    assert "cannot be opened as a video" in reason(_written(tmp_path / "c.mp4", empty))


def test_a_file_that_changed_since_its_header_was_read(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", speckle(3, 8, 8))
    with pytest.raises(CineError, match="expected 8 x 9"):
        list(read_frames(path, (3, 8, 9), 1))
    video = write_video(tmp_path / "a.avi", moving(5))
    with pytest.raises(CineError, match="changed while"):
        list(read_frames(video, (4, 48, 64), 1))
    with pytest.raises(CineError, match="holds 5 of 6 frames"):
        list(read_frames(video, (6, 48, 64), 1))
