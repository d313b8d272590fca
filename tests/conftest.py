"""Fixtures for the end-to-end tests: a tiny study taken through the real scripts once, and shared.

`patients`, `prepared`, `trained`, `converted` and `tested` are the same folder at later and later stages; they
are read only. A test that changes something asks for a copy: `tested.copy(tmp_path)`. The folder looks as a
user's does, `input_data/` and `workspace/flair_visibility/`, so that most commands need no path.

    run = run_script("2a", "-k", 0, *TINY, cwd=place.folder)      # exit code 0 expected
    run = run_script("1", "-k", 99, cwd=place.folder, expect=2)   # then look at run.stderr
"""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from lib.workspace import Workspace  # noqa: E402

SCRIPTS = {"1": "1-DataPreparation.py", "2a": "2a-Training.py", "2b": "2b-TrainingKFolds.py",
           "3": "3-ConvertModels.py", "4": "4-InferenceTest.py"}
RUN = "FVV"  # the default name of a run
FOLDS = 3
SHAPES = ((64, 64, 8), (72, 64, 9))  # columns, rows, slices of the phantoms, in turn
PREPARE = ("-k", FOLDS, "-j", 2, "--set", "data.size=[32,32]")  # for script 1
TINY_KEYS = ("network={name: smp/Unet/tu-tf_mobilenetv3_small_minimal_100, encoder_depth: 3, decoder_channels: [16, 8, 8]}",
             "window.frames=3", "training.epochs=2", "training.batch_size=10", "tracking.trackers=[none]")
# The longest files, which begin first, so that no worker is left alone with one of them at the end.
LONGEST = ("test_image_studies", "test_pipeline", "test_real_data", "test_detection_study", "test_trackers", "test_resume",
           "test_networks", "test_traps", "test_class_studies", "test_echo_study", "test_leakage")
TINY = tuple(part for key in TINY_KEYS for part in ("--set", key))  # for scripts 2a and 2b; -e and the like win over it


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@dataclass(frozen=True)
class Finished:
    """A script that ran: its output, and `text`, both streams together."""
    stdout: str
    stderr: str
    returncode: int

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


def command_of(name: str, *args) -> list[str]:
    """The command line of a script, by its number (a key of SCRIPTS); arguments are made into text."""
    return [sys.executable, str(ROOT / SCRIPTS[name]), *map(str, args)]


def script_environment(**changes: str) -> dict[str, str]:
    """One thread for each process, so that runs repeat to the bit, and no W&B login from outside."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "OMP_", "MKL_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **changes}


def run_script(name: str, *args, cwd: Path, expect: int | None = 0, environment: dict[str, str] | None = None,
               timeout_s: float = 240) -> Finished:
    """Run script `name` ("1", "2a", "2b", "3" or "4") in folder `cwd`, with changes to the environment if given.

    Fails the test unless the script exits with `expect` (None: any code).
    """
    done = subprocess.run(command_of(name, *args), cwd=cwd, env=script_environment(**environment or {}),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    found = Finished(done.stdout, done.stderr, done.returncode)
    if expect is not None and found.returncode != expect:
        pytest.fail(f"script {name} {' '.join(map(str, args))}: exit code {found.returncode}, expected {expect}\n"
                    f"--- stdout\n{found.stdout[-3000:]}\n--- stderr\n{found.stderr[-3000:]}", pytrace=False)
    return found


@dataclass(frozen=True)
class Place:
    """A user's working folder; paths are those of the file contract."""
    folder: Path

    @property
    def patients(self) -> Path:
        return self.folder / "input_data"

    @property
    def space(self) -> Workspace:
        return Workspace(self.folder / "workspace" / "flair_visibility")

    def fold(self, fold: int, name: str = RUN) -> Path:
        return self.space.fold(name, fold)

    @property
    def results(self) -> Path:
        return self.space.results(RUN)

    def copy(self, target: Path, *parts: str) -> Place:
        """A copy in `target`, to be changed at will: the patients and the named parts of the workspace (all of it
        if none is named)."""
        shutil.copytree(self.patients, target / "input_data")
        for part in parts or [path.name for path in self.space.root.iterdir()]:
            shutil.copytree(self.space.root / part, target / "workspace" / "flair_visibility" / part)
        return dataclasses.replace(self, folder=target)

    def open(self, *overrides: str):
        """(Prepared, Study) as scripts 2 to 4 open them, with the tiny settings and `overrides`."""
        from lib.data.store import open_prepared
        from lib.study import load_study
        overrides = [*TINY_KEYS, *overrides]
        return open_prepared(self.space, load_study("flair_visibility", overrides), overrides)

    def train(self, fold: int, name: str, *overrides: str, **keys):
        """Script 2a's work within this process, on one thread; returns its Best."""
        import torch
        from lib.runs import train_fold
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            prepared, study = self.open(*overrides)
            return train_fold(prepared, study, self.space, fold, name, device="cpu", **keys)
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class ImageWork:
    """A working folder with one study of images. root: the raw data; workspace: -o."""
    study: str
    folder: Path
    run_name = "unet"

    @property
    def root(self) -> Path:
        return self.folder / "raw"

    @property
    def workspace(self) -> Path:
        return self.folder / "ws"

    @property
    def results(self) -> Path:
        return self.workspace / "results" / self.run_name

    @property
    def prepared(self) -> Path:
        return self.workspace / "prepared"

    def fold(self, fold: int, run: str = "") -> Path:
        return self.workspace / "runs" / (run or self.run_name) / f"fold{fold}"

    def onnx(self, fold: int) -> Path:
        return self.workspace / "onnx" / self.run_name / f"fold{fold}.onnx"

    def run(self, script: str, *args, expect: int = 0, **keys):
        place = ("-i", self.root) if script == "1" else ()
        return run_script(script, "-s", self.study, "-o", self.workspace, *place, *args, cwd=self.folder, expect=expect,
                          **keys)

    def copy(self, target: Path, *parts: str):
        """The raw data and the named parts of the workspace, to be changed at will."""
        shutil.copytree(self.root, target / "raw")
        for part in parts:
            shutil.copytree(self.workspace / part, target / "ws" / part)
        return dataclasses.replace(self, folder=target)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium for the tests of a file, which look at a page through browser.Tab."""
    from browser import started
    with started(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def make_patients(folder: Path, patients: int = 7, seed: int = 1, **keys) -> Path:
    """Phantoms of 64 x 64 x 8 and 72 x 64 x 9 voxels; Patient_03 has no lesion with the defaults."""
    from lib.phantoms.stroke import make_stroke_patients
    make_stroke_patients(folder, patients, seed, shapes=SHAPES, **keys)
    return folder


@pytest.fixture(scope="session")
def patients(tmp_path_factory) -> Path:
    """`input_data/` with seven patients and all that the layout allows: brain masks under both names or none, an
    unpacked .nii, a folder of something else."""
    import nibabel
    folder = make_patients(tmp_path_factory.mktemp("study") / "input_data", masks=True)
    for number in (5, 6):
        (folder / f"Patient_0{number}" / "mask.nii.gz").unlink()
    os.rename(folder / "Patient_02" / "mask.nii.gz", folder / "Patient_02" / "mask_roi.nii.gz")
    packed = folder / "Patient_04" / "b0.nii.gz"
    nibabel.save(nibabel.load(packed), packed.with_suffix(""))
    packed.unlink()
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("not a patient")
    return folder


@pytest.fixture(scope="session")
def prepared(patients) -> Place:
    """After script 1: three folds on a grid of 32 x 32."""
    place = Place(patients.parent)
    run_script("1", *PREPARE, cwd=place.folder)
    return place


@pytest.fixture(scope="session")
def trained(prepared) -> Place:
    """After script 2b: every fold for two epochs, two folds at once."""
    run_script("2b", "-j", 2, *TINY, cwd=prepared.folder)
    return prepared


@pytest.fixture(scope="session")
def converted(trained) -> Place:
    """After script 3."""
    run_script("3", cwd=trained.folder)
    return trained


@pytest.fixture(scope="session")
def tested(converted) -> Place:
    """After script 4."""
    run_script("4", cwd=converted.folder)
    return converted
