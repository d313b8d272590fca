"""Phantom cine loops for `echo_quality`: beating hearts as multi-frame DICOM files, good ones and poor ones.

A poor loop has one fault of FAULTS in full (fog, noise, shadow, a foreshortened view) and most often a share of
another; a good one has a little of each. Around the sector there is what a machine burns in: a test banner, a grey bar,
depth marks and a running ECG.
"""
from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lib.phantoms.hearts import FAULTS, Heart, make_loop
from lib.phantoms.tables import refuse_other_table, write_table
from lib.phantoms.ultrasound import MARK, Probe, View

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

SHAPES = {"small": ((48, 64), (52, 60)), "demo": ((120, 160), (128, 152)), "full": ((480, 640), (434, 636))}
FRAMES = {"small": (10, 14), "demo": (24, 30), "full": (45, 60)}  # fewest and most of a loop
FRAME_RATES = 20, 25, 40  # 1/s; their frame times are whole milliseconds
VIDEOS, TABLE, COLUMNS = "echo_videos", "echo_annotations.csv", ("video_path", "quality_score")
# photometric interpretation and whether run-length encoded, dealt out in turn
FORMATS = (("MONOCHROME2", False), ("RGB", False), ("MONOCHROME2", True), ("MONOCHROME2", False), ("YBR_FULL", False),
           ("MONOCHROME2", False), ("MONOCHROME2", False), ("RGB", True))
# of a beat (0..1 from the R wave): height of the trace
ECG = (0, 0.02, 0.04, 0.07, 0.25, 0.33, 0.4, 0.85, 0.9, 0.95, 1), (1, 0.2, 0, 0.1, 0.1, 0.4, 0.1, 0.1, 0.25, 0.1, 1)
DATE, TIME = "20000101", "120000"
SHALLOWEST_TEXT = 96  # rows of a picture: smaller ones have blocks where the text would be


def deal_faults(rng: np.random.Generator, loops: int, poor: float) -> list[dict[str, float]]:
    """How bad (0..1) each fault of each loop is. The share `poor` of the loops is poor; each fault leads in turn."""
    bad = int(poor * loops)
    is_bad, leads = rng.permutation(loops) < bad, iter(rng.permutation(bad))
    dealt = []
    for is_poor in is_bad:
        faults = dict(zip(FAULTS, rng.uniform(0, 0.27, len(FAULTS))))
        if is_poor:
            lead = next(leads) % len(FAULTS)
            other = FAULTS[(lead + rng.integers(1, len(FAULTS))) % len(FAULTS)]
            faults[FAULTS[lead]] = rng.uniform(0.65, 1.0)
            faults[other] = max(faults[other], rng.uniform(0, 0.9) * faults[FAULTS[lead]])
        else:
            faults[FAULTS[rng.integers(len(FAULTS))]] += rng.uniform(0, 0.15)
        dealt.append({name: float(value) for name, value in faults.items()})
    return dealt


def is_good(faults: dict[str, float]) -> bool:
    return max(faults.values()) < 0.5


def sector(shape: tuple[int, int], depth_mm: float) -> tuple[View, Probe]:
    """A phased array whose sector leaves room for text above it, for the ECG below and for depth marks on the right."""
    half = 0.76
    mm = max(depth_mm / (0.83 * shape[0]), 2 * (depth_mm + 6) * np.sin(half) / (0.9 * shape[1]))
    return View(shape, mm, 0.0, -0.08 * shape[0] * mm), Probe(0.0, -6.0, 6.0, half, depth_mm)


def burn_in(loop: np.ndarray, banner: str, view: View, beat: np.ndarray) -> np.ndarray:
    """Colour frames (n, rows, columns, 3) of a grey loop with banner, grey bar, depth marks and running ECG."""
    frames = np.repeat(loop[..., None], 3, axis=3)
    (rows, columns), count = loop.shape[1:], len(loop)
    still = np.zeros((rows, columns, 3), np.uint8)
    if rows < SHALLOWEST_TEXT:
        still[1:3, 1:columns // 4:2] = still[1:3, -columns // 6:-2] = (230, 220, 120)
    else:
        scale = rows / 480
        for text, x in ((banner, 0.01), ("TEST", 0.87)):
            cv2.putText(still, text, (int(x * columns), int(0.055 * rows)), cv2.FONT_HERSHEY_SIMPLEX, max(scale, 0.3),
                        (230, 220, 120), max(round(scale), 1), cv2.LINE_AA)
    top, bottom = int(0.15 * rows), int(0.5 * rows)
    still[top:bottom, -max(columns // 40, 1) - 1:-1] = np.linspace(255, 20, bottom - top, dtype=np.uint8)[:, None, None]
    for depth_mm in (50, 100, 150):
        row = int((depth_mm - view.y) / view.mm)
        if bottom < row < rows:
            still[row, -columns // 50 - 1:] = 190
    frames = np.maximum(frames, still)
    if rows >= SHALLOWEST_TEXT:
        phase = np.interp(np.linspace(0, count - 1, columns), np.arange(count), np.unwrap(beat, period=1)) % 1
        heights = np.interp(phase, *ECG)
        lines = np.rint(0.985 * rows - 0.055 * rows * heights).astype(np.int32)
        trace = np.stack([np.arange(columns), lines], axis=1)
        for i, frame in enumerate(frames):
            cv2.polylines(frame, [trace[:max(int(columns * (i + 1) / count), 2)]], False, (60, 220, 90), 1)
    return frames


def uid(*facts: object) -> str:
    """A UID of the 2.25 root that depends on the facts alone."""
    return f"2.25.{int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:15], 'big')}"


def make_dicom(frames: np.ndarray, photometric: str, encoded: bool, patient: str, facts: tuple, frame_rate: int,
               heart_rate: float, view: View) -> FileDataset:
    """An Ultrasound Multi-frame Image of colour `frames` (n, rows, columns, 3) uint8; grey: their brightest channel.

    Its UIDs depend on `facts`; patient is a made-up name, PHANTOM^07.
    """
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.pixels import convert_color_space
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless, UltrasoundMultiFrameImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = uid("instance", *facts)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = uid("implementation"), "FOLDSCAN_PHANTOM"
    image = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = uid("study", patient, facts[0]), uid("series", *facts)
    image.StudyDate, image.StudyTime, image.ContentDate, image.ContentTime = DATE, TIME, DATE, TIME
    image.ImageType, image.Modality, image.Manufacturer = ["ORIGINAL", "PRIMARY"], "US", MARK
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = patient, patient.replace("^", ""), "", ""
    image.StudyID, image.SeriesNumber, image.InstanceNumber, image.AccessionNumber = "1", 1, 1, ""
    image.ReferringPhysicianName, image.BurnedInAnnotation, image.PatientOrientation = "", "YES", ""
    image.CineRate, image.RecommendedDisplayFrameRate, image.HeartRate = frame_rate, frame_rate, round(heart_rate)
    image.FrameTime, image.FrameIncrementPointer = 1000 // frame_rate, 0x00181063
    image.LossyImageCompression = "00"
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = frames.shape[2] - 1, frames.shape[1] - 1
    region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection = 3, 3  # cm
    region.PhysicalDeltaX = region.PhysicalDeltaY = round(view.mm / 10, 8)
    image.SequenceOfUltrasoundRegions = [region]

    if photometric == "MONOCHROME2":
        frames = frames.max(axis=3)
    else:
        image.PlanarConfiguration = 0
        frames = convert_color_space(frames, "RGB", photometric) if photometric != "RGB" else frames
    image.SamplesPerPixel, image.PhotometricInterpretation = (1 if photometric == "MONOCHROME2" else 3), photometric
    image.NumberOfFrames, image.Rows, image.Columns = frames.shape[:3]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = np.ascontiguousarray(frames).tobytes()
    image["PixelData"].VR = "OB"
    if encoded:
        image.compress(RLELossless, frames, encoding_plugin="pydicom", generate_instance_uid=False)
    return image


def write_dicom(path: Path, image: FileDataset) -> None:
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(buffer.getvalue())
    os.replace(partial, path)


def refuse_other_loops(files: Sequence[Path]) -> None:
    """Raise FileExistsError if the folders of `files` hold any other file, or if one of `files` is no phantom."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    known = set(files)
    for folder in sorted({file.parent for file in files}):
        for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else []:
            if path not in known:
                raise FileExistsError(f"{path} is not one of these {len(known)} files: use another folder")
            try:
                ours = dcmread(path, stop_before_pixels=True).get("Manufacturer") == MARK
            except (InvalidDicomError, OSError, ValueError, KeyError):
                ours = False
            if not ours:
                raise FileExistsError(f"{path} is not a phantom and won't be overwritten: use another folder")


def make_echo_loops(folder: Path | str, patients: int = 24, seed: int = 0, *, size: str = "demo",
                    poor: float = 0.5) -> list[Path]:
    """Write echo_videos/echo_NNN.dcm and echo_annotations.csv (video_path, quality_score) under `folder`.

    Returns the videos: one or two loops per patient, of `FRAMES[size]` frames of the sizes of `SHAPES[size]` and the
    FORMATS in turn; patient N is PHANTOM^N, in the files alone. quality_score is 1 (good) or 0, the share `poor`
    of the loops. The same arguments give the same bytes. Raises ValueError for impossible arguments, FileExistsError if there are
    other files.
    """
    if size not in SHAPES:
        raise ValueError(f"no size '{size}'; known: {', '.join(SHAPES)}")
    if patients < 1 or not 0 <= poor <= 1:
        raise ValueError("need patients >= 1, poor in 0..1")
    folder = Path(folder)
    cohort, *streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(patients + 1)]
    owners = np.repeat(np.arange(patients), 1 + cohort.permutation(patients) % 2)
    digits, fewest, most = max(3, len(str(len(owners)))), *FRAMES[size]
    videos = [folder / VIDEOS / f"echo_{i + 1:0{digits}d}.dcm" for i in range(len(owners))]
    names = [f"{VIDEOS}/{video.name}" for video in videos]
    refuse_other_loops(videos)
    refuse_other_table(folder / TABLE, COLUMNS, names)

    dealt, hearts = deal_faults(cohort, len(owners), poor), [Heart.draw(rng) for rng in streams]
    for i, (video, owner, faults) in enumerate(zip(videos, owners, dealt)):
        rng, patient = streams[owner], f"PHANTOM^{owner + 1:0{max(2, len(str(patients)))}d}"
        heart, frame_rate = hearts[owner].seen(rng, faults["off_axis"]), int(rng.choice(FRAME_RATES))
        frames = int(rng.integers(fewest, most + 1))
        view, probe = sector(SHAPES[size][i % len(SHAPES[size])], rng.uniform(140, 152))
        loop = make_loop(rng, view, probe, heart, frames, frame_rate, faults)
        colour = burn_in(loop, patient, view, heart.beat(frames, frame_rate))
        photometric, encoded = FORMATS[i % len(FORMATS)]
        write_dicom(video, make_dicom(colour, photometric, encoded, patient, (seed, size, patients, i), frame_rate,
                                      heart.rate, view))
    write_table(folder / TABLE, COLUMNS, [(name, int(is_good(faults))) for name, faults in zip(names, dealt)])
    return videos
