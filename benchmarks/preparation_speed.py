"""Time and peak memory of script 1 as a whole process, beside merely reading the files, in one run.

    python benchmarks/preparation_speed.py            12 and 48 phantom patients of 192 x 192 x 30
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

READ = "import sys, nibabel; [nibabel.load(path).get_fdata(dtype='float32') for path in sys.argv[1:]]"


def run(command: list[str]) -> tuple[float, float]:
    """Seconds from start to end of a process, and its peak resident memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[1]} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def measure(patients: int, repeats: int) -> None:
    from lib.phantoms.stroke import make_stroke_patients
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "input_data"
        make_stroke_patients(data, patients, shapes=[(192, 192, 30)])
        files = sorted(map(str, data.rglob("*.nii.gz")))
        script = [sys.executable, str(ROOT / "1-DataPreparation.py"), "-i", str(data), "-k", "5",
                  "--set", "report.figures=false", "-o"]
        reading = min(run([sys.executable, "-c", READ, *files])[0] for _ in range(repeats))
        runs = [run([*script, f"{folder}/workspace{number}"]) for number in range(repeats)]
        again = run([*script, f"{folder}/workspace0"])[0]
    seconds = min(run[0] for run in runs)
    print(f"{patients} patients, {len(files)} files: prepared in {seconds:.2f} s (best of {repeats}; all: "
          f"{', '.join(f'{run[0]:.2f}' for run in runs)}), peak memory {max(run[1] for run in runs):.0f} MiB; "
          f"reading the files alone {reading:.2f} s (ratio {seconds / reading:.2f}); run again, nothing changed: {again:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[12, 48])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for count in arguments.patients:
        measure(count, arguments.repeats)
