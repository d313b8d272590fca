"""The phantom patients: layout, nested ROIs, volumes, visibility, signal, geometry; same seed, same bytes."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lib.phantoms import PHANTOMS, phantom_maker
from lib.phantoms.stroke import make_patient, make_stroke_patients, smooth_field, write_nifti

FILES = ["b0.nii.gz", "b1000.nii.gz", "flairviz_roi.nii.gz", "mask.nii.gz", "stroke_roi.nii.gz"]
SHAPES = [(64, 64, 8), (72, 64, 10)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> list[dict[str, nib.Nifti1Image]]:
    """Eight small patients, with the true brain, as {file stem: image}."""
    folders = make_stroke_patients(tmp_path_factory.mktemp("phantoms"), 8, seed=3, shapes=SHAPES, masks=True)
    return [{f.name.split(".")[0]: nib.load(f) for f in sorted(folder.iterdir())} for folder in folders]


def voxels(image: nib.Nifti1Image) -> np.ndarray:
    return np.asanyarray(image.dataobj)


def volume_ml(image: nib.Nifti1Image) -> float:
    return float(voxels(image).sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000)


def test_layout(tmp_path):
    folders = make_stroke_patients(tmp_path / "new" / "input_data", 2, shapes=SHAPES)
    assert [f.name for f in folders] == ["Patient_01", "Patient_02"]
    for folder in folders:
        assert sorted(f.name for f in folder.iterdir()) == [name for name in FILES if name != "mask.nii.gz"]


def test_types_shapes_and_geometry(cohort):
    assert {p["b0"].shape for p in cohort} == set(SHAPES)
    assert {"".join(nib.aff2axcodes(p["b0"].affine)) for p in cohort} == {"RAS", "LAS", "LPS"}
    for patient in cohort:
        for name, image in patient.items():
            assert image.get_data_dtype() == (np.int16 if name.startswith("b") else np.uint8)
            assert image.shape == patient["b0"].shape
            np.testing.assert_array_equal(image.affine, patient["b0"].affine)
        columns, rows, _ = np.multiply(patient["b0"].shape, patient["b0"].header.get_zooms())
        assert 205 <= rows <= 240 and 205 <= columns <= 242


def test_rois_are_nested(cohort):
    for patient in cohort:
        brain, stroke, flair = (voxels(patient[name]) for name in ("mask", "stroke_roi", "flairviz_roi"))
        assert set(np.unique(stroke)) <= {0, 1} and set(np.unique(flair)) <= {0, 1}
        assert not (stroke > brain).any() and not (flair > stroke).any()


def test_volumes_and_visibility(cohort):
    strokes = [volume_ml(p["stroke_roi"]) for p in cohort]
    lesions = [v for v in strokes if v > 0]
    assert strokes.count(0.0) == 1
    assert all(1 <= v <= 100 for v in lesions) and max(lesions) > 4 * min(lesions)
    shares = [volume_ml(p["flairviz_roi"]) / v for p, v in zip(cohort, strokes) if v]
    assert min(shares) == 0 and max(shares) > 0.8 and any(0.05 < s < 0.8 for s in shares)


def test_a_lesion_lies_in_one_hemisphere(cohort):
    for patient in cohort:
        stroke = nib.as_closest_canonical(patient["stroke_roi"]).get_fdata()
        half = stroke.shape[0] // 2
        halves = sorted((stroke[:half].sum(), stroke[half:].sum()))
        assert halves[0] <= 0.25 * halves[1]  # heads are posed a little off the middle column


def test_signal_is_that_of_diffusion_mri(cohort):
    for patient in cohort:
        b0, b1000 = (voxels(patient[name]).astype(float) for name in ("b0", "b1000"))
        brain, stroke = (voxels(patient[name]) > 0 for name in ("mask", "stroke_roi"))
        assert 350 < np.median(b0[brain]) < 1000 and b0.max() > 1000  # tissue; CSF
        adc = np.log(np.median(b0[brain & ~stroke]) / np.median(b1000[brain & ~stroke])) / 1000
        assert 0.7e-3 < adc < 1.2e-3
        air = np.s_[:6, :6]
        assert 0 < np.median(b0[air]) < 0.1 * np.median(b0[brain])  # Rician: never zero
        if stroke.any():
            assert np.median(b1000[stroke]) > 1.1 * np.median(b1000[brain & ~stroke])
            assert np.median(np.log(b0[stroke] / b1000[stroke])) < 0.8 * adc * 1000


def test_visible_tissue_is_bright_on_b0():
    """The second region can be learnt from b0: its T2 signal is above that of the rest of the lesion."""
    volumes, _ = make_patient(np.random.default_rng(4), (96, 96, 16), 60.0, "partial")
    stroke, flair = volumes["stroke_roi"] > 0, volumes["flairviz_roi"] > 0
    assert np.median(volumes["b0"][flair]) > 1.12 * np.median(volumes["b0"][stroke & ~flair])


def test_same_seed_same_bytes(tmp_path):
    first, again, other = (make_stroke_patients(tmp_path / name, 3, seed=seed, shapes=SHAPES)
                           for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    for f, a, o in zip(first, again, other):
        for file in f.iterdir():
            assert file.read_bytes() == (a / file.name).read_bytes()
        assert (f / "b0.nii.gz").read_bytes() != (o / "b0.nii.gz").read_bytes()


def test_lesion_volume_is_met_on_any_grid():
    for shape in ((48, 48, 8), (96, 80, 16)):
        for wanted in (1.1, 20.0, 98.0):
            volumes, affine = make_patient(np.random.default_rng(1), shape, wanted, "none")
            voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
            assert abs(volumes["stroke_roi"].sum() * voxel_ml - wanted) <= voxel_ml
            assert not volumes["flairviz_roi"].any()


def test_smooth_field_is_the_same_on_any_grid():
    axes = [np.linspace(-60, 60, n) for n in (5, 9, 13)]
    coarse = smooth_field(np.random.default_rng(0), [a[::2] for a in axes], 20)
    fine = smooth_field(np.random.default_rng(0), axes, 20)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-5)


def test_disk_orientation_keeps_places(tmp_path):
    """A voxel keeps its scanner coordinates whichever way the axes are stored."""
    volume = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    affine = np.array([[2.0, 0, 0, -3], [0, 2, 0, 5], [0, 0, 6, 7], [0, 0, 0, 1]])
    for signs in ((1, 1), (-1, 1), (-1, -1)):
        write_nifti(tmp_path / "v.nii.gz", volume, affine, signs)
        image = nib.as_closest_canonical(nib.load(tmp_path / "v.nii.gz"))
        np.testing.assert_allclose(image.affine, affine)
        np.testing.assert_array_equal(voxels(image), volume.T)


def test_other_data_is_left_alone(tmp_path):
    make_stroke_patients(tmp_path, 3, shapes=SHAPES)
    make_stroke_patients(tmp_path, 3, shapes=SHAPES)  # its own: made again
    with pytest.raises(FileExistsError, match="Patient_03"):
        make_stroke_patients(tmp_path, 2, shapes=SHAPES)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), tmp_path / "Patient_02" / "b0.nii.gz")
    with pytest.raises(FileExistsError, match="not a phantom"):
        make_stroke_patients(tmp_path, 3, shapes=SHAPES)


@pytest.mark.parametrize("bad", [{"patients": 0}, {"lesion_free": 2}, {"size": "big"}, {"shapes": [(9, 9)]}])
def test_bad_arguments(tmp_path, bad):
    with pytest.raises(ValueError):
        make_stroke_patients(tmp_path, **bad)


def test_registry():
    assert phantom_maker("flair_visibility") is make_stroke_patients
    with pytest.raises(ValueError, match=".*".join(sorted(PHANTOMS))):
        phantom_maker("nonesuch")


def test_command_line(tmp_path):
    def run(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "lib.phantoms", *map(str, arguments)], text=True,
                              capture_output=True, cwd=Path(__file__).resolve().parents[1])
    made = run("flair_visibility", tmp_path / "data", "--patients", 2, "--size", "small")
    assert made.returncode == 0 and "2 patients" in made.stdout
    assert len(list((tmp_path / "data").glob("Patient_*/*.nii.gz"))) == 8
    bad = run("nonesuch", tmp_path / "data")
    assert bad.returncode == 2 and bad.stderr.startswith("error: ") and bad.stderr.count("\n") == 1
