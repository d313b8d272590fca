"""Our brain mask beside dipy's recipe:  python benchmarks/brainmask_agreement.py FOLDER [FOLDER ...]

Each FOLDER is a patient (b0 and b1000, .nii.gz or .nii) or holds patients. Prints per patient the Dice
between our mask and that of the original recipe (dipy's median_otsu(volume, 1, 1) on both channels, then
intersection, largest component, dilation, filling), and the time of each. Ends with exit code 1 if a Dice is
below 0.96.

dipy is no dependency of FoldScan: run this in a copy of the environment with `pip install dipy`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lib.imaging.brainmask import METHODS, brain_mask  # noqa: E402
from lib.imaging.nifti import read_header, read_volume  # noqa: E402

CHANNELS = ("b0", "b1000")
LIMIT = 0.96


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, 1 when a mask disagrees, 2 when there is nothing to compare."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--method", choices=list(METHODS), default="otsu")
    parser.add_argument("--repeats", type=int, default=5, help="ours: the shortest of so many runs")
    args = parser.parse_args(arguments)
    try:
        from dipy.segment.mask import median_otsu
    except ImportError:
        print("error: this comparison needs dipy, which FoldScan itself does not; "
              "in a copy of the environment: pip install dipy", file=sys.stderr)
        return 2
    patients = find_patients(args.folders)
    if not patients:
        print(f"error: no folder with {' and '.join(CHANNELS)} (.nii.gz or .nii) in "
              f"{', '.join(map(str, args.folders))}", file=sys.stderr)
        return 2
    cv2.setNumThreads(1)
    print(f"{'patient':32} {'shape':>14} {'Dice':>7} {'ours ms':>8} "
          f"{'dipy ms':>8} {'ratio':>6} {'mask mL':>8}")
    lowest = 1.0
    for folder, files in patients:
        volumes, voxel_ml = read_patient(files)
        ours, ours_s = timed(lambda: brain_mask(volumes, args.method), args.repeats)
        theirs, theirs_s = timed(lambda: original_recipe(volumes, median_otsu), 1)
        agreement = 2 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours) + np.count_nonzero(theirs))
        lowest = min(lowest, agreement)
        shape = " x ".join(map(str, ours.shape))
        print(f"{folder.name[-32:]:32} {shape:>14} {agreement:7.4f} {ours_s * 1e3:8.1f} "
              f"{theirs_s * 1e3:8.1f} {theirs_s / ours_s:6.1f} {np.count_nonzero(ours) * voxel_ml:8.0f}")
    print(f"lowest Dice {lowest:.4f} of {len(patients)} patients; the limit is {LIMIT}")
    return 0 if lowest >= LIMIT else 1


def original_recipe(volumes: list[np.ndarray], median_otsu) -> np.ndarray:
    """The mask of the original preparation script, with dipy and scipy; bool (frames, rows, columns)."""
    mask = np.logical_and.reduce([median_otsu(volume, median_radius=1, numpass=1)[1] for volume in volumes])
    labels, count = ndimage.label(mask)
    if count:
        mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    mask = ndimage.binary_fill_holes(ndimage.binary_dilation(mask))
    return np.stack([ndimage.binary_fill_holes(frame) for frame in mask])


def find_patients(folders: list[Path]) -> list[tuple[Path, list[Path]]]:
    """(folder, its channel files) of every folder given, or inside one given, that has all channels."""
    found = []
    for folder in folders:
        for place in [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]:
            files = [next((f for f in (place / f"{name}.nii.gz", place / f"{name}.nii") if f.is_file()), None)
                     for name in CHANNELS]
            if all(files):
                found.append((place, files))
    return found


def read_patient(files: list[Path]) -> tuple[list[np.ndarray], float]:
    """The channels, float32 (frames, rows, columns), and the volume of a voxel in mL."""
    headers = [read_header(file) for file in files]
    volumes = [read_volume(file, header["orientation"]) for file, header in zip(files, headers)]
    return volumes, abs(np.linalg.det(np.asarray(headers[0]["affine"])[:3, :3])) / 1000


def timed(function, repeats: int):
    """What `function` gives, and its shortest time in seconds over `repeats` runs."""
    shortest = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        shortest = min(shortest, time.perf_counter() - start)
    return result, shortest


if __name__ == "__main__":
    sys.exit(main())
