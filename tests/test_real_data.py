"""Real scans: ISLES'22 patients and standard planes of the fetus through all five scripts with a YAML alone, brain masks of
real diffusion, and real cine loops.

The data lies beside the repository, not in it; the tests are skipped where it is absent.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest

from conftest import ROOT, run_script, table

DATA = ROOT.parent / "shared" / "data"
ISLES, DIFFUSION, HC18, PLANES, DICOM = (DATA / name for name in ("isles22", "diffusion", "hc18", "fetal_planes", "dicom"))
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


# --- standard planes of the fetus ------------------------------------------------------------------------------------

SPELT = {"Fetal abdomen": "abdomen", "Fetal brain": "brain", "Fetal femur": "femur", "Fetal thorax": "thorax",
         "Maternal cervix": "cervix", "Other": "other"}


@pytest.fixture(scope="module")
def planes(tmp_path_factory) -> Path:
    """The workspace after scripts 1, 2a (fold 0), 2b (the other folds), 3 and 4, with the shipped YAML and few epochs."""
    if not PLANES.is_dir():
        pytest.skip(f"{PLANES} is not there")
    study, folder = ROOT / "studies" / "examples" / "fetal_planes.yaml", tmp_path_factory.mktemp("planes")
    run_script("1", "-s", study, "-i", PLANES, cwd=folder)
    run_script("2a", "-s", study, "-k", 0, "-e", 4, cwd=folder)
    assert "finished before" in run_script("2b", "-s", study, "-e", 4, "-j", 2, cwd=folder).stdout
    run_script("3", "-s", study, cwd=folder)
    text = run_script("4", "-s", study, cwd=folder).stdout
    assert "40 held-out cases" in text and "balanced_accuracy" in text
    return folder / "workspace" / "fetal_planes"


def rows_of_planes() -> dict[str, dict[str, str]]:
    """Image without suffix -> its row."""
    header, *lines = [line.split(";") for line in (PLANES / "labels.csv").read_text(encoding="utf-8-sig").splitlines()]
    return {row["Image_name"]: row for row in (dict(zip(header, line)) for line in lines)}


def test_real_planes_have_the_tables_classes_and_patients(planes):
    known, cases = rows_of_planes(), table(planes / "prepared" / "cases.csv")
    assert {row["case"] for row in cases} == set(known) and len(cases) == 40
    assert all(row["class"] == SPELT[known[row["case"]]["Plane"].strip()] for row in cases)
    assert all(row["patient"] == known[row["case"]]["Patient_num"] for row in cases)
    assert len({row["patient"] for row in cases}) == 36
    frames = np.load(planes / "prepared" / "frames.npy")
    assert frames.shape == (40, 1, 96, 128) and (frames.std(axis=(1, 2, 3)) > 10).all()


def test_real_planes_are_predicted_scored_and_explained(planes):
    results = planes / "results" / "biometry"
    known, rows = rows_of_planes(), table(results / "predictions.csv")
    tested = {(row["fold"], row["patient"]) for row in table(planes / "prepared" / "splits.csv") if row["subset"] == "test"}
    assert {row["case"] for row in rows} == set(known) and len(rows) == 40
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in SPELT.values()}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5) and max(shares, key=shares.get) == row["predicted"]
        assert row["truth"] == SPELT[known[row["case"]]["Plane"].strip()] and (row["fold"], row["patient"]) in tested
        assert (results / "heatmaps" / f"gradcam_{row['case']}.png").is_file()
    wrong = {row["case"] for row in rows if row["truth"] != row["predicted"]}
    assert {row["case"] for row in table(results / "misclassified.csv")} == wrong
    summary = {row["metric"]: row for row in table(results / "summary.csv") if row["class"] == "all"}
    assert float(summary["accuracy"]["estimate"]) == pytest.approx(1 - len(wrong) / 40)
    assert {row["passed"] for row in table(planes / "onnx" / "biometry" / "parity.csv")} == {"yes"}


# --- cine loops ------------------------------------------------------------------------------------------------------

def test_real_loops_are_prepared_without_their_text(tmp_path):
    """Two loops, of other sizes and codings than the phantoms': what moves is kept, banners and menus are black."""
    if not DICOM.is_dir():
        pytest.skip(f"{DICOM} is not there")
    names = ("examples_ybr_color", "GREYSCALE_CINE")
    (tmp_path / "input_data").mkdir()
    for name in names:
        shutil.copy(DICOM / f"{name}.dcm", tmp_path / "input_data")
    # two patients make no folds that could be learnt from: both train
    (tmp_path / "input_data" / "echo_annotations.csv").write_text(
        f"video_path,quality_score,part\n{names[0]}.dcm,0.8,train\n{names[1]}.dcm,0.1,train\n")
    text = run_script("1", "-s", "echo_quality", "--set", "data.reader.columns={subset: part}", cwd=tmp_path).stdout
    assert "1 video stored with colours: turned grey" in text and "patient_salt" in text
    prepared = tmp_path / "workspace" / "echo_quality" / "prepared"
    assert {row["case"]: (row["frames"], row["frame_rate"], row["class"]) for row in table(prepared / "cases.csv")} == {
        names[0]: ("30", "30", "good"), names[1]: ("27", "30", "poor")}
    frames = np.load(prepared / "frames.npy")[:, 0]
    assert frames.shape == (57, 112, 112)
    echo, probe = frames[:30].astype(float), frames[30:].astype(float)
    assert not echo[:, :16].any() and not echo[:, 94:].any() and not echo[:, :, :8].any()  # letters above, the menu below
    assert not probe[:, :28].any() and not probe[:, :, :13].any() and not probe[:, :, 101:].any()  # banner, letters, scale
    for name, found, (rows, columns) in ((names[0], echo, (slice(40, 70), slice(40, 60))),
                                         (names[1], probe, (slice(75, 90), slice(30, 80)))):
        dataset = pydicom.dcmread(DICOM / f"{name}.dcm")
        native = dataset.pixel_array.astype(np.float32)
        native = native @ np.float32([0.299, 0.587, 0.114]) if native.ndim == 4 else native
        expected = np.zeros_like(found)
        expected[:, 14:98] = [cv2.resize(frame, (112, 84), interpolation=cv2.INTER_AREA) for frame in native]
        assert np.abs(found - expected)[:, rows, columns].max() <= 2 and found[:, rows, columns].max() > 30
        for path in prepared.rglob("*"):
            words = [str(dataset.PatientName).encode(), str(dataset.PatientName.family_name).encode()]
            if len(str(dataset.PatientID)) > 6:  # three digits are in any file
                words.append(str(dataset.PatientID).encode())
            assert not path.is_file() or not [word for word in words if len(word) > 3 and word in path.read_bytes()], path
