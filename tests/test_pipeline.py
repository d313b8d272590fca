"""The main path: scripts 1, 2b, 3 and 4 on phantoms; what they write, checked with code of the test's own."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import yaml

from browser import Tab
from conftest import FOLDS, PREPARE, ROOT, RUN, SCRIPTS, TINY, run_script, table

CLASSES = ("brain", "stroke", "flair_visible")
NAMES = [f"Patient_0{number}" for number in range(1, 8)]
WITH_MASK = [name for name in NAMES if name not in ("Patient_05", "Patient_06")]
RESULTS = ["study", "run", "fold", "patient", "case", "class", "metric", "value"]
SUMMARY = ["class", "metric", "folds", "mean", "sd", "patients", "estimate", "ci_low", "ci_high"]


def files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def bytes_of(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(files(folder))}


def raw_truth(folder) -> dict[str, np.ndarray]:
    """class -> bool in the order of the file's voxels, from a patient's own ROI files."""
    def mask(name):
        return np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj) > 0.5
    brain = mask("mask" if (folder / "mask.nii.gz").is_file() else "mask_roi")
    stroke = mask("stroke_roi") & brain
    return {"brain": brain, "stroke": stroke, "flair_visible": mask("flairviz_roi") & stroke}


def scores(place) -> dict[tuple[str, str, str], float]:
    """(case, class, metric) -> value from results.csv; NaN where the cell is empty."""
    return {(row["case"], row["class"], row["metric"]): float(row["value"] or "nan")
            for row in table(place.results / "results.csv") if row["case"]}


def assert_pdfs(folder, least: int):
    """Beside each figure, of which there are at least so many, lies the same as a PDF."""
    figures = sorted(folder.glob("*.png"))
    assert len(figures) >= least and {path.stem for path in figures} == {path.stem for path in folder.glob("*.pdf")}
    assert all(path.with_suffix(".pdf").read_bytes()[:5] == b"%PDF-" for path in figures)


def test_help_is_quick(tmp_path):
    for name in SCRIPTS:
        text = run_script(name, "--help", cwd=tmp_path).stdout
        assert "--study" in text and "--workspace" in text and "--set" in text
        probe = "import runpy, sys\nsys.argv = ['script', '--help']\ntry:\n    runpy.run_path(sys.orig_argv[-1])\n" \
                "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", probe, str(ROOT / SCRIPTS[name])], cwd=ROOT, text=True,
                              capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.stderr.split() == ["False"]


def test_three_last_lines_of_every_script(patients, tmp_path):
    """What was done, where it is, and a next command that can be pasted into the shell. (And figures as PDF, where asked for.)"""
    at = ("-o", tmp_path / "work space")
    where = {"1": "prepared", "2a": "runs/FVV/fold0/best.pt", "2b": "runs/FVV", "3": "onnx/FVV", "4": "results/FVV/report.html"}
    following = {"1": "2b", "2a": "3", "2b": "3", "3": "4", "4": "4"}
    with_pdf = ("--set", "report.pdf=true")
    arguments = {"1": ("-i", patients, "-k", 2, *PREPARE[2:], *with_pdf), "2a": (*TINY, "-e", 1, *with_pdf),
                 "2b": (*TINY, "-e", 1), "4": ("--no-heatmaps", *with_pdf)}
    for name in where:
        done, see, then = run_script(name, *at, *arguments.get(name, ()), cwd=tmp_path).stdout.splitlines()[-3:]
        assert done.startswith("done: ") and see == f"see: {tmp_path / 'work space' / where[name]}"
        assert (tmp_path / "work space" / where[name]).exists()
        command = shlex.split(then.removeprefix("next: "))
        assert command[:2] == ["python", SCRIPTS[following[name]]] and command[2:6] == ["-s", "flair_visibility", "-o", str(at[1])]
        assert name != "4" or command[6:] == ["--predict", "NEW_PATIENTS"]
    for folder, least in (("prepared/figures", 4), ("runs/FVV/fold0", 1), ("results/FVV/figures", 5)):
        assert_pdfs(tmp_path / "work space" / folder, least)
    assert not list((tmp_path / "work space" / "runs/FVV/fold1").glob("*.pdf"))  # nobody asked 2b for one


def test_only_the_last_word_of_2b_names_the_next_command(trained):
    said = run_script("2b", *TINY, cwd=trained.folder).stdout  # all folds are finished
    assert said.count("next: ") == 1 and said.count("(finished before)") == FOLDS


def test_the_phantoms_are_what_they_are_said_to_be(patients):
    """Two shapes, three orientations, one patient without a lesion: what the tests below need."""
    shapes, axes, empty = set(), set(), []
    for folder in sorted(patients.glob("Patient_*")):
        image = nibabel.load(folder / "b1000.nii.gz")
        shapes.add(image.shape)
        axes.add("".join(nibabel.aff2axcodes(image.affine)))
        if not np.asarray(nibabel.load(folder / "stroke_roi.nii.gz").dataobj).any():
            empty.append(folder.name)
    assert shapes == {(64, 64, 8), (72, 64, 9)} and axes == {"RAS", "LAS", "LPS"} and empty == ["Patient_03"]


# --- script 1 --------------------------------------------------------------------------------------------------------

def test_prepared_files(prepared):
    folder = prepared.space.prepared
    found = files(folder)
    assert {"frames.npy", "targets.npy", "samples.csv", "cases.csv", "folds.csv", "splits.csv", "manifest.json"} <= found
    assert {f"truth/00000{index}.npy" for index in range(7)} <= found
    assert {f"figures/{name}.png" for name in ("classes", "folds", "samples", "scans")} <= found
    assert not [path for path in prepared.space.root.rglob("*") if "partial" in path.name or "foldscan-replaced" in path.name]
    frames, targets = np.load(folder / "frames.npy", mmap_mode="r"), np.load(folder / "targets.npy", mmap_mode="r")
    samples, cases = table(folder / "samples.csv"), table(folder / "cases.csv")
    slices = [8, 9, 8, 9, 8, 9, 8]
    assert frames.shape == (sum(slices), 2, 32, 32) and frames.dtype == np.float16
    assert targets.shape == (sum(slices), 3, 32, 32) and targets.dtype == np.uint8 and targets.max() == 1
    assert list(samples[0]) == ["sample", "case", "patient", "frame", "series_start", "series_stop"]
    assert [int(row["sample"]) for row in samples] == list(range(sum(slices)))
    assert [row["case"] for row in cases] == NAMES
    assert [[int(row["series_start"]), int(row["series_stop"])] for row in samples if row["case"] == "Patient_02"] == [[8, 17]] * 9
    assert np.abs(np.asarray(frames, np.float32)).max() <= 10
    assert not (targets[:, 1] & ~targets[:, 0] & 1).any() and not (targets[:, 2] & ~targets[:, 1] & 1).any()
    assert list(table(folder / "folds.csv")[0]) == ["patient", "fold", "stratum"]
    assert list(table(folder / "splits.csv")[0]) == ["fold", "patient", "subset"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["study"]["data"]["folds"]["k"] == FOLDS and manifest["channels"] == ["b0", "b1000"]
    assert len(manifest["fingerprint"]) >= 16 and manifest["packages"]["numpy"] == np.__version__


def test_volumes_of_cases_are_those_of_the_files(prepared):
    for row in table(prepared.space.prepared / "cases.csv"):
        if row["case"] not in WITH_MASK:
            continue
        folder = prepared.patients / row["case"]
        voxel_ml = abs(np.linalg.det(nibabel.load(folder / "b1000.nii.gz").affine[:3, :3])) / 1000
        for name, mask in raw_truth(folder).items():
            assert float(row[f"size_{name}"]) == pytest.approx(mask.sum() * voxel_ml, rel=1e-5)


def test_what_was_skipped_is_listed_and_the_next_command_said(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    shutil.rmtree(place.space.prepared)
    text = run_script("1", *PREPARE, "--set", "report.figures=false", cwd=tmp_path).stdout
    assert re.search(r"skipped.*notes", text) and "7 cases of 7 patients, 59 samples, 3 folds" in text and "2b-TrainingKFolds.py" in text


def test_second_run_does_nothing_and_says_so(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    folder = place.space.prepared
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}
    text = run_script("1", *PREPARE, cwd=tmp_path).stdout
    assert "nothing has changed: 7 cases are prepared" in text
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def test_same_patients_prepared_again_are_the_same_bytes(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    before = bytes_of(place.space.prepared)
    shutil.rmtree(place.space.prepared)
    run_script("1", *PREPARE, "-j", 1, cwd=tmp_path)
    after = bytes_of(place.space.prepared)
    # the worksheet says how long each case took
    assert [name for name in before if before[name] != after.get(name)] in ([], ["results.xlsx"])
    assert len(before) == len(after)


def test_what_has_changed_is_named_and_redone(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    roi = place.patients / "Patient_01" / "stroke_roi.nii.gz"
    image = nibabel.load(roi)
    voxels = np.asarray(image.dataobj).copy()
    voxels[voxels.shape[0] // 2 - 6:, 30:34, 3:5] = 1
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine, image.header), roi)
    before = float(table(place.space.prepared / "cases.csv")[0]["size_stroke"])
    quick = ("--set", "report.figures=false")
    text = run_script("1", *PREPARE, *quick, cwd=tmp_path).stdout
    assert "Patient_01" in text and "stroke_roi" in text and "Patient_02" not in text
    assert float(table(place.space.prepared / "cases.csv")[0]["size_stroke"]) > before
    shutil.rmtree(place.patients / "Patient_06")
    assert "Patient_06" in run_script("1", *PREPARE, *quick, cwd=tmp_path).stdout
    assert len(table(place.space.prepared / "cases.csv")) == 6
    text = run_script("1", *PREPARE, *quick, "--set", "data.clip=5", cwd=tmp_path).stdout
    assert re.search(r"clip: 10(\.0)? -> 5", text)
    assert np.abs(np.load(place.space.prepared / "frames.npy").astype(np.float32)).max() == 5


def test_k_and_v_take_effect(prepared, tmp_path):
    """The seed parsed -v and then used its own constant."""
    place = prepared.copy(tmp_path, "prepared")

    def subsets():
        rows = table(place.space.prepared / "splits.csv")
        return {fold: [sum(r["fold"] == fold and r["subset"] == subset for r in rows) for subset in ("train", "validation", "test")]
                for fold in sorted({row["fold"] for row in rows})}

    assert all(counts[1] == 1 for counts in subsets().values()) and len(subsets()) == 3  # 0.2 of 4 or 5
    text = run_script("1", *PREPARE, "-v", 0.5, "--set", "report.figures=false", cwd=tmp_path).stdout
    assert re.search(r"valid_proportion: 0\.2 -> 0\.5", text)
    assert all(validation == round(0.5 * (7 - test)) for _, validation, test in subsets().values())
    text = run_script("1", "-k", 4, "-v", 0, "--set", "data.size=[32,32]", "--set", "report.figures=false", cwd=tmp_path).stdout
    assert "k: 3 -> 4" in text and len(subsets()) == 4
    assert all(validation == 0 for _, validation, _ in subsets().values()) and sum(c[2] for c in subsets().values()) == 7
    assert "LAST epoch" in text  # said loudly


def study_copy(folder, patients, **data):
    """A user's own study: the shipped one with other data keys. Returns (path, function that edits data keys)."""
    values = yaml.safe_load((ROOT / "studies" / "flair_visibility.yaml").read_text())
    values["data"] |= {"input": str(patients), "size": [32, 32]}
    values["data"]["folds"]["k"] = FOLDS
    path = folder / "mine.yaml"

    def edit(**changes):
        for key, value in changes.items():
            values["data"][key] = value
        path.write_text(yaml.safe_dump(values))
    edit(**data)
    return path, edit


def test_an_edited_study_is_noticed_and_script_1_mends_it(patients, tmp_path):
    """Every refusal of script 2 that says "run script 1 again" must be lifted by running script 1 again."""
    path, edit = study_copy(tmp_path, patients)
    moved = tmp_path / "moved"
    shutil.copytree(patients, moved)
    common = ("-s", path, "-o", tmp_path / "ws")
    run_script("1", *common, "-k", 3, "--set", "report.figures=false", cwd=tmp_path)
    edit(clip=8.0)
    text = run_script("2a", *common, "-d", *TINY, cwd=tmp_path, expect=2).stderr
    assert "data.clip: 10" in text and "1-DataPreparation.py" in text
    edit(clip=10.0, input=str(moved))  # the same files in another place: nothing to redo
    run_script("1", *common, "--set", "report.figures=false", cwd=tmp_path)
    run_script("2a", *common, "-d", *TINY, cwd=tmp_path)


def test_folds_written_into_the_study_after_k_on_the_command_line(patients, tmp_path):
    path, edit = study_copy(tmp_path, patients, folds={"k": 5, "valid_proportion": 0.2, "seed": 0})
    common = ("-s", path, "-o", tmp_path / "ws")
    run_script("1", *common, "-k", 3, "--set", "report.figures=false", cwd=tmp_path)
    edit(folds={"k": 3, "valid_proportion": 0.2, "seed": 0})
    run_script("1", *common, "--set", "report.figures=false", cwd=tmp_path)
    run_script("2a", *common, "-d", *TINY, cwd=tmp_path)


def test_the_command_that_an_error_advises_works_as_it_stands(patients, tmp_path):
    """With the study's path and the workspace that the user gave."""
    path, _ = study_copy(tmp_path, patients)
    text = run_script("2a", "-s", "mine.yaml", "-o", "my space", cwd=tmp_path, expect=2).stderr
    advice = re.search(r"python (1-DataPreparation\.py.*)", text)
    assert advice, text
    words = shlex.split(advice[1])
    run_script("1", *words[1:], cwd=tmp_path)
    assert (tmp_path / "my space" / "prepared" / "manifest.json").is_file()


def test_data_keys_are_refused_after_script_1(prepared):
    for name in ("2a", "2b", "3", "4"):
        text = run_script(name, "--set", "data.clip=5", cwd=prepared.folder, expect=2).stderr
        assert "data.clip=5" in text and "1-DataPreparation.py" in text and "Traceback" not in text
    text = run_script("2a", "--set", "data={clip: 5}", cwd=prepared.folder, expect=2).stderr
    assert "Traceback" not in text


# --- scripts 2 and 3 -------------------------------------------------------------------------------------------------

def test_trained_files_and_their_numbers_agree(trained):
    run = trained.space.run(RUN)
    assert yaml.safe_load((run / "study.yaml").read_text())["training"]["epochs"] == 2
    rows = table(run / "crossvalidation.csv")
    assert [row["status"] for row in rows] == ["finished"] * FOLDS and [row["fold"] for row in rows] == ["0", "1", "2"]
    for row in rows:
        folder = trained.fold(int(row["fold"]))
        assert {"best.pt", "last.pt", "metrics.csv", "train.log"} <= files(folder)
        metrics = table(folder / "metrics.csv")
        assert [m["epoch"] for m in metrics] == ["0", "1"]
        dice = [float(m["dice/all"]) for m in metrics]
        assert float(row["score"]) == max(dice) and int(row["best_epoch"]) == dice.index(max(dice))
        assert {"learning_rate", "train_loss", "validation_loss", "train_bce_stroke", "train_dice_stroke",
                "validation_dice_flair_visible", *(f"{m}/{c}" for m in ("dice", "accuracy") for c in CLASSES)} <= set(metrics[0])
        assert not [column for column in metrics[0] if re.search("second|time|clock|date", column)]
        for m in metrics:
            assert float(m["train_loss"]) > 0 and math.isfinite(float(m["validation_loss"]))
            parts = [float(m[f"dice/{name}"]) for name in CLASSES if m[f"dice/{name}"]]
            assert float(m["dice/all"]) == pytest.approx(statistics.fmean(parts), abs=1e-8)  # one validation case
        assert re.search(r"\d\d:\d\d:\d\d", (folder / "train.log").read_text())


def test_models_are_whole_and_say_what_they_are(converted):
    import onnx
    folder = converted.space.onnx(RUN)
    assert files(folder) == {"fold0.onnx", "fold1.onnx", "fold2.onnx", "parity.csv"}  # and no weights beside them
    manifest = json.loads((converted.space.prepared / "manifest.json").read_text())
    for fold in range(FOLDS):
        path = folder / f"fold{fold}.onnx"
        model = onnx.load(path)
        meta = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
        assert meta["fold"] == fold and meta["fingerprint"] == manifest["fingerprint"] and meta["classes"] == list(CLASSES)
        assert meta["study"]["window"] == {"frames": 3, "stride": 1, "scale": 1, "mirror": False, "test_windows": 3} and meta["input"]["size"] == [32, 32]
        assert set(meta["calibration"]["threshold"]) == set(CLASSES) and len(meta["test_patients"]) >= 16
        row = table(converted.space.run(RUN) / "crossvalidation.csv")[fold]
        assert meta["epoch"] == int(row["best_epoch"]) and meta["score"] == pytest.approx(float(row["score"]))
        assert meta["metric"] == "dice/all" and meta["finished"] is True
        shape = model.graph.input[0].type.tensor_type.shape.dim
        assert shape[0].dim_param and [d.dim_value for d in shape[1:]] == [3, 2, 32, 32]
        raw = path.read_bytes()
        for place in (str(converted.folder), str(ROOT), sys.prefix, os.path.expanduser("~") + "/", *NAMES):
            assert place.encode() not in raw, place


def test_parity_was_checked_at_batch_one_and_more(converted):
    rows = table(converted.space.onnx(RUN) / "parity.csv")
    splits = table(converted.space.prepared / "splits.csv")
    assert {row["fold"] for row in rows} == {"0", "1", "2"} and all(row["passed"] == "yes" for row in rows)
    for fold in "012":
        batches = {int(row["batch"]) for row in rows if row["fold"] == fold}
        assert 1 in batches and max(batches) > 1
        validation = {row["patient"] for row in splits if row["fold"] == fold and row["subset"] == "validation"}
        assert {row["case"] for row in rows if row["fold"] == fold} <= validation
    for row in rows:
        assert float(row["largest_difference"]) < 1e-2 and float(row["largest_value"]) > 0
        assert float(row["torch_score"]) == pytest.approx(float(row["onnx_score"]), abs=1e-3)


# --- script 4 --------------------------------------------------------------------------------------------------------

def test_results_table(tested):
    rows = table(tested.results / "results.csv")
    assert list(rows[0]) == RESULTS
    assert {(row["study"], row["run"]) for row in rows} == {("flair_visibility", RUN)}
    cases = [row for row in rows if row["case"]]
    assert sorted({row["case"] for row in cases}) == NAMES
    folds = {row["patient"]: row["fold"] for row in table(tested.space.prepared / "folds.csv")}
    assert all(row["fold"] == folds[row["patient"]] for row in cases)  # each by the one model that never saw it
    metrics = {row["metric"] for row in cases}
    assert {"dice", "iou", "precision", "recall", "specificity", "accuracy", "hd95_mm", "volume_ml", "volume_ml_true",
            "false_positive_ml", "visible_share", "visible_share_true"} <= metrics
    keys = [(row["case"], row["fold"], row["class"], row["metric"]) for row in rows]
    assert len(keys) == len(set(keys))
    whole = {row["metric"] for row in rows if not row["case"] and row["class"] == "flair_visible"}
    assert {"presence_roc_auc", "presence_kappa", "empty_truth_cases"} <= whole


@pytest.mark.parametrize("name", WITH_MASK)
def test_scores_are_those_of_the_saved_predictions_against_the_raw_files(tested, name):
    found, truths = scores(tested), raw_truth(tested.patients / name)
    image = nibabel.load(tested.results / "predictions" / f"{name}.nii.gz")
    voxels = np.asarray(image.dataobj)
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    for index, cls in enumerate(CLASSES):
        mask, truth = voxels[..., index] == 1, truths[cls]
        both, either = (mask & truth).sum(), (mask | truth).sum()
        expected = {"dice": 2 * both / (mask.sum() + truth.sum()) if truth.any() else math.nan,
                    "iou": both / either if truth.any() else math.nan,
                    "precision": both / mask.sum() if mask.any() else math.nan,
                    "recall": both / truth.sum() if truth.any() else math.nan,
                    "accuracy": (mask == truth).mean(), "volume_ml": mask.sum() * voxel_ml,
                    "volume_ml_true": truth.sum() * voxel_ml, "false_positive_ml": (mask & ~truth).sum() * voxel_ml}
        for metric, value in expected.items():
            assert found[name, cls, metric] == pytest.approx(value, rel=1e-5, abs=1e-9, nan_ok=True), (cls, metric)
    share = voxels[..., 2].sum() / voxels[..., 1].sum() if voxels[..., 1].any() else math.nan
    assert found[name, "flair_visible", "visible_share"] == pytest.approx(share, nan_ok=True)


def test_summary_recomputed_with_pandas(tested):
    import pandas
    rows = pandas.read_csv(tested.results / "results.csv", dtype={"patient": str, "case": str})
    summary = pandas.read_csv(tested.results / "summary.csv")
    assert list(summary.columns) == [*SUMMARY, *(f"fold{fold}" for fold in range(FOLDS))]
    cases = rows[rows["case"].notna() & rows["value"].notna()]
    for (cls, metric), part in cases.groupby(["class", "metric"]):
        line = summary[(summary["class"] == cls) & (summary["metric"] == metric)]
        assert len(line) == 1
        line = line.iloc[0]
        folds = part.groupby("fold")["value"].mean()
        assert line["folds"] == len(folds) and line["patients"] == part["patient"].nunique()
        assert line["mean"] == pytest.approx(folds.mean(), rel=1e-8)
        assert line["sd"] == pytest.approx(folds.std(ddof=1), rel=1e-7, abs=1e-12, nan_ok=True)
        assert line["estimate"] == pytest.approx(part["value"].mean(), rel=1e-8)
        if part["patient"].nunique() > 1:
            assert part["value"].min() - 1e-9 <= line["ci_low"] <= line["estimate"] + 1e-9
            assert line["estimate"] - 1e-9 <= line["ci_high"] <= part["value"].max() + 1e-9
    overall = summary[(summary["class"] == "all") & (summary["metric"] == "dice")]
    assert len(overall) == 1 and overall.iloc[0]["folds"] == FOLDS
    whole = rows[rows["case"].isna() & rows["fold"].isna()]
    for _, row in whole.iterrows():
        line = summary[(summary["class"] == row["class"]) & (summary["metric"] == row["metric"])].iloc[0]
        assert line["estimate"] == pytest.approx(row["value"], nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_and_heatmaps_lie_on_the_source_grid(tested, name):
    source = next(path for path in ((tested.patients / name / f"b0{s}") for s in (".nii.gz", ".nii")) if path.is_file())
    source = nibabel.load(source)
    prediction = nibabel.load(tested.results / "predictions" / f"{name}.nii.gz")
    assert prediction.shape == (*source.shape, 3) and prediction.get_data_dtype() == np.uint8
    assert np.allclose(prediction.affine, source.affine, atol=1e-4)
    voxels = np.asarray(prediction.dataobj)
    assert set(np.unique(voxels)) <= {0, 1} and voxels[..., 0].any()
    assert not (voxels[..., 1] & ~voxels[..., 0] & 1).any() and not (voxels[..., 2] & ~voxels[..., 1] & 1).any()
    from scipy.ndimage import label
    assert label(voxels[..., 0])[1] == 1  # the largest component alone
    heat = nibabel.load(tested.results / "heatmaps" / f"{name}.nii.gz")
    assert heat.get_data_dtype() == np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert heat.shape == source.shape and np.allclose(heat.affine, source.affine, atol=1e-4)
    colours = np.asarray(heat.dataobj)
    assert (colours["R"] != colours["B"]).any() and (colours["R"] == colours["B"]).any()  # paint over grey


def test_pictures_and_files_of_the_results(tested):
    import cv2
    found = files(tested.results)
    assert {"results.csv", "summary.csv", "figures/dice.png", "results.xlsx", "figures/volume_ml.png"} <= found
    assert {f"{folder}/{name}{suffix}" for name in NAMES for folder, suffix in
            (("predictions", ".nii.gz"), ("heatmaps", ".nii.gz"), ("heatmaps", ".png"), ("pictures", ".png"))} <= found
    for path in tested.results.rglob("*.png"):
        picture = cv2.imread(str(path))
        assert picture is not None and min(picture.shape[:2]) > 50 and picture.std() > 5, path
    assert not [name for name in found if "partial" in name]


def test_the_report_holds_the_numbers_of_the_tables(tested):
    page = (tested.results / "report.html").read_text(encoding="utf-8")
    assert "7 cases of 7 patients" in page and "Learning curves of the folds" in page and str(tested.folder) not in page
    for row in table(tested.results / "summary.csv"):
        if row["metric"] == "dice" and row["estimate"]:
            assert f"{float(row['estimate']):.3f}" in page, row
    for row in table(tested.results / "results.csv"):
        assert row["case"] in page


def test_the_report_works_in_a_browser(tested, browser):
    """What test_report_page.py sees of made-up facts, in short, of a report that script 4 wrote."""
    tab = Tab(browser, tested.results / "report.html")
    dice = {case: value for (case, cls, metric), value in scores(tested).items() if (cls, metric) == ("all", "dice")}
    assert tab.rows() == sorted(NAMES, key=dice.get)  # the worst first
    cell = tab.texts("#case-table thead .on-paper").index("Dice") + 1
    shown = [float(text) for text in tab.texts(f"#case-table tbody tr > :nth-child({cell})")]
    assert shown == pytest.approx(sorted(dice.values()), abs=0.0005 + 1e-9)  # three digits
    tab.click(tab.head("Dice"))
    assert tab.rows() == sorted(NAMES, key=dice.get, reverse=True)
    folds = {row["patient"]: row["fold"] for row in table(tested.space.prepared / "folds.csv")}
    kept = {name for name in NAMES if folds[name] == "1"}
    tab.choose("#fold", "1")
    assert 0 < len(kept) < len(NAMES) and set(tab.rows()) == kept == set(tab.texts("#gallery b"))
    tab.choose("#fold", "")
    assert set(tab.rows()) == set(tab.texts("#gallery b")) == set(NAMES)
    seen = "return all('#gallery img.truth').map(one => getComputedStyle(one).visibility)"
    tab.wait("return all('#gallery img.truth').length")
    assert set(tab.js(seen)) == {"visible"}
    tab.click("#truth")
    assert set(tab.js(seen)) == {"hidden"}
    tab.click("#truth")
    tab.click("#gallery li button")
    assert tab.texts("#lightbox-title") == [min(NAMES, key=dice.get)]
    tab.wait("return all('#stage img').length === 3 && all('#stage img').every(one => one.complete && one.naturalWidth > 50)")
    assert not tab.driver.get_log("browser")


def test_heat_lies_where_the_source_is(tested):
    """The grey under the paint is the patient's b1000 on the same voxels, not a mirror image of it."""
    looked_at = 0
    for name in NAMES:
        heat = np.asarray(nibabel.load(tested.results / "heatmaps" / f"{name}.nii.gz").dataobj)
        bare = (heat["R"] == heat["G"]) & (heat["G"] == heat["B"])
        if bare.mean() < 0.1:  # these networks have learnt little and paint much
            continue
        source = np.asarray(nibabel.load(tested.patients / name / "b1000.nii.gz").dataobj, np.float64)
        likeness = [np.corrcoef(heat["R"][bare], turned[bare])[0, 1]
                    for turned in (source, *(np.flip(source, axis) for axis in range(3)))]
        assert likeness[0] > 0.95 and likeness[0] > max(likeness[1:]) + 0.01, name
        looked_at += 1
    assert looked_at


def test_empty_truth_is_neither_0_nor_1_but_counted(tested):
    found = scores(tested)
    empty = {cls: [n for n in NAMES if found[n, cls, "volume_ml_true"] == 0] for cls in CLASSES}
    assert "Patient_03" in empty["stroke"] and set(empty["stroke"]) <= set(empty["flair_visible"]) and not empty["brain"]
    for cls, names in empty.items():
        for name in names:
            assert math.isnan(found[name, cls, "dice"]) and math.isnan(found[name, cls, "iou"])
            assert found[name, cls, "false_positive_ml"] == pytest.approx(found[name, cls, "volume_ml"])
    summary = {(row["class"], row["metric"]): row for row in table(tested.results / "summary.csv")}
    for cls in CLASSES:
        assert float(summary[cls, "empty_truth_cases"]["estimate"]) == len(empty[cls])
        assert int(summary[cls, "dice"]["patients"]) == len(NAMES) - len(empty[cls])


def test_what_script_4_says_and_that_it_repeats(tested, tmp_path):
    place = tested.copy(tmp_path, "prepared", "runs", "onnx", "results")
    before = bytes_of(place.results)
    text = run_script("4", cwd=tmp_path).stdout
    after = bytes_of(place.results)
    # the worksheet says how long each case took
    assert [name for name in before if before[name] != after.get(name)] in ([], ["results.xlsx"])
    assert len(before) == len(after)
    assert "7 held-out cases" in text and "CPU" in text and "empty_truth_cases" in text
    run_script("4", "--no-heatmaps", cwd=tmp_path)
    assert not (place.results / "heatmaps").exists()
    assert (place.results / "results.csv").read_bytes() == before["results.csv"]


def test_some_folds_are_enough_and_it_is_said(tested, tmp_path):
    place = tested.copy(tmp_path, "prepared", "onnx")
    (place.space.onnx(RUN) / "fold1.onnx").unlink()
    text = run_script("4", "--no-heatmaps", cwd=tmp_path).stdout
    assert re.search(r"ONLY 2 of 3 folds.*fold 1", text)
    rows = [row for row in table(place.results / "results.csv") if row["case"]]
    assert {row["fold"] for row in rows} == {"0", "2"}


def stricter_models(place, folds) -> None:
    """A second run, `stricter`, without training one: the models of these folds, which now believe only what is at least 0.6."""
    import onnx
    target = place.space.onnx("stricter")
    target.mkdir(parents=True)
    for fold in folds:
        model = onnx.load(place.space.onnx(RUN) / f"fold{fold}.onnx")
        entry = next(entry for entry in model.metadata_props if entry.key == "calibration")
        entry.value = json.dumps({**json.loads(entry.value), "threshold": dict.fromkeys(CLASSES, 0.6)})
        onnx.save(model, target / f"fold{fold}.onnx")


def assert_compared(rows: list[dict[str, str]], a: dict, b: dict, cases: list[str]) -> None:
    """Case rows of comparison.csv are those that the values of two results.csv give. a, b: see `scores`."""
    def value(side, case, cls, metric):
        read_out = re.sub("(_abs)?_error$", "", metric)
        if read_out == metric:
            return side.get((case, cls, metric), math.nan)
        error = side.get((case, cls, read_out), math.nan) - side.get((case, cls, f"{read_out}_true"), math.nan)
        return abs(error) if "_abs_" in metric else error

    for row in rows:
        cls, metric = row["class"], row["metric"]
        pairs = {case: (value(a, case, cls, metric), value(b, case, cls, metric)) for case in cases}
        if cls == "all":  # a mean over classes: only where they are the same classes in both
            found = {case: [[math.isnan(value(side, case, one, metric)) for one in CLASSES] for side in (a, b)] for case in cases}
            pairs = {case: pair for case, pair in pairs.items() if found[case][0] == found[case][1]}
        pairs = [pair for pair in pairs.values() if not any(map(math.isnan, pair))]
        assert (int(row["cases"]), int(row["left_out"])) == (len(pairs), len(cases) - len(pairs)), row
        if pairs:
            expected = (statistics.fmean(y - x for x, y in pairs), *(statistics.fmean(side) for side in zip(*pairs)))
            found = [float(row[column]) for column in ("difference_b_minus_a", "estimate_a", "estimate_b")]
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-9), row


def test_two_runs_are_compared_and_forgotten_when_one_is_tested_again(tested, tmp_path):
    """Script 4 from two runs to tables and figures; B lacks a fold."""
    import cv2
    place = tested.copy(tmp_path, "prepared", "onnx", "results")
    stricter_models(place, (0, 2))
    run_script("4", "-n", "stricter", "--no-heatmaps", cwd=tmp_path)
    text = run_script("4", "--compare", RUN, "stricter", "--set", "report.pdf=true", cwd=tmp_path).stdout
    folder, other = place.results / "compare-stricter", place.space.results("stricter")
    where = folder.relative_to(tmp_path)

    a, b = scores(place), {(row["case"], row["class"], row["metric"]): float(row["value"] or "nan")
                           for row in table(other / "results.csv") if row["case"]}
    judged = [row["patient"] for row in table(place.space.prepared / "folds.csv") if row["fold"] != "1"]
    assert sorted({case for case, *_ in b}) == sorted(judged) and 2 <= len(judged) < len(NAMES)
    rows = table(folder / "comparison.csv")
    by_key = {(row["class"], row["metric"]): row for row in rows}
    of_cases = [row for row in rows if row["level"] == "case"]
    assert {(cls, metric) for cls in (*CLASSES, "all") for metric in ("dice", "iou", "recall", "hd95_mm")} <= set(by_key)
    assert_compared(of_cases, a, b, judged)
    assert float(by_key["brain", "volume_ml_error"]["difference_b_minus_a"]) < 0  # B, with its higher threshold, minus A
    pooled = {(row["class"], row["metric"]): float(row["value"] or "nan") for row in table(other / "results.csv")
              if not (row["case"] or row["fold"])}
    of_sets = [row for row in rows if row["level"] == "set"]
    assert {"presence_roc_auc", "presence_kappa"} <= {row["metric"] for row in of_sets}
    assert all(float(row["estimate_b"]) == pytest.approx(pooled[row["class"], row["metric"]]) for row in of_sets)
    for row in table(folder / "differences.csv"):
        if row["metric"] == "dice" and row["a"] and row["b"]:
            gap = b[row["case"], row["class"], "dice"] - a[row["case"], row["class"], "dice"]
            assert float(row["difference_b_minus_a"]) == pytest.approx(gap, rel=1e-6, abs=1e-9)
    assert {"difference_dice.png", "difference_hd95_mm.png", "difference_over_all_cases.png"} <= files(folder / "figures")
    assert all(cv2.imread(str(path)).std() > 5 for path in folder.glob("figures/*.png"))
    assert_pdfs(folder / "figures", 3)

    assert f"LEFT OUT: {len(NAMES) - len(judged)} cases that only A ({RUN}) has judged" in text
    gap = float(by_key["brain", "dice"]["difference_b_minus_a"])
    assert re.search(rf"^brain +dice +higher .* {re.escape(f'{gap:+.3f}')} .* {len(judged)}$", text, re.MULTILINE)
    done, see, then = text.splitlines()[-3:]
    assert done == f"done: {RUN} and stricter compared on {len(judged)} test cases" and see == f"see: {where}"
    assert then.startswith(f"next: python {SCRIPTS['4']} -s flair_visibility") and then.endswith("--predict NEW_PATIENTS")

    whole, before = (other / "results.csv").read_bytes(), bytes_of(folder)
    (other / "results.csv").write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    refused = run_script("4", "--compare", RUN, "stricter", cwd=tmp_path, expect=2)
    assert "results.csv was changed after script 4 wrote it" in refused.stderr and "-n stricter" in refused.stderr
    assert "Traceback" not in refused.text and not refused.stdout and bytes_of(folder) == before
    (other / "results.csv").write_bytes(whole)

    elsewhere = shutil.copytree(other, tmp_path / "elsewhere" / "stricter")  # the same numbers, but nobody replaces these
    said = run_script("4", "--compare", RUN, elsewhere, cwd=tmp_path).stdout.splitlines()[-2]
    unrelated = tmp_path / said.removeprefix("see: ")
    assert unrelated.parent == place.results and (unrelated / "comparison.csv").read_bytes() == before["comparison.csv"]
    stays = bytes_of(unrelated)
    shutil.copytree(folder, other / f"compare-{RUN}")  # a comparison of B's own
    text = run_script("4", "-n", "stricter", "--no-heatmaps", cwd=tmp_path).stdout
    for gone in (where, other.relative_to(tmp_path) / f"compare-{RUN}"):
        assert f"removed, because it compares the results of before: {gone}\n" in text and not (tmp_path / gone).exists()
    assert text.count("removed, because") == 2 and bytes_of(unrelated) == stays and (place.results / "results.csv").is_file()


def test_training_without_a_login_is_tracked_offline(prepared, tmp_path):
    """The shipped study tracks with W&B; without a login nobody is asked and nothing leaves the machine."""
    place = prepared.copy(tmp_path, "prepared")
    arguments = [a for a in TINY if "tracking" not in a]
    arguments = [a for a, after in zip(arguments, [*arguments[1:], ""]) if not (a == "--set" and after in ("--set", ""))]
    run_script("2a", "-k", 0, *arguments, "-e", 1, cwd=tmp_path,
               environment={"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")})
    assert list(place.space.run(RUN).glob("wandb/offline-run-*"))
    import torch
    assert torch.load(place.fold(0) / "last.pt", weights_only=True)["tracker_id"].startswith("wandb:")
