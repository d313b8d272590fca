"""What readers say of the reading in a report's methods: from small scans, through script 1's work, of the cases that it kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from conftest import make_patients
from lib.imaging.brainmask import METHODS
from lib.preparation import Outcome, prepare
from lib.readers import READERS
from lib.readers.nifti import THRESHOLDS
from lib.study import load_study
from lib.workspace import Workspace, read_manifest, read_table, write_json
from test_dicom import speckle, write_dicom
from test_sector import loop

SIZE = (20, 30)  # rows, columns of images
SMALL = ["data.size=[16,16]", "data.folds.k=2", "data.folds.valid_proportion=0"]


def script_1(place: Path, name: str, *keys: str, skip_bad: bool = False) -> Outcome:
    """Prepares place/raw into place/ws."""
    study = load_study(name, [*SMALL, *keys])
    return prepare(study, study, Workspace(place / "ws"), place / "raw", jobs=1, skip_bad=skip_bad)


def methods(place: Path, name: str, *keys: str, skip_bad: bool = False) -> list[str]:
    """What the manifest then holds, nothing of which tells a place, a file or a case."""
    assert script_1(place, name, *keys, skip_bad=skip_bad).built
    manifest = read_manifest(place / "ws" / "prepared")
    said, cases = manifest["methods"], read_table(place / "ws" / "prepared" / "cases.csv")
    text = " ".join(said)
    for private in [str(place), *(row[key] for row in cases for key in ("case", "patient")),
                    *(file for row in cases for file in json.loads(row["files"]).values())]:
        assert not re.search(rf"\b{re.escape(private)}\b", text), private
    assert all(one[0].isupper() | one[0].isdigit() and one.endswith(".") for one in said)
    return said


def picture(path: Path, seed: int, kind: str = "grey") -> Path:
    """Noise, in grey, with colours, with alpha or of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, SIZE).astype(np.uint8)
    planes = {"grey": 1, "alpha": 2, "colours": 3}.get(kind)
    image = np.uint16(pixels) * 200 if planes is None else pixels if planes == 1 else np.dstack([pixels] * planes)
    Image.fromarray(image).save(path)
    return path


def cut(path: Path) -> None:
    """Without its last bytes, which only who decodes the pixels misses."""
    path.write_bytes(path.read_bytes()[:-200])


# --- images --------------------------------------------------------------------------------------------------------

def pairs(place: Path, *kinds: str) -> Path:
    for index, kind in enumerate(kinds):
        picture(place / "raw" / "preprocessed_images" / f"scan{index}.png", index, kind)
        mask = np.zeros(SIZE, np.uint8)
        mask[2:9, 3:20] = 255
        (place / "raw" / "segmentations").mkdir(exist_ok=True)
        Image.fromarray(mask).save(place / "raw" / "segmentations" / f"seg_scan{index}.png")
    return place


def test_conversions_of_images_are_counted_for_those_that_were_kept(tmp_path):
    pairs(tmp_path, "colours", "16 bits", "alpha", "colours", "grey", "colours")
    cut(tmp_path / "raw" / "preprocessed_images" / "scan5.png")
    said = methods(tmp_path, "nuchal_translucency", "data.reader.pixels_per_mm=8", skip_bad=True)
    assert said == ["1 image of more than 8 bits was converted to 8 bits, each from its own minimum and maximum.",
                    "1 image with alpha was used without it.", "2 images with colours were turned grey.",
                    "A pixel was taken to be 0.125 mm wide and high, which the study gives for all images."]
    rows = read_table(tmp_path / "ws" / "prepared" / "cases.csv")
    assert {row["case"]: row["converted"] for row in rows} == {
        "scan0": "grey", "scan1": "8 bits", "scan2": "without alpha", "scan3": "grey", "scan4": ""}
    # to the user of script 1 the very notes of before, of all images that it looked at
    assert "3 images with colours: turned grey (channels: 3 would keep them)" in read_manifest(tmp_path / "ws/prepared")["notes"]


def test_grey_images_repeated_as_colours(tmp_path):
    pairs(tmp_path, "colours", "16 bits", "grey")
    assert methods(tmp_path, "nuchal_translucency", "data.reader.channels=3") == [
        "2 images in grey were repeated as red, green and blue.",
        "1 image of more than 8 bits was converted to 8 bits, each from its own minimum and maximum."]


def test_nothing_is_said_where_nothing_was_done(tmp_path):
    pairs(tmp_path, "grey", "grey")
    assert methods(tmp_path, "nuchal_translucency") == []
    assert "converted" not in read_table(tmp_path / "ws" / "prepared" / "cases.csv")[0]


@pytest.mark.parametrize("name, keys, table, lines", [
    ("fetal_anatomy", ["data.classes=[NT]", "task={kind: detection}", "data.reader.images=images",
                       "data.reader.table=boxes.csv"], "boxes.csv",
     ["fname,structure,h_min,w_min,h_max,w_max", *(f"scan{n}.png,NT,1,2,9,12" for n in range(5))]),
    ("fetal_biometry", ["data.classes=[femur,thorax]"], "labels.csv",
     ["image,label", "scan0.png,femur", "scan1.png,thorax", "scan2.png,femur", "scan3.png,thorax", "scan4.png,femur"]),
    ("fetal_biometry_landmarks", ["data.classes=[a,b]", "task={kind: landmarks}", "measurements={}"], "points.csv",
     ["image,a_x,a_y,b_x,b_y", *(f"scan{n}.png,1,2,9,12" for n in range(5))])])
def test_readers_of_labelled_images(tmp_path, name, keys, table, lines):
    for index, kind in enumerate(("colours", "grey", "16 bits", "grey", "colours")):
        picture(tmp_path / "raw" / "images" / f"scan{index}.png", index, kind)
    cut(tmp_path / "raw" / "images" / "scan4.png")
    (tmp_path / "raw" / table).write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "raw" / "mm.csv").write_text("\n".join(["name,mm", *(f"scan{n}.png,0.{n + 1}" for n in range(5))]),
                                             encoding="utf-8")
    spacing = "data.reader.spacing_table={file: mm.csv, name_column: name, spacing_column: mm}"
    assert methods(tmp_path, name, *keys, spacing, skip_bad=True) == [
        "1 image of more than 8 bits was converted to 8 bits, each from its own minimum and maximum.",
        "1 image with colours was turned grey.", "The size of a pixel was read from a table that came with the images."]


# --- videos --------------------------------------------------------------------------------------------------------

def loops(place: Path, moves: str, bad: int = 0) -> Path:
    """A loop per letter: a sector that (m)oves, or (s)tands still, in upper case with colours; then loops without pixels."""
    rows = ["video_path,quality_score"]
    for index, letter in enumerate(moves + "M" * bad):
        frames = loop(6, seed=index)
        frames = frames if letter in "mM" else frames[:1].repeat(6, axis=0)
        frames = frames[..., None].repeat(3, axis=3) if letter.isupper() else frames
        encoded = {"coded": [b"no picture"] * 6, "syntax": JPEGBaseline8Bit, "kind": "YBR_FULL_422"}
        path = place / "raw" / f"loop{index}.dcm"
        path.parent.mkdir(exist_ok=True)
        write_dicom(path, frames, PatientID=f"P{index}", **(encoded if index >= len(moves) else {}))
        rows.append(f"loop{index}.dcm,{index % 2}")
    (place / "raw" / "echo_annotations.csv").write_text("\n".join(rows), encoding="utf-8")
    return place


def test_sectors_and_conversions_of_loops(tmp_path):
    loops(tmp_path, "mSMs", bad=1)
    said = methods(tmp_path, "echo_quality", skip_bad=True)
    assert said == ["2 videos stored with colours were turned grey.",
                    "What lies around the ultrasound sector, where nothing moves, was made black in 2 of 4 videos; in the others "
                    "too little moves to tell the sector, or all of the frame does."]
    assert {row["case"]: row["converted"] for row in read_table(tmp_path / "ws" / "prepared" / "cases.csv")} == {
        "loop0": "", "loop1": "grey", "loop2": "grey", "loop3": ""}


@pytest.mark.parametrize("moves, keys, expected", [
    ("mmmm", [], ["What lies around the ultrasound sector, where nothing moves, was made black."]),
    ("ssss", [], ["What lies around the ultrasound sector was left as it is in all videos: too little moves to tell the sector, "
                  "or all of the frame does."]),
    ("msms", ["data.reader.mask_sector=false", "data.reader.channels=3"], [
        "4 videos in grey were repeated as red, green and blue."])])
def test_sectors_of_all_or_no_loops(tmp_path, moves, keys, expected):
    assert methods(loops(tmp_path, moves), "echo_quality", *keys) == expected


def test_loops_of_other_than_8_bits(tmp_path):
    (tmp_path / "raw").mkdir()
    for index in range(4):
        write_dicom(tmp_path / "raw" / f"loop{index}.dcm", speckle(3, 12, 16, seed=index, dtype=np.uint16) * 9,
                    bits=12 + index, PatientID=f"P{index}")
    rows = ["video_path,quality_score", *(f"loop{n}.dcm,{n % 2}" for n in range(4))]
    (tmp_path / "raw" / "echo_annotations.csv").write_text("\n".join(rows), encoding="utf-8")
    assert methods(tmp_path, "echo_quality", "data.reader.mask_sector=false") == [
        "4 videos of more or fewer than 8 bits were converted to 8 bits, each by its own window or the range of its frames."]


# --- volumes -------------------------------------------------------------------------------------------------------

def heads(place: Path, patients: int, masked: int) -> Path:
    """Phantoms, the first `masked` of them with a mask file."""
    for folder in sorted(make_patients(place / "raw", patients).iterdir())[:masked]:
        b0 = nibabel.load(folder / "b0.nii.gz")
        nibabel.save(nibabel.Nifti1Image((b0.get_fdata() > 200).astype(np.uint8), b0.affine), folder / "mask.nii.gz")
    return place


@pytest.mark.parametrize("method, rule", [("otsu", "Otsu's threshold"),
                                          ("percentile", "a fifth of the way from the 2nd to the 98th percentile")])
def test_brain_masks_that_were_computed(tmp_path, method, rule):
    heads(tmp_path, 2, 0)
    assert methods(tmp_path, "flair_visibility", f"data.reader.brain_mask={method}") == [
        f"The brain mask of all cases was computed: voxels above {rule} in every median-filtered channel, the largest component "
        "of them, dilated by a voxel and filled."]


def test_brain_masks_are_counted_for_the_cases_that_were_kept(tmp_path):
    heads(tmp_path, 4, 1)
    bad = sorted((tmp_path / "raw").iterdir())[-1] / "b0.nii.gz"
    volume = nibabel.load(bad)
    nibabel.save(nibabel.Nifti1Image(np.zeros(volume.shape, np.int16), volume.affine), bad)
    sentence, = methods(tmp_path, "flair_visibility", skip_bad=True)
    assert sentence.startswith("The brain mask of the 2 cases that had none was computed: voxels above Otsu's threshold in every")


def test_no_brain_mask_is_computed_where_all_have_one_or_the_study_has_none(tmp_path):
    heads(tmp_path / "all", 2, 2)
    assert methods(tmp_path / "all", "flair_visibility") == []
    heads(tmp_path / "none", 2, 0)
    keys = ["data.classes=[stroke,flair_visible]", "data.inside={flair_visible: stroke}", "data.reader.brain_mask=none",
            "data.reader.truth={stroke: stroke_roi, flair_visible: flairviz_roi}", "task.weights={}", "task.largest=[]",
            "task.outlines=[stroke]"]
    assert methods(tmp_path / "none", "flair_visibility", *keys) == []


def test_every_method_of_a_brain_mask_has_its_words():
    assert set(THRESHOLDS) == set(METHODS)


# --- the manifest --------------------------------------------------------------------------------------------------

def test_every_reader_says_it():
    assert all(callable(getattr(kind, "methods", None)) for kind in READERS.values())


def test_what_is_said_makes_nothing_stale(tmp_path):
    """A folder that was prepared before readers said anything is as good as one prepared today."""
    pairs(tmp_path, "colours", "grey")
    assert methods(tmp_path, "nuchal_translucency")
    prepared = tmp_path / "ws" / "prepared"
    new = read_manifest(prepared)
    old = {key: value for key, value in new.items() if key != "methods"}
    write_json(prepared / "manifest.json", old)
    again = script_1(tmp_path, "nuchal_translucency")
    assert not again.built and again.changed == [] and read_manifest(prepared) == old
    assert script_1(tmp_path, "nuchal_translucency", "data.clip=9").built  # anything else does renew it
    assert read_manifest(prepared)["methods"] == new["methods"] and "methods" not in str(new["key"])
