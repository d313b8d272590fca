"""Real scans: two ISLES'22 patients through all five scripts with a YAML alone, and brain masks of real diffusion.

The data lies beside the repository, not in it; the tests are skipped where it is absent.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from conftest import ROOT, run_script, table

DATA = ROOT.parent / "shared" / "data"
ISLES, DIFFUSION, HC18 = DATA / "isles22", DATA / "diffusion", DATA / "hc18"
STUDY = ROOT / "studies" / "examples" / "isles22.yaml"


@pytest.fixture(scope="module")
def isles(tmp_path_factory) -> Path:
    """The working folder after scripts 1, 2a (fold 0), 2b (the other fold), 3 and 4."""
    if not ISLES.is_dir():
        pytest.skip(f"{ISLES} is not there")
    folder = tmp_path_factory.mktemp("isles")
    tiny = ("--set", "network={name: smp/Unet/tu-tf_mobilenetv3_small_minimal_100, encoder_depth: 3, decoder_channels: [16, 8, 8]}",
            "--set", "window.frames=3", "-e", 4, "-b", 10, "-lr", 0.005)
    run_script("1", "-s", STUDY, "-i", ISLES, "-k", 2, "-v", 0, "--set", "data.size=[32,32]", cwd=folder)
    run_script("2a", "-s", STUDY, "-k", 0, *tiny, cwd=folder)
    text = run_script("2b", "-s", STUDY, *tiny, cwd=folder).stdout
    assert "finished before" in text
    run_script("3", "-s", STUDY, cwd=folder)
    run_script("4", "-s", STUDY, cwd=folder)
    return folder / "workspace" / "isles22"


def test_isles22_is_prepared_with_plausible_brains_and_all_of_its_lesions(isles):
    rows = table(isles / "prepared" / "cases.csv")
    assert [row["case"] for row in rows] == ["Patient_0001", "Patient_0009"]
    for row in rows:
        roi = nibabel.load(ISLES / row["case"] / "stroke_roi.nii.gz")
        drawn_ml = (np.asarray(roi.dataobj) > 0.5).sum() * np.prod(roi.header.get_zooms()[:3]) / 1000
        assert 900 < float(row["size_brain"]) < 1900  # 1185 and 1444 mL when this was written
        assert 0.95 * drawn_ml <= float(row["size_stroke"]) <= 1.001 * drawn_ml > 0


def test_isles22_results_lie_on_the_source_grid_and_are_scored(isles):
    results = isles / "results" / "isles"
    values = {(row["case"], row["class"], row["metric"]): row["value"] for row in table(results / "results.csv")}
    for name in ("Patient_0001", "Patient_0009"):
        source, prediction = nibabel.load(ISLES / name / "b0.nii.gz"), nibabel.load(results / "predictions" / f"{name}.nii.gz")
        assert prediction.shape == (112, 112, 73, 2) and np.allclose(prediction.affine, source.affine, atol=1e-4)
        mask = np.asarray(prediction.dataobj)[..., 1] == 1
        truth = np.asarray(nibabel.load(ISLES / name / "stroke_roi.nii.gz").dataobj) > 0.5
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        # a little of the ROI may lie outside the computed brain
        assert float(values[name, "stroke", "dice"]) == pytest.approx(dice, abs=0.02)
        assert float(values[name, "brain", "dice"]) > 0.5  # a brain was learnt from one patient, in seconds
        assert (results / "heatmaps" / f"{name}.png").is_file() and (results / "heatmaps" / f"{name}.nii.gz").is_file()
    assert {row["status"] for row in table(isles / "runs" / "isles" / "crossvalidation.csv")} == {"finished"}


@pytest.mark.parametrize("method", ["otsu", "percentile"])
def test_brain_masks_of_real_diffusion_are_plausible(method):
    from lib.imaging.brainmask import brain_mask, largest_component
    from lib.imaging.nifti import canonical_geometry, read_header, read_volume
    if not DIFFUSION.is_dir():
        pytest.skip(f"{DIFFUSION} is not there")
    series = sorted(path for path in DIFFUSION.iterdir() if path.is_dir())
    assert len(series) == 4
    for folder in series:
        header = read_header(folder / "b0.nii.gz")
        shape, spacing_mm = canonical_geometry(header)
        volumes = [read_volume(folder / f"{name}.nii.gz", header["orientation"]) for name in ("b0", "b1000")]
        assert volumes[0].shape == shape == (20, 64, 64)
        mask = brain_mask(volumes, method)
        # 1076 to 1295 mL by Otsu when this was written; the scans stop short of the vertex and the cerebellum
        assert 900 < mask.sum() * np.prod(spacing_mm) / 1000 < 1900, folder.name
        assert np.array_equal(mask, largest_component(mask)) and mask.any(axis=(1, 2)).all()
        centre = np.argwhere(mask).mean(axis=0) / np.array(shape)
        assert (np.abs(centre - 0.5) < (0.2, 0.1, 0.1)).all(), folder.name  # lower half: brain is widest there


def test_diffusion_series_are_read_and_predicted_as_new_patients(isles, tmp_path):
    """Another scanner, grid and spacing: the model of one study on scans without any ROI."""
    if not DIFFUSION.is_dir():
        pytest.skip(f"{DIFFUSION} is not there")
    folder = isles.parents[1]
    run = run_script("4", "-s", STUDY, "--predict", DIFFUSION, cwd=folder)
    assert "4 cases predicted by 2 folds together on CPU, 0 of them scored" in run.stdout
    target = isles / "results" / "isles" / "predict-diffusion"
    for path in DIFFUSION.iterdir():
        agreement = nibabel.load(target / "agreement" / f"{path.name}.nii.gz")
        assert agreement.shape == (64, 64, 20, 2)
        assert np.allclose(agreement.affine, nibabel.load(path / "b0.nii.gz").affine, atol=1e-4)
    shutil.rmtree(target)


def test_hc18_is_read_by_its_yaml_with_patients_and_pixel_sizes():
    """Ellipses of the masks are a little larger than the table's circumferences, which run in the middle of the line."""
    if not HC18.is_dir():
        pytest.skip(f"{HC18} is not there")
    from lib.evaluation.measurements import make_measurements
    from lib.readers import make_reader
    from lib.study import load_study
    study = load_study(str(ROOT / "studies" / "examples" / "hc18.yaml"))
    reader = make_reader(study.data)
    scan = reader.headers(HC18)
    assert (len(scan.headers), len({h.patient for h in scan.headers}), scan.problems) == (174, 140, [])
    known = {row["filename"]: row for row in table(HC18 / "pixel_size_and_HC.csv")}
    [measurement] = make_measurements(study.measurements, study.data.classes)
    for header in scan.headers[::29]:
        row = known[f"{header.case}.png"]
        assert header.geometry.spacing_mm[1:] == (float(row["pixel size(mm)"]),) * 2
        masks = reader.read(HC18, header).truth
        found = measurement(masks, header.geometry).values["head", "head_circumference_mm"]
        assert 0 < found - float(row["head circumference (mm)"]) < 3
