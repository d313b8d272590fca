"""Bad input ends in one clear line per patient, exit code 2 and nothing half-written; odd but good input is read."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import Finished, run_script, table

from lib.data.case import CaseError
from lib.phantoms.stroke import make_stroke_patients
from lib.readers import make_reader
from lib.study import InputError, load_study
from lib.workspace import Workspace

SHAPE = (48, 40, 6)  # columns, rows, slices
PATIENTS = 5
BAD = "Patient_02"
SMALL = ("--set", "data.size=[16,16]", "--set", "report.figures=false")
QUICK = ("-j", 1, *SMALL)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A user's folder with five good patients in `in/`, prepared in `out/`; tests work on copies."""
    folder = tmp_path_factory.mktemp("good")
    make_stroke_patients(folder / "in", PATIENTS, seed=4, shapes=[SHAPE])
    run_script("1", "-i", "in", "-o", "out", "-k", 2, *QUICK, cwd=folder)
    return folder


@pytest.fixture
def place(good, tmp_path) -> Path:
    """A copy of `good`, to be damaged."""
    return shutil.copytree(good, tmp_path / "place")


def prepare(folder: Path, *args, expect: int | None = 0, source="in", out="out") -> Finished:
    return run_script("1", "-i", source, "-o", out, "-k", 2, *QUICK, *args, cwd=folder, expect=expect)


def prepare_here(folder: Path, source="in") -> Path:
    """The same without a process of its own; returns `prepared/`."""
    from lib.preparation import prepare
    study = load_study("flair_visibility", ["data.folds.k=2", "data.size=[16,16]"])
    return prepare(study, study, Workspace(folder / "out"), folder / source, jobs=1).folder


def state(folder: Path) -> dict[str, str]:
    """Every file under `folder` and its content."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


def complaint(run: Finished) -> str:
    """The error stream of a run that refused its input: no traceback, and nothing but the error."""
    assert "Traceback" not in run.text and "Warning" not in run.text, run.text
    assert run.stderr.startswith("error: "), run.stderr
    return run.stderr


def problem_line(text: str, patient: str) -> str:
    """The one line that speaks of `patient`."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(f"{patient}: ")]
    assert len(lines) == 1, text
    return lines[0]


# --- damages: each spoils one file of a patient -------------------------------------------------------------------

def edit(file: str, change=lambda voxels: voxels, affine=lambda a: a, dtype=None, header=lambda h: None):
    """A damage that rewrites a file with other voxels, another affine or other header fields."""
    def damage(patient: Path) -> None:
        image = nibabel.load(patient / file)
        voxels = change(np.asarray(image.dataobj))
        made = nibabel.Nifti1Image(voxels.astype(dtype or voxels.dtype), affine(image.affine.copy()))
        header(made.header)
        nibabel.save(made, patient / file)
    return damage


def raw(file: str, change):
    """A damage of the file's own bytes."""
    def damage(patient: Path) -> None:
        (patient / file).write_bytes(change((patient / file).read_bytes()))
    return damage


def unpacked(file: str, change):
    """A damage of the bytes inside the gzip stream."""
    return raw(file, lambda data: gzip.compress(change(gzip.decompress(data)), 1))


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new):]


def put(value, dtype=np.float32):
    """Voxels with one of them replaced."""
    def change(voxels):
        voxels = voxels.astype(dtype)
        voxels[20, 20, 3] = value
        return voxels
    return change


def dims(*sizes: int):
    """A header that claims other sizes (NIfTI-1: int16 at byte 40)."""
    return lambda data: patched(data, 40, struct.pack(f"<{len(sizes) + 1}h", len(sizes), *sizes))


def broken_link(patient: Path) -> None:
    (patient / "b0.nii.gz").unlink()
    (patient / "b0.nii.gz").symlink_to("not_downloaded")


def folder_instead(patient: Path) -> None:
    (patient / "b0.nii.gz").unlink()
    (patient / "b0.nii.gz").mkdir()


def wrong_check(data: bytes) -> bytes:
    """A gzip stream whose voxels are not those that its checksum was made of."""
    return patched(data, len(data) - 8, bytes(byte ^ 255 for byte in data[-8:-4]))


def remove(file: str):
    return lambda patient: (patient / file).unlink()


def shifted(affine):
    affine[:3, 3] += 3
    return affine


def flat(affine):
    affine[:3, 2] = affine[:3, 1]
    return affine


# what the header pass finds: (name, file, damage, text expected)
IN_HEADER = [
    ("no b1000", "b1000.nii.gz", remove("b1000.nii.gz"), "missing"),
    ("no ROI", "stroke_roi.nii.gz", remove("stroke_roi.nii.gz"), "missing"),
    ("other shape", "b1000.nii.gz", edit("b1000.nii.gz", lambda v: v[:-2]),
     "has shape 46 x 40 x 6, but b0.nii.gz has 48 x 40 x 6"),
    ("ROI of other shape", "flairviz_roi.nii.gz", edit("flairviz_roi.nii.gz", lambda v: v[..., 1:]), "48 x 40 x 5"),
    ("other position", "b1000.nii.gz", edit("b1000.nii.gz", affine=shifted), "has another affine than b0.nii.gz"),
    ("other voxel size", "stroke_roi.nii.gz", edit("stroke_roi.nii.gz", affine=lambda a: a * 1.02), "another affine"),
    ("4-D", "b0.nii.gz", edit("b0.nii.gz", lambda v: np.stack([v, v], -1)), "is 4-D, of shape 48 x 40 x 6 x 2"),
    ("2-D", "b0.nii.gz", edit("b0.nii.gz", lambda v: v[..., 3]), "is 2-D, of shape 48 x 40;"),
    ("colours", "b0.nii.gz", edit("b0.nii.gz", dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]), "holds colour voxels"),
    ("complex", "b0.nii.gz", edit("b0.nii.gz", dtype=np.complex64), "holds complex voxels"),
    ("flat affine", "b0.nii.gz", edit("b0.nii.gz", affine=flat), "affine is not invertible"),
    ("voxels of 0.9 m", "b0.nii.gz", edit("b0.nii.gz", affine=lambda a: a * 1000), "mm, which cannot be"),
    ("zero bytes", "b0.nii.gz", raw("b0.nii.gz", lambda d: b""), "is empty"),
    ("text", "b0.nii.gz", raw("b0.nii.gz", lambda d: b"404 not found\n" * 60), "is not a NIfTI file"),
    ("packed text", "b0.nii.gz", raw("b0.nii.gz", lambda d: gzip.compress(b"404 not found\n" * 60)),
     "is not a NIfTI file"),
    ("cut in its header", "b0.nii.gz", raw("b0.nii.gz", lambda d: d[:60]), "is truncated"),
    ("unpacked, cut in its header", "b0.nii.gz", raw("b0.nii.gz", lambda d: gzip.decompress(d)[:347]),
     "is truncated"),
    ("unpacked, cut", "b0.nii.gz", raw("b0.nii.gz", lambda d: gzip.decompress(d)[:-1]),
     "is truncated: its header promises"),
    ("huge claim", "b0.nii.gz", unpacked("b0.nii.gz", dims(32767, 32767, 32767)), "is truncated"),
    ("negative size", "b0.nii.gz", unpacked("b0.nii.gz", dims(48, -40, 6)), "holds no voxels (shape 48 x -40 x 6)"),
    ("half of a pair", "b0.nii.gz", unpacked("b0.nii.gz", lambda d: patched(d, 344, b"ni1")), "pair"),
    ("broken link", "b0.nii.gz", broken_link, "cannot be read (No such file"),
    ("folder", "b0.nii.gz", folder_instead, "missing"),
]
# what only the voxels show
IN_VOXELS = [
    ("NaN", "b0.nii.gz", edit("b0.nii.gz", put(np.nan)), "holds 1 NaN or infinite voxels"),
    ("infinite", "b1000.nii.gz", edit("b1000.nii.gz", put(np.inf)), "holds 1 NaN or infinite voxels"),
    ("beyond float32", "b1000.nii.gz", edit("b1000.nii.gz", put(1e300, np.float64)), "infinite"),
    ("all zero", "b1000.nii.gz", edit("b1000.nii.gz", np.zeros_like), "is all zero"),
    ("constant", "b0.nii.gz", edit("b0.nii.gz", lambda v: np.full_like(v, 7)), "every voxel is 7"),
    ("truncated", "b1000.nii.gz", raw("b1000.nii.gz", lambda d: d[:len(d) // 2]), "is truncated"),
    ("one byte short", "b1000.nii.gz", raw("b1000.nii.gz", lambda d: d[:-1]), "is truncated"),
    ("wrong checksum", "b1000.nii.gz", raw("b1000.nii.gz", wrong_check), "is damaged"),
    ("fewer voxels than claimed", "b0.nii.gz", unpacked("b0.nii.gz", lambda d: d[:-1]),
     "is truncated: its header promises"),
    ("three labels",
     "stroke_roi.nii.gz", edit("stroke_roi.nii.gz", lambda v: np.arange(v.size, dtype=np.uint8).reshape(v.shape) % 3),
     "holds the values 0, 1, 2; expected a binary region (0 and 1)"),
    ("negative ROI", "flairviz_roi.nii.gz", edit("flairviz_roi.nii.gz", put(-1)), "holds the values -1, 0"),
    ("empty brain mask", "mask.nii.gz", lambda patient: edit("mask.nii.gz", np.zeros_like)(
        shutil.copy(patient / "stroke_roi.nii.gz", patient / "mask.nii.gz").parent), "is an empty brain mask"),
    ("NaN in ROI", "stroke_roi.nii.gz", edit("stroke_roi.nii.gz", put(np.nan)), "holds NaN or infinite voxels"),
]
DAMAGES = {name: (file, damage, text) for name, file, damage, text in IN_HEADER + IN_VOXELS}


@pytest.fixture(scope="module")
def refused(good, tmp_path_factory) -> dict[str, str]:
    """Damage -> what script 1 says of a patient with it; two runs, each with every damage of its kind at once.

    A patient carries the name of its damage.
    """
    said = {}
    for damages in (IN_HEADER, IN_VOXELS):
        place = shutil.copytree(good, tmp_path_factory.mktemp("bad") / "place")
        for name, _, damage, _ in damages:
            shutil.copytree(place / "in" / BAD, place / "in" / name)
            damage(place / "in" / name)
        before = state(place / "out")
        run = prepare(place, expect=2)
        headline, *lines = complaint(run).splitlines()
        assert headline.startswith(f"error: {len(damages)} cases cannot be used"), headline
        assert len(lines) == len(damages), run.stderr
        assert state(place / "out") == before and os.listdir(place / "out") == ["prepared"]
        said |= {name: problem_line(run.stderr, name) for name, *_ in damages}
    return said


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_with_patient_and_file(refused, name):
    file, _, text = DAMAGES[name]
    assert refused[name].startswith(f"{name}: {file}: ") and text in refused[name], refused[name]


@pytest.mark.parametrize("name", ["no b1000", "truncated"])
def test_one_bad_patient_leaves_the_last_preparation_or_nothing(place, name):
    file, damage, text = DAMAGES[name]
    damage(place / "in" / BAD)
    before = state(place / "out")
    found = complaint(prepare(place, expect=2))
    assert "error: 1 case cannot be used" in found and len(found.splitlines()) == 2
    assert f"{file}: {text}" in problem_line(found, BAD)
    assert state(place / "out") == before and os.listdir(place / "out") == ["prepared"]
    shutil.rmtree(place / "out")
    complaint(prepare(place, expect=2))
    assert not list(place.glob("out/*"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_and_folders_are_listed(place):
    (place / "in" / "Patient_01" / "b0.nii.gz").chmod(0)
    (place / "in" / BAD).chmod(0)
    text = complaint(prepare(place, expect=2))
    (place / "in" / BAD).chmod(0o755)
    assert "b0.nii.gz: cannot be read (Permission denied)" in problem_line(text, "Patient_01")
    assert "the folder cannot be read (Permission denied)" in problem_line(text, BAD)


def test_too_few_patients_for_the_folds(place):
    before = state(place / "out")
    text = complaint(prepare(place, "-k", 6, expect=2))
    assert "5 patients cannot be dealt into 6 folds: use -k 5 or fewer" in text
    assert state(place / "out") == before


# --- --skip-bad ---------------------------------------------------------------------------------------------------

def test_skip_bad_prepares_the_good_and_lists_the_bad(place):
    DAMAGES["no b1000"][1](place / "in" / "Patient_01")
    DAMAGES["truncated"][1](place / "in" / "Patient_03")
    run = prepare(place, "--skip-bad")
    rows = table(place / "out" / "prepared" / "rejected.csv")
    assert [(r["case"], r["file"]) for r in rows] == [("Patient_01", "b1000.nii.gz"), ("Patient_03", "b1000.nii.gz")]
    assert "missing" in rows[0]["reason"] and "truncated" in rows[1]["reason"]
    assert "2 cases left out" in run.stdout and "rejected.csv" in run.stdout
    kept = ["Patient_02", "Patient_04", "Patient_05"]
    assert [row["case"] for row in table(place / "out" / "prepared" / "cases.csv")] == kept
    assert {row["patient"] for row in table(place / "out" / "prepared" / "splits.csv")} == set(kept)
    frames = np.load(place / "out" / "prepared" / "frames.npy", mmap_mode="r")
    assert len(frames) == 3 * SHAPE[2] and all(len(np.unique(f)) > 1 for f in frames[:, 0])

    assert "nothing has changed" in prepare(place, "--skip-bad").stdout
    prepare(place, expect=2)  # without the switch they are errors again
    shutil.copy(place / "in" / "Patient_01" / "b0.nii.gz", place / "in" / "Patient_01" / "b1000.nii.gz")
    prepare(place, "--skip-bad")
    assert [r["case"] for r in table(place / "out" / "prepared" / "rejected.csv")] == ["Patient_03"]


def test_skip_bad_without_enough_good_patients(place):
    for number in range(1, PATIENTS + 1):
        DAMAGES["no b1000" if number % 2 else "NaN"][1](place / "in" / f"Patient_0{number}")
    before = state(place / "out")
    assert "every case is bad" in complaint(prepare(place, "--skip-bad", expect=2))
    assert state(place / "out") == before


# --- the input folder ---------------------------------------------------------------------------------------------

def test_wrong_input_folders_say_what_to_name(place):
    (place / "empty").mkdir()
    before = state(place / "out")
    for source, text in {"nowhere": "does not exist", "in/Patient_01/b0.nii.gz": "is a file",
                         "in/Patient_01": "is itself a patient's folder", "empty": "no usable case in .*empty"}.items():
        with pytest.raises(InputError, match=text):
            prepare_here(place, source=source)
    assert "no usable case in empty" in complaint(prepare(place, source="empty", expect=2))
    assert state(place / "out") == before


def test_folders_of_something_else_are_skipped_and_listed(place):
    (place / "in" / "notes").mkdir()
    (place / "in" / "notes" / "b0.txt").write_text("no scan")
    shutil.copytree(place / "in" / BAD, place / "in" / ".trash")
    (place / "in" / "Thumbs.db").write_bytes(b"stray")
    (place / "in" / BAD / "report.pdf").write_bytes(b"stray")
    (place / "in" / BAD / "._b0.nii.gz").write_bytes(b"what macOS leaves behind")
    run = prepare(place)
    assert "skipped (none of the study's files): notes\n" in run.stdout
    assert "nothing has changed: 5 cases" in run.stdout


def test_names_that_are_no_utf8_or_more_than_a_line(place):
    try:
        os.rename(place / "in" / "Patient_01", os.fsencode(place / "in") + b"/M\xfcller")
        os.mkdir(os.fsencode(place / "in") + b"/No\xebl")
    except OSError:
        pytest.skip("this disk takes no such names")
    os.rename(place / "in" / "Patient_03", place / "in" / "two\nlines")
    text = complaint(prepare(place, expect=2))
    assert "rename it" in problem_line(text, "M?ller") and "rename it" in problem_line(text, "two?lines")
    run = prepare(place, "--skip-bad")
    assert "skipped (none of the study's files): No?l" in run.stdout
    assert {row["case"] for row in table(place / "out" / "prepared" / "rejected.csv")} == {"M?ller", "two?lines"}


NAMES = ["Müller Ü.v2", "Patient 1²", "P_10", "P_9", "患者 7", "a.nii.gz"]


def test_odd_names_and_links_to_folders(good, tmp_path):
    """Links are followed wherever they lead: researchers link patients from other disks into one study."""
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    make_stroke_patients(tmp_path / "made", len(NAMES), seed=9, shapes=[SHAPE])
    made = sorted((tmp_path / "made").iterdir())
    for name, patient in zip(NAMES, made):
        shutil.move(patient, folder / name)
    shutil.move(folder / "P_9", tmp_path / "elsewhere" / "P_9")
    (folder / "P_9").symlink_to(tmp_path / "elsewhere" / "P_9")
    (folder / "same as P_10").symlink_to("P_10")
    run = prepare(tmp_path)
    cases = table(tmp_path / "out" / "prepared" / "cases.csv")
    assert {row["case"] for row in cases} == {*NAMES, "same as P_10"}
    order = [row["case"] for row in cases]
    assert order.index("P_9") < order.index("P_10")  # as people count
    assert {row["patient"] for row in cases if "P_10" in row["case"]} == {"P_10"}  # one patient, never in two folds
    assert "same as P_10 holds the very images of P_10" in run.stdout
    for name in NAMES:
        assert (tmp_path / "in" / name).exists()


def test_names_with_the_separators_of_tables(place):
    from lib.data.store import Prepared
    from lib.workspace import read_manifest
    names = ["Doe, Jane", 'the "second"', "#3", "Müller"]
    for number, name in enumerate(names, 1):
        os.rename(place / "in" / f"Patient_0{number}", place / "in" / name)
    folder = prepare_here(place)
    prepared = Prepared(folder, read_manifest(folder))
    assert set(names) < {case.case for case in prepared.cases}
    np.testing.assert_array_equal(prepared.samples.rows, np.arange(PATIENTS * SHAPE[2]))


# --- odd but good files: the reader finds the same case as in the plain ones ---------------------------------------

def read(folder: Path, *overrides: str, labels: bool = True):
    """The case BAD as the reader of the default study sees it."""
    reader = make_reader(load_study("flair_visibility", overrides).data)
    scan = reader.headers(folder, labels)
    assert not scan.problems, scan.problems
    return reader.read(folder, next(h for h in scan.headers if h.case == BAD), labels)


def every_file(change):
    def alter(patient: Path) -> None:
        for path in list(patient.iterdir()):
            change(path)
    return alter


def save_as(kind=nibabel.Nifti1Image, dtype=None, suffix=".nii.gz", change=lambda image: image):
    """A change of one file to another type, suffix or layout with the same voxels."""
    def alter(path: Path) -> None:
        image = nibabel.load(path)
        voxels = np.asarray(image.dataobj)
        made = change(kind(voxels.astype(dtype or voxels.dtype), image.affine))
        path.unlink()
        nibabel.save(made, path.with_name(path.name.removesuffix(".nii.gz") + suffix))
    return alter


def turned(codes: str):
    """Stored with other axes: `PSR` is how a sagittal acquisition lies in its file."""
    def change(image):
        now = nibabel.io_orientation(image.affine)
        wanted = nibabel.orientations.axcodes2ornt(codes)
        return image.as_reoriented(nibabel.orientations.ornt_transform(now, wanted))
    return change


def more_axes(*sizes: int):
    return lambda image: type(image)(np.asarray(image.dataobj).reshape(*image.shape, *sizes), image.affine)


def big_endian(path: Path) -> None:
    image = nibabel.load(path)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(image.get_data_dtype())
    path.write_bytes(gzip.compress(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, header).to_bytes()))


def plain_bytes(path: Path) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def packed_as_nii(path: Path) -> None:
    path.rename(path.with_suffix(""))


def in_two_members(path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:4000]) + gzip.compress(data[4000:]) + bytes(512))  # tapes pad with zeros


def named_inside(path: Path) -> None:
    """A gzip header that holds a name and a comment, as long as they may be."""
    data = gzip.decompress(path.read_bytes())
    body = zlib.compressobj(6, zlib.DEFLATED, -15)
    name = b"n" * 9000 + b"\0" + b"c" * 9000 + b"\0"
    path.write_bytes(b"\x1f\x8b\x08\x18" + bytes(6) + name + body.compress(data) + body.flush()
                     + struct.pack("<II", zlib.crc32(data), len(data)))


def rounded_affine(patient: Path) -> None:
    edit("stroke_roi.nii.gz", affine=lambda a: a.round(4))(patient)


def scaled_files(patient: Path) -> None:
    """Slope and intercept in the header: stored 2 v - 100 means v; and a soft ROI whose 1 reads 1.0000001."""
    for file in ("b0.nii.gz", "b1000.nii.gz"):
        image = nibabel.load(patient / file)
        stored = nibabel.Nifti1Image((2 * np.asarray(image.dataobj, np.int32) - 100), image.affine)
        data = bytearray(stored.to_bytes())
        data[112:120] = struct.pack("<2f", 0.5, 50)
        (patient / file).write_bytes(gzip.compress(bytes(data)))
    image = nibabel.load(patient / "stroke_roi.nii.gz")
    voxels = np.asarray(image.dataobj) * 255
    voxels[voxels == 255][::2] = 200
    data = bytearray(nibabel.Nifti1Image(voxels, image.affine).to_bytes())
    data[112:120] = struct.pack("<2f", np.nextafter(np.float32(1 / 255), np.float32(1)), 0)
    (patient / "stroke_roi.nii.gz").write_bytes(gzip.compress(bytes(data)))


def unscaled_header(patient: Path) -> None:
    """Slope 0 and slope NaN both mean: not scaled."""
    unpacked("b0.nii.gz", lambda d: patched(d, 112, struct.pack("<2f", 0, 9)))(patient)
    unpacked("b1000.nii.gz", lambda d: patched(d, 112, struct.pack("<2f", np.nan, np.nan)))(patient)


def soft(voxels):
    return np.where(voxels > 0, 0.51 + 0.49 * (np.indices(voxels.shape).sum(0) % 2), 0.4).astype(np.float32)


def linked_files(patient: Path) -> None:
    store = patient.parents[1] / "store"
    store.mkdir()
    for path in list(patient.iterdir()):
        shutil.move(path, store / path.name)
        path.symlink_to(store / path.name)


ODD = {
    "nii": every_file(save_as(suffix=".nii")),
    "gz that is not packed": every_file(plain_bytes),
    "nii that is packed": every_file(packed_as_nii),
    "two gzip members and padding": every_file(in_two_members),
    "long gzip header": every_file(named_inside),
    "something behind the voxels": every_file(lambda p: p.write_bytes(p.read_bytes() + b"appended")),
    "NIfTI-2": every_file(save_as(nibabel.Nifti2Image)),
    "float64": every_file(save_as(dtype=np.float64)),
    "int64": every_file(save_as(lambda v, a: nibabel.Nifti1Image(v, a, dtype=np.int64), np.int64)),
    "int8 ROI": lambda p: save_as(dtype=np.int8)(p / "stroke_roi.nii.gz"),
    "big-endian": every_file(big_endian),
    "4-D of one": every_file(save_as(change=more_axes(1))),
    "5-D of one": every_file(save_as(change=more_axes(1, 1))),
    "slope and intercept": scaled_files,
    "no slope": unscaled_header,
    "LAS": every_file(save_as(change=turned("LAS"))),
    "sagittal": every_file(save_as(change=turned("PSR"))),
    "coronal": every_file(save_as(change=turned("LIA"))),
    "affine of four digits": rounded_affine,
    "ROI of 255": edit("stroke_roi.nii.gz", lambda v: v * 255),
    "ROI of 2": edit("flairviz_roi.nii.gz", lambda v: v * 2),
    "soft ROI": edit("stroke_roi.nii.gz", soft),
    "links to files": linked_files,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_read_as_the_plain_ones(good, tmp_path, name):
    shutil.copytree(good / "in" / BAD, tmp_path / "in" / BAD)
    expected = read(good / "in")
    ODD[name](tmp_path / "in" / BAD)
    found = read(tmp_path / "in")
    np.testing.assert_array_equal(found.frames, expected.frames)
    assert found.frames.dtype == np.float32 and found.truth.keys() == expected.truth.keys()
    for region, mask in expected.truth.items():
        np.testing.assert_array_equal(found.truth[region], mask, region)
    np.testing.assert_allclose(found.header.geometry.spacing_mm, expected.header.geometry.spacing_mm, rtol=1e-5)


@pytest.mark.parametrize("file", ["mask.nii.gz", "mask_roi.nii.gz", "mask_roi.nii"])
def test_a_brain_mask_under_either_name(place, file):
    image = nibabel.load(place / "in" / BAD / "b0.nii.gz")
    brain = np.zeros(image.shape, np.uint8)
    brain[5:30, 8:30, 1:5] = 1
    nibabel.save(nibabel.Nifti1Image(brain, image.affine), place / "in" / BAD / file)
    case = read(place / "in")
    assert case.foreground.sum() == case.truth["brain"].sum() == 25 * 22 * 4


def test_an_empty_roi_is_a_patient_without_a_lesion(place):
    for file in ("stroke_roi.nii.gz", "flairviz_roi.nii.gz"):
        edit(file, np.zeros_like)(place / "in" / BAD)
    assert not read(place / "in").truth["stroke"].any()
    row = next(row for row in table(prepare_here(place) / "cases.csv") if row["case"] == BAD)
    assert float(row["size_stroke"]) == 0


def test_files_that_the_study_does_not_list_are_not_needed(place):
    (place / "in" / BAD / "flairviz_roi.nii.gz").unlink()
    case = read(place / "in", "data.classes=[brain,stroke]", "data.inside={stroke: brain}",
                "data.reader.truth={stroke: stroke_roi}", "data.folds.stratify=[stroke]")
    assert set(case.truth) == {"brain", "stroke"}
    assert not read(place / "in", labels=False).truth


def test_keys_of_the_reader_that_could_never_match():
    for override, text in {"data.reader.channels.b0=b0.nii.gz": "expected the name without .nii.gz",
                           "data.reader.channels.b0=[]": "data.reader.channels.b0: found no file name",
                           "data.reader.channels={}": "at least one channel",
                           "data.reader.patient_pattern='('": "not a regular expression",
                           "data.reader.brain_mask=otsuu": "did you mean 'otsu'?",
                           "data.reader.truth={stroke: stroke_roi}": "no file name for class 'flair_visible'",
                           "data.reader.kind=niftifolders": "did you mean 'nifti_folders'?"}.items():
        with pytest.raises(InputError) as caught:
            make_reader(load_study("flair_visibility", [override]).data)
        assert text in str(caught.value)


def test_a_patient_pattern_groups_visits_and_must_find_something(good):
    for pattern, patients in {r"(Patient)_\d+": {"Patient"}, r"\d+": {f"0{n}" for n in range(1, 6)}}.items():
        reader = make_reader(load_study("flair_visibility", [f"data.reader.patient_pattern='{pattern}'"]).data)
        assert {h.patient for h in reader.headers(good / "in").headers} == patients
    for pattern in (r"Visit_\d+", r"Patient(_x)?"):
        reader = make_reader(load_study("flair_visibility", [f"data.reader.patient_pattern='{pattern}'"]).data)
        scan = reader.headers(good / "in")
        assert not scan.headers and len(scan.problems) == PATIENTS
        assert "data.reader.patient_pattern" in str(scan.problems[0])


# --- no memory for what is not there ------------------------------------------------------------------------------

def read_or_refuse(folder: Path) -> str:
    """"" if the case can be read, else the problem. Any other exception is a bug."""
    reader = make_reader(load_study("flair_visibility").data)
    scan = reader.headers(folder)
    if scan.problems:
        return str(scan.problems[0])
    try:
        reader.read(folder, scan.headers[0])
    except CaseError as error:
        return str(error.problem)
    return ""


@pytest.mark.parametrize("sizes", [(32767, 32767, 32767), (2000, 1000, 40)], ids=["impossible", "possible"])
@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["packed", "unpacked"])
def test_a_header_alone_allocates_nothing(good, tmp_path, sizes, pack):
    """A small file that claims 32 TiB, or 160 MB of which packed zeros could be this small."""
    shutil.copytree(good / "in" / BAD, tmp_path / "in" / BAD)
    files = list((tmp_path / "in" / BAD).iterdir())
    for path in files:
        path.write_bytes(pack(dims(*sizes)(gzip.decompress(path.read_bytes()) + random.Random(1).randbytes(90_000))))
    read_or_refuse(tmp_path / "in")  # imports
    tracemalloc.start()
    text = read_or_refuse(tmp_path / "in")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "b0.nii.gz: is truncated" in text
    assert peak < 2000 * 1000 * 40 * 4 * 2 + 4e6  # the case's own (untouched) array, and nothing beside it


def test_more_bytes_than_the_header_promises_are_never_unpacked(good, tmp_path):
    shutil.copytree(good / "in" / BAD, tmp_path / "in" / BAD)
    path = tmp_path / "in" / BAD / "b0.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(80_000_000), 6))
    assert path.stat().st_size < 200_000
    expected = read(good / "in")
    tracemalloc.start()
    found = read(tmp_path / "in")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.frames, expected.frames)
    assert peak < 8e6


# --- random damage ------------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("error")
def test_cut_and_flipped_files_are_read_or_refused_in_one_line(tmp_path):
    """20 cuts, and 40 flipped bytes each in packed files, headers and voxels: no other exception, ever."""
    make_stroke_patients(tmp_path / "in", 1, seed=3, shapes=[(20, 24, 5)], lesion_free=0, masks=True)
    chance = random.Random(7)
    files = sorted((tmp_path / "in" / "Patient_01").iterdir())
    refused = 0

    def attempt(path: Path, data: bytes, may_pass: bool) -> None:
        nonlocal refused
        kept = path.read_bytes()
        path.write_bytes(data)
        text = read_or_refuse(tmp_path / "in")
        path.write_bytes(kept)
        assert text.startswith("Patient_01: ") or (may_pass and not text), text
        assert "\n" not in text
        refused += bool(text)

    def flipped(data: bytes, low: int, high: int) -> bytes:
        return patched(data, chance.randrange(low, high), bytes([chance.randrange(256)]))

    for turn in range(20):
        data = files[turn % len(files)].read_bytes()
        attempt(files[turn % len(files)], data[:chance.randrange(len(data))], may_pass=False)
    for turn in range(40):
        path = files[turn % len(files)]
        data = path.read_bytes()
        plain = gzip.decompress(data)
        attempt(path, flipped(data, 0, len(data)), may_pass=True)
        attempt(path, gzip.compress(flipped(plain, 0, 348), 1), may_pass=True)
        attempt(path, flipped(plain, 348, len(plain)), may_pass=True)
    assert refused >= 40


# --- commands: order, folds, disk, studies ------------------------------------------------------------------------

ORDER = {  # script: (the workspace has prepared data, first the command that is missing)
    "2a before 1": ("2a", False, "1-DataPreparation.py"),
    "2b before 1": ("2b", False, "1-DataPreparation.py"),
    "3 before 1": ("3", False, "1-DataPreparation.py"),
    "4 before 1": ("4", False, "1-DataPreparation.py"),
    "3 before 2": ("3", True, "2b-TrainingKFolds.py"),
    "4 before 3": ("4", True, "3-ConvertModels.py"),
}


@pytest.mark.parametrize("name", ORDER)
def test_scripts_out_of_order_name_the_first_command(place, name):
    script, is_prepared, command = ORDER[name]
    if not is_prepared:
        shutil.rmtree(place / "out")
    before = state(place)
    text = complaint(run_script(script, "-o", "out", cwd=place, expect=2))
    assert f"first run  python {command} -s flair_visibility" in text and len(text.splitlines()) == 1
    assert state(place) == before


@pytest.mark.parametrize("script, args, text", [
    ("2a", ("-k", 2), "fold 2 does not exist"),
    ("2a", ("-k", -1), "fold -1 does not exist"),
    ("2b", ("--folds", "0,2"), "there is no fold 2"),
    ("2b", ("--folds", "first"), "expected fold numbers"),
    ("3", ("--checkpoint", "2=best.pt"), "fold 2 does not exist"),
])
def test_a_fold_out_of_range(place, script, args, text):
    before = state(place)
    found = complaint(run_script(script, "-o", "out", *args, cwd=place, expect=2))
    assert text in found and len(found.splitlines()) == 1
    assert state(place) == before


@pytest.mark.parametrize("free, enough", [(70 * 2**20, True), (60 * 2**20, False)])
def test_the_disk_is_asked_before_anything_is_written(place, monkeypatch, free, enough):
    """The arrays are small; beside them 64 MiB have to stay free."""
    opened = []
    real = np.lib.format.open_memmap
    monkeypatch.setattr(np.lib.format, "open_memmap", lambda *a, **k: opened.append(a) or real(*a, **k))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10 * free, 9 * free, free))
    shutil.rmtree(place / "out")
    if enough:
        prepare_here(place)
        assert opened
        return
    with pytest.raises(InputError, match=r"out has 0\.06 GiB free, but the arrays need .* -o/--workspace"):
        prepare_here(place)
    assert not opened and not list(place.glob("out/prepared*"))


@pytest.mark.parametrize("change, text", [
    (("  size: [256, 256]", "  sizes: [256, 256]"), "unknown key data.sizes (did you mean size?)"),
    (("  size: [256, 256]", "  size: large"), "data.size: expected tuple[int, int], found 'large'"),
    (("  epochs: 60", "  epochs: many"), "training.epochs: expected int, found 'many'"),
    (("    channels:", "    chanels:"), "unknown key data.reader.chanels (did you mean channels?)"),
    (("  largest:", "  biggest:"), "unknown key task.biggest"),
    (("window:", "window: {"), "is not valid YAML"),
], ids=["key", "type", "type of number", "key of the reader", "key of the task", "YAML"])
def test_a_study_file_with_a_mistake(place, change, text):
    path = Path(__file__).resolve().parents[1] / "studies" / "flair_visibility.yaml"
    mine = place / "mine.yaml"
    mine.write_text(path.read_text(encoding="utf-8").replace(*change, 1), encoding="utf-8")
    before = state(place / "out")
    found = complaint(prepare(place, "-s", "mine.yaml", expect=2))
    assert text in found and len(found.splitlines()) == 1
    assert state(place / "out") == before


@pytest.mark.parametrize("args, text", [(("-j", 0), "-j"), (("-o", "in/Patient_01/b0.nii.gz"), "b0.nii.gz")],
                         ids=["no jobs", "workspace is a file"])
def test_arguments_that_cannot_be(place, args, text):
    before = state(place)
    found = complaint(prepare(place, *args, expect=2))
    assert text in found and len(found.splitlines()) == 1
    assert state(place) == before


@pytest.mark.parametrize("override", ["data.folds.seed=-1", "name=../elsewhere"])
def test_values_that_no_study_can_have(override):
    with pytest.raises(InputError, match=override.split("=")[0]):
        load_study("flair_visibility", [override])


def test_skip_bad_lists_a_bad_patient_that_came_later(place):
    shutil.copytree(place / "in" / BAD, place / "in" / "Patient_06")
    DAMAGES["no b1000"][1](place / "in" / "Patient_06")
    prepare(place, "--skip-bad")
    assert [r["case"] for r in table(place / "out" / "prepared" / "rejected.csv")] == ["Patient_06"]


def test_the_command_to_run_first_is_the_one_for_this_workspace_and_study(place):
    study = Path(__file__).resolve().parents[1] / "studies" / "flair_visibility.yaml"
    shutil.copy(study, place / "mine.yaml")
    run = run_script("2a", "-s", "mine.yaml", "-o", "new", cwd=place, expect=2)
    assert "python 1-DataPreparation.py -s mine.yaml -o new" in complaint(run)


@pytest.mark.parametrize("asked, others, said", [
    (("--compare", "A", "B"), ("--tolerance", 1, "--no-heatmaps", "--device", "cpu"), "leave --tolerance, --heatmaps, --device out"),
    (("--compare", "A", "B"), ("-n", "A"), "leave -n out"),
    (("--compare", "A", "B"), ("--tracker", "none", "--load", "m.onnx"), "leave --load, --tracker out"),
    (("--predict", "new"), ("--split", "test"), "leave --split out"),
    (("--predict", "new"), ("--tracker", "none"), "leave --tracker out"),
    (("--load", "m.onnx"), ("--onnx-dir", "o", "--tracker", "none"), "leave --onnx-dir, --tracker out")])
def test_arguments_that_would_do_nothing_are_refused(tmp_path, asked, others, said):
    stderr = run_script("4", *asked, *others, cwd=tmp_path, expect=2).stderr
    assert stderr.startswith(f"error: {asked[0]} ") and stderr.rstrip().endswith(said) and list(tmp_path.iterdir()) == []
