"""Images with their masks per second through script 1: 768 x 768 PNG to 256 x 256, beside merely decoding them.

    python benchmarks/image_preparation_speed.py            500 and 2000 images

`filling` is what script 1 does to pixels: decode, check, fit, write arrays and truth, recognise copies. The whole
script also starts Python, looks at every header, hashes every file (so that a later change is noticed) and deals folds.
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
SIDE = 768
DIFFERENT = 20  # pictures that are made; the others are rolled copies of them

STUDY = """
name: speed
data:
  classes: [region]
  size: [256, 256]
  intensity: none
  store: uint8
  folds: {k: 5}
  reader: {kind: image_pairs}
task: {kind: segmentation}
network: {name: unet}
report: {figures: false}
"""

FILL = """
import resource, sys, time
from pathlib import Path
import lib.preparation as preparation
from lib.study import load_study
from lib.workspace import Workspace
study, root, target = load_study(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
inner, spent = preparation.fill, []
def timed(*arguments):
    started = time.perf_counter()
    result = inner(*arguments)
    spent.append(time.perf_counter() - started)
    return result
preparation.fill = timed
if sys.argv[4] == "plain":  # copies are not looked for
    preparation.content_hash = lambda case: case.header.case
preparation.prepare(study, study, Workspace(target), root, jobs=-1)
print(spent[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

DECODE = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import cv2
cv2.setNumThreads(1)
files = [str(path) for path in Path(sys.argv[1]).rglob("*.png")]
started = time.perf_counter()
with ThreadPoolExecutor(len(__import__("os").sched_getaffinity(0))) as pool:
    list(pool.map(lambda path: cv2.imread(path, cv2.IMREAD_UNCHANGED) is None, files))
print(time.perf_counter() - started)
"""


def make_images(root: Path, count: int) -> None:
    """Speckle in a sector, and an ellipse as mask."""
    import cv2
    import numpy as np
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    sector = np.hypot(rows, columns) < 0.48 * SIDE
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    pictures = [np.where(sector, cv2.GaussianBlur(random.rayleigh(70, (SIDE, SIDE)), (0, 0), 1.2), 0) for _ in range(DIFFERENT)]
    for number in range(count):
        centre = random.uniform(-80, 80, 2)
        picture = np.roll(pictures[number % DIFFERENT], number, axis=1)
        mask = ((rows - centre[0]) / 90) ** 2 + ((columns - centre[1]) / 160) ** 2 < 1
        cv2.imwrite(str(root / "images" / f"{number:05d}.png"), np.clip(picture, 0, 255).astype(np.uint8))
        cv2.imwrite(str(root / "masks" / f"{number:05d}.png"), mask.astype(np.uint8) * 255)


def output(*command: str) -> list[float]:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return [float(number) for number in done.stdout.split()]


def measure(count: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, study = Path(folder) / "raw", Path(folder) / "speed.yaml"
        make_images(root, count)
        study.write_text(STUDY, encoding="utf-8")
        for number in range(repeats):
            [decoding] = output("-c", DECODE, str(root))
            plain, _ = output("-c", FILL, str(study), str(root), f"{folder}/plain{number}", "plain")
            filling, memory = output("-c", FILL, str(study), str(root), f"{folder}/workspace{number}", "hashing")
            started = time.perf_counter()
            subprocess.run([sys.executable, "1-DataPreparation.py", "-s", study, "-i", root, "-o", f"{folder}/whole{number}"],
                           cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            whole = time.perf_counter() - started
            print(f"{count} images: filling {count / plain:.0f} images/s without hashing, {count / filling:.0f} with; decoding alone "
                  f"{count / decoding:.0f} images/s, whole script {whole:.1f} s, peak memory {memory:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for images in arguments.images:
        measure(images, arguments.repeats)
