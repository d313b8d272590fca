"""Frames of cine loops per second through script 1: uncompressed DICOM, 600 x 800, to 112 x 112.

    python benchmarks/video_preparation_speed.py            10 and 40 loops of 60 frames

Three measures, each in a process of its own: `reading` alone (header, decoding, sector masked, in as many threads as there
are cores), the same with `resizing`, and the whole of script 1, which also starts Python, hashes every file and every
decoded loop, deals folds and writes the tables. Frames per second of one core do not depend on what else is running.
The peak of memory should not grow with the number of loops.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SHAPE = (60, 600, 800)
DIFFERENT = 7  # pictures of which loops are made, in an order of their own

STUDY = """
name: speed
data:
  classes: [poor, good]
  size: [112, 112]
  intensity: none
  store: uint8
  folds: {k: 3}
  reader: {kind: video_table, patient_salt: speed}
window: {frames: 32, stride: 2}
task: {kind: classification}
network: {name: r2plus1d_18}
report: {figures: false}
"""

READ = """
import resource, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import cv2
from lib.data.store import fit_of
from lib.readers import make_reader
from lib.study import load_study
study, root, resizing = load_study(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "resizing"
cv2.setNumThreads(1)
def one(header):
    case = reader.read(root, header)
    return fit_of(header.geometry, study.data.size).fit(case.frames).shape if resizing else case.frames.shape
started, used = time.perf_counter(), time.process_time()
reader = make_reader(study.data)
scan = reader.headers(root)
with ThreadPoolExecutor(int(sys.argv[4])) as pool:
    frames = sum(shape[1] for shape in pool.map(one, scan.headers))
wall, cpu = time.perf_counter() - started, time.process_time() - used
print(frames / wall, frames / cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

SCRIPT = """
import resource, runpy, sys
try:
    runpy.run_path("1-DataPreparation.py", run_name="__main__")
except SystemExit as end:
    if end.code:
        raise
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def make_loops(root: Path, count: int) -> None:
    """Speckle in a fan, different in every loop, with words around it."""
    import cv2
    import numpy as np
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SHAPE[1], :SHAPE[2]]
    y, x = rows - 30, columns - SHAPE[2] / 2
    fan = (np.hypot(y, x) < 540) & (np.abs(np.arctan2(x, y)) < np.radians(40))
    pictures = [np.where(fan, cv2.GaussianBlur(random.rayleigh(70, SHAPE[1:]), (0, 0), 1.5), 0).astype(np.uint8)
                for _ in range(DIFFERENT)]
    for picture in pictures:
        cv2.putText(picture, "DOE^JANE 1951", (10, 30), 0, 1, 255, 2)
    lines = ["video_path,quality_score"]
    (root / "echo_videos").mkdir(parents=True)
    for number in range(count):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.PatientID, dataset.FrameTime = f"P{number}", 20
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = SHAPE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.PixelData = b"".join(pictures[index].tobytes() for index in random.integers(0, DIFFERENT, SHAPE[0]))
        dataset["PixelData"].VR = "OB"
        dataset.save_as(root / "echo_videos" / f"{number:04d}.dcm", enforce_file_format=True)
        lines.append(f"echo_videos/{number:04d}.dcm,{number % 2}")
    (root / "echo_annotations.csv").write_text("\n".join(lines), encoding="utf-8")


def output(*command: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def measure(count: int, repeats: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, study = Path(folder) / "raw", Path(folder) / "speed.yaml"
        make_loops(root, count)
        study.write_text(STUDY, encoding="utf-8")
        for number in range(repeats):
            reading, _, _ = output(READ, str(study), str(root), "reading", str(threads))
            resizing, busy, memory = output(READ, str(study), str(root), "resizing", str(threads))
            started = time.perf_counter()
            spent, peak = output(SCRIPT, "-s", str(study), "-i", str(root), "-o", f"{folder}/whole{number}", "-j", str(threads))
            whole, frames = time.perf_counter() - started, count * SHAPE[0]
            print(f"{count} loops: reading {reading:.0f} frames/s, with resizing {resizing:.0f} ({busy:.0f} per second of one "
                  f"core, peak memory {memory:.0f} MiB); the whole script {frames / whole:.0f} ({whole:.1f} s, "
                  f"{frames / spent:.0f} per second of one core, {peak:.0f} MiB)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for loops in arguments.loops:
        measure(loops, arguments.repeats, arguments.threads)
