"""The reader of images with a class each: tables, folders and masks, in all layouts, and all that can be wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from conftest import ROOT
from lib.data.case import CaseError
from lib.preparation import stop_if_bad
from lib.readers import make_reader
from lib.study import Data, Folds, InputError, build, load_study

SIZE = (20, 30)  # rows, columns
CLASSES = ("brain", "femur", "other")
REAL = ROOT.parent / "shared" / "data" / "fetal_planes"


def save(path: Path, grey: int = 0, size=SIZE) -> Path:
    """An image of its own: `grey` in all but the first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size, grey, np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(path)
    return path


def folder(root: Path, *paths: str, images="images") -> Path:
    for index, path in enumerate(paths):
        save(root / images / path, index)
    return root


def mask(path: Path, *values: int, size=SIZE, mode=None) -> Path:
    """Rows of the values in turn, so that each is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint16 if max(values) > 255 else np.uint8)
    for index, value in enumerate(values):
        pixels[index::len(values)] = value
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def write(path: Path, rows: list, header=("image", "label"), separator=",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".xlsx":
        book = Workbook()
        for row in [header, *rows]:
            book.active.append(list(row))
        book.save(path)
    else:
        path.write_text("\n".join(separator.join(map(str, row)) for row in [header, *rows]), encoding="utf-8")
    return path


def reader(classes=CLASSES, folds=Folds(), **keys):
    keys = keys if {"table", "labels", "masks"} & {*keys} else {"table": "labels.csv", **keys}
    return make_reader(Data(reader={"kind": "image_classes", **keys}, classes=classes, folds=folds, intensity="none",
                            store="uint8"))


def labels(found, root, of=None) -> dict:
    """case -> class, or another entry of its header."""
    scan = found.headers(root)
    assert not scan.problems, [str(problem) for problem in scan.problems]
    return {header.case: getattr(header, of) if of else header.labels["class"] for header in scan.headers}


def problems(found, root) -> list[str]:
    return [str(problem) for problem in found.headers(root).problems]


# --- a table -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("file, keys", [("labels.csv", {}), ("t/labels.csv", {"separator": ";"}), ("labels.xlsx", {})])
def test_a_row_per_image(tmp_path, file, keys):
    folder(tmp_path, "10.png", "9.jpg", "deep/2.tiff")
    write(tmp_path / file, [["10.png", "femur"], ["9", " Brain "], ["2.tiff", "OTHER"], ["10", "femur"]],
          separator=keys.get("separator", ","))
    found = reader(table=file, **keys)
    scan = found.headers(tmp_path)
    assert not scan.problems and scan.ignored == [] and scan.unused == []
    assert [(h.case, h.labels) for h in scan.headers] == [
        ("9", {"class": "brain"}), ("10", {"class": "femur"}), ("2", {"class": "other"})]
    header = scan.headers[1]
    json.dumps(header.labels)
    assert header.files == {"image": "images/10.png"} and header.geometry.shape == (1, *SIZE) and header.geometry.flat
    assert header.geometry.source == {"format": "image"} and (header.patient, header.subset) == ("10", "")
    case = found.read(tmp_path, header)
    assert case.frames.dtype == np.uint8 and case.frames.shape == (1, 1, *SIZE)
    assert {name: value.tolist() for name, value in case.truth.items()} == {"brain": [False], "femur": [True], "other": [False]}
    assert [*case.truth] == list(CLASSES) and {value.dtype for value in case.truth.values()} == {np.dtype(bool)}
    assert found.read(tmp_path, header, labels=False).truth == {}
    assert found.has_truth(tmp_path, "9") and not found.has_truth(tmp_path, "x")
    assert len(scan.notes) == 1 and scan.notes[0].startswith("no patient_pattern")


def test_spellings_and_numbers_of_classes(tmp_path):
    folder(tmp_path, "a.png", "b.png", "c.png", "d.png")
    write(tmp_path / "labels.csv", [["a", "Fetal   BRAIN"], ["b", "head"], ["c", "Fetal femur"], ["d", "femur"]])
    found = reader({"brain": ["Fetal brain", "head"], "femur": "Fetal femur"})
    assert labels(found, tmp_path) == {"a": "brain", "b": "brain", "c": "femur", "d": "femur"}
    for file, zero in (("labels.csv", "0.0"), ("labels.xlsx", 0.0)):
        write(tmp_path / file, [["a", 1], ["b", zero], ["c", "2.0"], ["d", 3]])
        found = reader({"poor": 0, "good": [1, 2], "best": 3}, table=file)
        assert labels(found, tmp_path) == {"a": "good", "b": "poor", "c": "good", "d": "best"}


def test_classes_that_the_study_does_not_name_are_found(tmp_path):
    folder(tmp_path, "a.png", "b.png", "c.png", "d.png")
    write(tmp_path / "labels.csv", [["a", "plane 10"], ["b", "Plane  2"], ["c", "plane 2"], ["d", "plane 10"]])
    found = reader(())
    scan = found.headers(tmp_path)
    assert found.find_classes(tmp_path, scan.headers) == {"Plane 2": None, "plane 10": None}  # as first written; natural order
    again = reader(found.find_classes(tmp_path, scan.headers))
    assert [h.labels for h in again.headers(tmp_path).headers] == [h.labels for h in scan.headers]
    assert again.read(tmp_path, scan.headers[1]).truth["Plane 2"].all()
    for name, text in (("plane 10", "and plane 10 alone is found in 4 images"), ("a/b", "'a/b' can name no class"),
                       ("all", "'all' can name no class; name .* such as {other: \"all\"}")):
        write(tmp_path / "labels.csv", [["a", name], ["b", "plane 10"], ["c", "plane 10"], ["d", name]])
        with pytest.raises(InputError, match=text):
            found.find_classes(tmp_path, found.headers(tmp_path).headers)


def test_a_header_without_a_class_is_not_read_with_labels(tmp_path):
    folder(tmp_path, "a.png")
    header = reader().headers(tmp_path, labels=False).headers[0]
    with pytest.raises(CaseError) as caught:
        reader().read(tmp_path, header)
    assert str(caught.value.problem) == "a: images/a.png: its class is None, expected one of brain, femur, other"


def test_all_bad_rows_are_listed_at_once(tmp_path):
    folder(tmp_path, *(f"{letter}.png" for letter in "abcdefgh"))
    (tmp_path / "images" / "h.png").write_text("a letter")
    write(tmp_path / "labels.csv", [["a", "brain"], ["b", ""], ["c", "thorax"], ["d", "femur"], ["d.png", "other"],
                                    ["", "brain"], ["../e", "brain"], ["f", "brain"], ["f", "brain"], ["h", "thorax"]])
    scan = reader().headers(tmp_path)
    assert {str(problem) for problem in scan.problems} == {
        "b: labels.csv, row 3: label is empty",
        "c: labels.csv, row 4: label is 'thorax', which is no class of the study; data.classes has brain, femur, other",
        "d: labels.csv, row 6: a second row of one image says something else: class other, but class femur in labels.csv, "
        "row 5",
        "labels.csv, row 7: image is empty, so nobody knows whose row it is; fill it in",
        "e: labels.csv, row 8: image is '../e', which leaves the data folder; expected a file name, or a path inside the "
        "folder",
        "h: images/h.png: is no PNG, JPEG, TIFF or BMP image",
        "h: labels.csv, row 11: label is 'thorax', which is no class of the study; data.classes has brain, femur, other"}
    assert [header.case for header in scan.headers] == ["a", "f"]
    with pytest.raises(InputError, match="row 4: label is 'thorax'"):
        stop_if_bad(scan.problems, skip_bad=False)


def test_rows_and_images_without_a_partner_are_noted_and_listed(tmp_path):
    folder(tmp_path, "a.png", "b.png", "c.png")
    write(tmp_path / "labels.csv", [["a", "brain"], ["x", "femur"], ["x", "thorax"], ["y", ""]])
    scan = reader(patient_pattern="(.)").headers(tmp_path)
    assert not scan.problems and [h.case for h in scan.headers] == ["a"]
    assert scan.notes == ["labels.csv: 3 rows of 2 images that are not in images/: x, y",
                          "2 of 3 images have no row in labels.csv and are left out: b.png, c.png"]
    assert [(p.case, p.file, p.reason) for p in scan.unused] == [
        ("", "x", "is named in labels.csv, but there is no such image"),
        ("", "y", "is named in labels.csv, but there is no such image"),
        ("b", "images/b.png", "has no row"), ("c", "images/c.png", "has no row")]


def test_a_column_that_holds_no_class_is_one_error(tmp_path):
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "labels.csv", [["a", "thorax"], ["b", "abdomen"]])
    with pytest.raises(InputError, match=r"labels.csv: column 'label' \(data.reader.columns.label\) holds thorax, abdomen, "
                       "none of which is a class of the study, brain, femur, other; .* classes: {brain: thorax}"):
        reader().headers(tmp_path)
    write(tmp_path / "labels.csv", [["x", "brain"]])
    with pytest.raises(InputError, match=r"none of its 1 rows names an image .*columns.image is 'image'\); it names x; the "
                       "images are a.png, b.png"):
        reader().headers(tmp_path)


@pytest.mark.parametrize("header, keys, text", [
    (("name", "label"), {}, r"there is no column 'image' \(data.reader.columns.image\); it has name, label, separated by ','"),
    (("image", "label"), {"columns": {"label": "Plane"}}, r"no column 'Plane' \(data.reader.columns.label\)"),
    (("image", "label"), {"columns": {"patient": "P", "subset": "S"}}, r"'P' \(.*patient\), 'S' \(.*subset\)"),
    (("image;label",), {}, "look separated by ';', not by ',': set data.reader.separator to ';'"),
    (("image", "label"), {"table": "no.csv"}, r"no.csv: there is no such file \(data.reader.table\)")])
def test_tables_that_cannot_be_used(tmp_path, header, keys, text):
    folder(tmp_path, "a.png")
    write(tmp_path / "labels.csv", [["a", "brain"][:len(header)]], header)
    with pytest.raises(InputError, match=text):
        reader(**keys).headers(tmp_path)


def test_patients_and_subsets_from_columns(tmp_path):
    folder(tmp_path, *(f"{letter}.png" for letter in "abcdefg"))
    rows = [["a", "brain", 7, "train"], ["b", "femur", 7, "Train"], ["c", "brain", 8, "val"], ["d", "other", 9, "TEST"],
            ["d", "other", 9, "test"]]
    keys = {"columns": {"patient": "Patient", "subset": "set"}}
    title = ("image", "label", "patient", "Set")
    write(tmp_path / "labels.csv", rows, title)
    assert labels(reader(**keys), tmp_path, "patient") == {"a": "7", "b": "7", "c": "8", "d": "9"}
    assert labels(reader(**keys), tmp_path, "subset") == {"a": "train", "b": "train", "c": "validation", "d": "test"}
    assert not any("patient_pattern" in note for note in reader(**keys).headers(tmp_path).notes)
    for folds, new in ((Folds(pool=True), False), (Folds(), True)):
        scan = reader(folds=folds, **keys).headers(tmp_path, new=new)
        assert [(h.patient, h.subset) for h in scan.headers] == [("7", ""), ("7", ""), ("8", ""), ("9", "")]
    write(tmp_path / "labels.csv", [*rows, ["e", "brain", "", "test"], ["f", "brain", 5, "0"], ["a", "brain", 8, "val"],
                                    ["g", "brain", 5, ""]], title)
    assert problems(reader(**keys), tmp_path) == [
        "e: labels.csv, row 7: Patient is empty", "f: labels.csv, row 8: set is '0', expected train, val or test",
        "a: labels.csv, row 9: a second row of one image says something else: patient 8, subset validation, but patient 7, "
        "subset train in labels.csv, row 2", "g: labels.csv, row 10: set is empty"]


def test_new_data_may_lack_patients_and_subsets(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "labels.csv", [["a", "brain"]])
    found = reader(columns={"patient": "P", "subset": "S"})
    (header,) = found.headers(tmp_path, labels=True, new=True).headers
    assert header.patient == "a" and header.labels == {"class": "brain"}


# --- layouts -------------------------------------------------------------------------------------------------------

def test_subsets_above_and_below_the_images(tmp_path):
    names = ["train/1.png", "val/2.png", "test/3.png"]
    below, above, beside = tmp_path / "below", tmp_path / "above", tmp_path / "beside"
    folder(below, *names)
    for index, name in enumerate(names):
        save(above / name.replace("/", "/images/"), index)
        save(beside / name, index)
    rows = [["1", "brain"], ["2", "femur"], ["3", "other"]]
    subsets = {"1": "train", "2": "validation", "3": "test"}
    for root, keys in ((below, {}), (above, {}), (beside, {"images": "."})):
        write(root / "labels.csv", rows)
        scan = reader(**keys).headers(root)
        assert not scan.problems and scan.ignored == []
        assert {h.case: h.subset for h in scan.headers} == subsets, root
        assert {h.subset for h in reader(folds=Folds(pool=True), **keys).headers(root).headers} == {""}
        (root / "labels.csv").unlink()
        for row in rows:  # a table in each folder; another's images have no name there
            place = f"{names[int(row[0]) - 1].split('/')[0]}/labels.csv"
            write(root / ("images" if root == below else "") / place, [row, ["2", "brain"]] if row[0] == "1" else [row])
        scan = reader(**keys).headers(root)
        assert not scan.problems and scan.ignored == [] and {h.case: h.subset for h in scan.headers} == subsets
        assert {h.case: h.labels["class"] for h in scan.headers} == {"1": "brain", "2": "femur", "3": "other"}
        assert any("labels.csv: 1 row of 1 image that is not in " in note and note.endswith("2") for note in scan.notes)
    assert scan.headers[0].files == {"image": "test/3.png"}
    names = {h.case: h.files["image"] for h in reader().headers(above).headers}
    assert names == {"1": "train/images/1.png", "2": "val/images/2.png", "3": "test/images/3.png"}
    with pytest.raises(InputError, match="data.reader.test_folders: there is no folder images/ .*images are in test/images"):
        reader(test_folders=["Test"]).headers(above)


def test_tables_of_subsets_name_images_by_any_path(tmp_path):
    for index, path in enumerate(("train/images/site/1.png", "train/images/2.png", "train/images/3.png", "val/images/1.png")):
        save(tmp_path / path, index)
    write(tmp_path / "train" / "labels.csv", [["images/site/1.png", "brain"], ["train/2.png", "femur"], ["3", "other"]])
    write(tmp_path / "val" / "labels.csv", [["1.png", "femur"]])
    assert labels(reader(), tmp_path) == {"train-site-1": "brain", "2": "femur", "3": "other", "val-1": "femur"}


def test_a_link_into_another_subset_is_refused(tmp_path):
    save(tmp_path / "train" / "images" / "a.png")
    save(tmp_path / "val" / "images" / "b.png", 1)
    (tmp_path / "train" / "images" / "more").symlink_to(tmp_path / "val" / "images")
    write(tmp_path / "labels.csv", [["a", "brain"], ["val/b.png", "femur"]])
    with pytest.raises(InputError, match="train/more/b.png is a link to .*val/images/b.png: one image in two of"):
        reader().headers(tmp_path)


def test_a_table_and_a_folder_that_name_different_subsets(tmp_path):
    folder(tmp_path, "train/a.png", "val/b.png", "Test/c.png")
    write(tmp_path / "labels.csv", [["a", "brain", "test"], ["b", "femur", "val"], ["c", "femur", "train"]],
          ("image", "label", "set"))
    scan = reader(columns={"subset": "set"}, test_folders=["Test"]).headers(tmp_path)
    assert [str(p) for p in scan.problems] == ["a: labels.csv, row 2: says test, but images/train/a.png is in train"]
    assert {h.case: h.subset for h in scan.headers} == {"b": "validation", "c": "external"}


def test_different_images_of_one_name_are_cases_of_their_own(tmp_path):
    folder(tmp_path, "x/1.png", "y/1.png", "y/2.png")
    save(tmp_path / "images" / "z" / "1.png", 1)  # a copy of y/1.png
    write(tmp_path / "labels.csv", [["x/1.png", "brain"], ["y/1.png", "femur"], ["2.png", "other"], ["z/1", "femur"]])
    for new in (False, True):
        assert [h.case for h in reader().headers(tmp_path, labels=not new, new=new).headers] == ["x-1", "y-1", "2"]
    assert labels(reader(), tmp_path) == {"x-1": "brain", "y-1": "femur", "2": "other"}
    assert "1 image with copies" in " ".join(reader().headers(tmp_path).notes)
    write(tmp_path / "labels.csv", [["1.png", "brain"], ["2.png", "other"]])
    scan = reader().headers(tmp_path)
    assert [str(p) for p in scan.problems] == ["1: labels.csv, row 2: image is '1.png', which may mean x/1.png and y/1.png "
                                               "and z/1.png"]
    assert [h.case for h in scan.headers] == ["2"]  # either may be meant
    save(tmp_path / "images" / "y-1.png", 9)
    write(tmp_path / "labels.csv", [["2.png", "other"]])
    assert "y-1: images/y-1.png: images/y/1.png has the same name and other content" in problems(reader(), tmp_path)[0]


# --- folders -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("images, place", [("images", "images"), (".", "."), ("data", "data")])
@pytest.mark.parametrize("classes", [CLASSES, ()])
def test_a_folder_per_class(tmp_path, images, place, classes):
    folder(tmp_path, "brain/1.png", "femur/1.png", "femur/2.png", "site B/Other/3.png", "4.png", images=place)
    found = reader(classes, labels="folders", images=images)
    scan = found.headers(tmp_path)
    other = "other" if classes else "Other"
    assert {h.case: h.labels["class"] for h in scan.headers} == {
        "brain-1": "brain", "femur-1": "femur", "2": "femur", "3": other}
    assert not scan.problems and {h.subset for h in scan.headers} == {""}
    assert f"1 of 5 images has no folder of a class in {images}/ and is left out: 4.png" in scan.notes
    if not classes:
        assert found.find_classes(tmp_path, scan.headers) == {"brain": None, "femur": None, "Other": None}


@pytest.mark.parametrize("names, images", [
    (["images/train/brain/1.png", "images/val/femur/1.png", "images/test/Brain/p/3.png"], "images"),
    (["train/images/brain/1.png", "val/images/femur/1.png", "test/images/Brain/p/3.png"], "images"),
    (["train/brain/1.png", "val/femur/1.png", "test/Brain/p/3.png"], ".")])
@pytest.mark.parametrize("classes", [CLASSES, ()])
def test_a_folder_per_class_in_train_val_and_test(tmp_path, names, images, classes):
    for index, name in enumerate(names):
        save(tmp_path / name, index)
    found = reader(classes, labels="folders", images=images)
    scan = found.headers(tmp_path)
    assert not scan.problems and {h.files["image"]: (h.labels["class"].lower(), h.subset) for h in scan.headers} == dict(
        zip(names, (("brain", "train"), ("femur", "validation"), ("brain", "test"))))
    pooled = reader(classes, Folds(pool=True), labels="folders", images=images).headers(tmp_path)
    assert [h.labels for h in pooled.headers] == [h.labels for h in scan.headers]
    assert {h.subset for h in pooled.headers} == {""}


def test_folders_that_are_no_class(tmp_path):
    folder(tmp_path, "train/brain/1.png", "train/unsorted/2.png", "train/3.png", "brain/femur/x/4.png")
    scan = reader(labels="folders", folds=Folds(pool=True)).headers(tmp_path)
    assert [str(p) for p in scan.problems] == [
        "2: images/train/unsorted/2.png: is in the folder 'unsorted', which is no class of the study; data.classes has brain, "
        "femur, other"]
    assert {h.case: h.labels["class"] for h in scan.headers} == {"1": "brain", "4": "femur"}  # of several the last
    assert "train/3.png" in " ".join(scan.notes)
    with pytest.raises(InputError, match="images/ holds x, brain, unsorted, none of which is a class of the study, lung"):
        reader(("lung", "liver"), labels="folders").headers(tmp_path)
    with pytest.raises(InputError, match="none of its images is in a folder of a class; the images are a.png"):
        reader(labels="folders").headers(folder(tmp_path / "flat", "a.png"))


def test_one_image_in_the_folders_of_two_classes(tmp_path):
    for place in ("brain", "femur", "other"):
        save(tmp_path / "images" / place / "1.png", place == "other")
    save(tmp_path / "images" / "other" / "more" / "1.png", 1)
    scan = reader(labels="folders").headers(tmp_path)
    assert [str(p) for p in scan.problems] == [
        "brain-1: images/femur/1.png: a copy of one image says something else: class femur, but class brain in "
        "images/brain/1.png"]
    assert [h.case for h in scan.headers] == ["other-1"]


# --- masks ---------------------------------------------------------------------------------------------------------

VALUES = {"brain": 128, "femur": [64, 65], "none": 0}


@pytest.mark.parametrize("place, masks, keys", [
    ("images/{}", "masks/{}", {}), ("images/{}", "m/{}", {"masks": "m", "mask_name": "seg_{stem}.png"}),
    ("images/site/{}", "masks/site/{}", {}), ("all/{}", "all/{}", {"images": "all", "masks": "all",
                                                                   "mask_name": "{stem}_mask.png"}),
    ("{}", "masks/{}", {"images": "."})])
def test_the_value_of_a_mask(tmp_path, place, masks, keys):
    pattern = keys.get("mask_name", "{name}")
    for index, (name, values) in enumerate({"a": (0, 128), "b": (65,), "c": (0,), "d": (64, 0, 65)}.items()):
        save(tmp_path / place.format(f"{name}.png"), index)
        mask(tmp_path / masks.format(pattern.format(name=f"{name}.png", stem=name)), *values)
    found = reader(VALUES, **{"masks": "masks", **keys})
    scan = found.headers(tmp_path)
    assert not scan.problems and scan.ignored == [] and scan.unused == []
    assert {h.case: h.labels["class"] for h in scan.headers} == {"a": "brain", "b": "femur", "c": "none", "d": "femur"}
    expected = masks.format(pattern.format(name="a.png", stem="a"))
    assert scan.headers[0].files == {"image": place.format("a.png"), "mask": expected}
    assert found.read(tmp_path, scan.headers[0]).truth["brain"].tolist() == [True]
    assert [h.case for h in found.headers(tmp_path, labels=False).headers] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("place, masks", [("images/{}/1.png", "masks/{}/1.png"), ("{}/images/1.png", "{}/masks/1.png")])
def test_masks_in_train_val_and_test(tmp_path, place, masks):
    for index, subset in enumerate(("train", "val", "test")):
        save(tmp_path / place.format(subset), index)
        mask(tmp_path / masks.format(subset), 0, 64 + 64 * (index == 1))
    scan = reader(VALUES, masks="masks").headers(tmp_path)
    assert not scan.problems and scan.ignored == []
    assert {h.case: (h.labels["class"], h.subset, h.files["mask"]) for h in scan.headers} == {
        f"{name}-1": (label, subset, masks.format(name)) for name, label, subset in (
            ("train", "femur", "train"), ("val", "brain", "validation"), ("test", "femur", "test"))}


def test_bad_masks_are_listed_at_once(tmp_path):
    folder(tmp_path, *(f"{letter}.png" for letter in "abcdefgh"))
    bad = {"a": (0, 128), "b": (128, 64), "c": (0, 7), "d": (0, 128, 64, 65)}
    for name, values in bad.items():
        mask(tmp_path / "masks" / f"{name}.png", *values)
    mask(tmp_path / "masks" / "e.png", 128, size=(10, 30))
    (tmp_path / "masks" / "f.png").write_text("?")
    mask(tmp_path / "masks" / "g.bmp", 128)
    mask(tmp_path / "masks" / "g.tif", 128)
    mask(tmp_path / "masks" / "stray.png", 128)
    scan = reader({"brain": 128, "femur": [64, 65]}, masks="masks").headers(tmp_path)
    assert [str(p) for p in scan.problems] == [
        "b: masks/b.png: holds values of 2 classes: 128 (brain), 64 (femur); expected one class in a mask, as its class is "
        "the image's",
        "c: masks/c.png: holds 7 (300 pixels), which mean no class; name them in data.classes, or correct the mask",
        "d: masks/d.png: holds values of 2 classes: 128 (brain), 65 (femur); expected one class in a mask, as its class is "
        "the image's",
        "e: masks/e.png: has 10 x 30 pixels (rows x columns), but its image e.png has 20 x 30; make them equal",
        "f: masks/f.png: is no PNG, JPEG, TIFF or BMP image",
        "g: masks/g.bmp: is meant, but there are g.bmp and g.tif; remove one"]
    assert [h.case for h in scan.headers] == ["a"]
    assert scan.notes[:2] == ["masks/: 1 mask without an image in images/ (data.reader.mask_name is '{name}'): masks/stray.png",
                              "1 of 8 images has no mask in masks/ and is left out: h.png"]
    assert [(p.file, p.reason) for p in scan.unused] == [("masks/stray.png", "is a mask without an image"),
                                                         ("images/h.png", "has no mask")]
    mask(tmp_path / "masks" / "a.png", 0)
    assert "a: masks/a.png: holds 0 alone, which means no class; name it in data.classes, or correct the mask" in problems(
        reader({"brain": 128, "femur": 64}, masks="masks"), tmp_path)


def test_values_of_masks_are_found(tmp_path):
    folder(tmp_path, *(f"{letter}.png" for letter in "abcd"))
    for name, values in {"a": (0, 128), "b": (9,), "c": (0, 300), "d": (0, 9)}.items():
        mask(tmp_path / "masks" / f"{name}.png", *values)
    found = reader((), masks="masks")
    scan = found.headers(tmp_path)
    classes = found.find_classes(tmp_path, scan.headers)
    assert [*classes.items()] == [("class_9", 9), ("class_128", 128), ("class_300", 300)]
    again = reader(classes, masks="masks")
    assert [h.labels for h in again.headers(tmp_path).headers] == [h.labels for h in scan.headers]
    mask(tmp_path / "masks" / "a.png", 0, 1, 2)
    mask(tmp_path / "masks" / "b.png", 0)
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(SIZE)).save(tmp_path / "masks" / "c.png")
    assert problems(found, tmp_path) == [
        "a: masks/a.png: holds values of 2 classes: 1, 2; expected one class in a mask, as its class is the image's",
        "b: masks/b.png: holds 0 alone, which means no class; name it in data.classes, or correct the mask",
        "c: masks/c.png: holds more than 32 values: it looks like an image or a JPG; expected one value besides 0, saved as "
        "PNG"]


def test_masks_of_one_bit_and_of_jpeg(tmp_path):
    folder(tmp_path, "a.png", "b.png", "c.jpg")
    mask(tmp_path / "masks" / "a.png", 255, mode="1")
    mask(tmp_path / "masks" / "b.png", 0, mode="1")
    rng = np.random.default_rng(0)
    noisy = np.where(np.arange(20)[:, None] < 10, 0, 255) + rng.integers(-6, 7, SIZE)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "masks" / "c.jpg", quality=95)
    assert labels(reader({"no": 0, "yes": 255}, masks="masks"), tmp_path) == {"a": "yes", "b": "no", "c": "yes"}


def test_folders_of_masks_that_are_missing(tmp_path):
    folder(tmp_path, "a.png")
    found = reader(VALUES, masks="masks")
    with pytest.raises(InputError, match=r"there is no folder masks/ \(data.reader.masks\)"):
        found.headers(tmp_path)
    mask(tmp_path / "masks" / "b.png", 128)
    with pytest.raises(InputError, match=r"masks/ .*: none of its 1 masks is that of an image; it holds masks/b.png "
                       r"\(data.reader.mask_name is '{name}'\); the images are a.png"):
        found.headers(tmp_path)


# --- new data ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("keys, classes", [({"table": "t/labels.csv"}, CLASSES), ({"labels": "folders"}, CLASSES),
                                           ({"masks": "masks"}, VALUES)])
def test_new_data_needs_no_labels(tmp_path, keys, classes):
    found = reader(classes, test_folders=["Test"], **keys)
    root = folder(tmp_path, "train/a.png", "b.png")
    for place in (root, root / "images"):
        scan = found.headers(place, labels=False, new=True)
        assert [h.case for h in scan.headers] == ["b", "a"] and not scan.problems and scan.notes == []
        assert scan.headers[0].labels == {} and {h.subset for h in scan.headers} == {""}
        assert found.read(place, scan.headers[0], labels=False).truth == {} and not found.has_truth(place, "a")
        with pytest.raises(InputError):
            found.headers(place, labels=True, new=True)


def test_new_data_with_labels(tmp_path):
    root = folder(tmp_path, "test/a.png", "test/b.png", images=".")
    write(root / "labels.csv", [["a", "brain"], ["b", "lung"]])
    scan = reader().headers(root, labels=True, new=True)  # `root` as the folder of images
    assert [(h.case, h.labels, h.subset) for h in scan.headers] == [("a", {"class": "brain"}, "")]
    assert scan.problems[0].case == "b" and reader().has_truth(root, "b") and not reader().has_truth(root, "c")


# --- keys ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("classes, keys, text", [
    (CLASSES, {"table": ""}, "data.reader: found none of table, labels and masks, expected one"),
    (CLASSES, {"table": "t.csv", "labels": "folders"}, "found table and labels, expected one"),
    (CLASSES, {"labels": "names"}, "data.reader.labels: unknown 'names'"),
    (CLASSES, {"labels": "folders", "separator": ";"}, "columns, sheet or separator with labels"),
    (CLASSES, {"masks": "masks"}, "data.classes: no mask value for brain, femur, other; say which value"),
    ({"brain": "b", "femur": 1}, {"masks": "masks"}, "data.classes.brain: found 'b', expected the mask value"),
    ({"brain": 1, "femur": [2, 1]}, {"masks": "masks"}, "data.classes.femur: 1 means brain too"),
    (VALUES, {"masks": "../m"}, "data.reader.masks.*inside the input folder"),
    (VALUES, {"masks": "m", "mask_name": "x"}, "data.reader.mask_name"),
    (VALUES, {"masks": "images"}, "another folder than the images', or a mask_name"),
    (CLASSES, {"mask_name": "seg_{name}"}, "data.reader.mask_name: .* none without masks"),
    (CLASSES, {"columns": {"class": "c"}}, "data.reader.columns: unknown 'class'"),
    (CLASSES, {"columns": {"patient": "p"}, "patient_pattern": "^(.)"}, "patient_pattern and columns.patient"),
    (CLASSES, {"columns": {"patient": "label"}}, "a column of its own for each role"),
    ({"a": True, "b": "x"}, {}, "data.classes.a: found True, expected a name"),
    ({"a": "x", "b": ["y", "X "]}, {}, "data.classes.b: 'X ' is a name of a too"),
    (CLASSES, {"tabel": "b.csv", "table": "t"}, "did you mean table"),
])
def test_keys_that_could_never_work(classes, keys, text):
    with pytest.raises(InputError, match=text):
        reader(classes, **keys)


def test_the_yaml_keys_build_it():
    values = {"reader": {"kind": "image_classes", "masks": "m", "mask_name": "{stem}.png", "images": "pictures"},
              "classes": {"a": 1, "b": [2, 3]}, "intensity": "none", "store": "uint8"}
    found = make_reader(build(Data, values, "data"))
    assert "pictures/ with images" in found.expected and "m/ with a mask for each" in found.expected


# --- real data -----------------------------------------------------------------------------------------------------

def test_the_public_planes_and_their_table():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there")
    study = load_study(str(ROOT / "studies" / "examples" / "fetal_planes.yaml"))
    found = make_reader(study.data)
    scan = found.headers(REAL)
    assert (scan.problems, scan.notes, scan.ignored, scan.unused) == ([], [], [], [])
    assert Counter(h.labels["class"] for h in scan.headers) == {
        "brain": 15, "other": 9, "thorax": 7, "cervix": 4, "femur": 3, "abdomen": 2}  # counted with cut and uniq
    assert len({h.patient for h in scan.headers}) == 36 and scan.headers[0].patient == "1600"
    case = found.read(REAL, scan.headers[0])
    assert case.frames.shape == (1, *case.header.geometry.shape) and case.truth["thorax"].all()
    assert sum(bool(value) for value in case.truth.values()) == 1
    keys = {"images": "images", "table": "labels.csv", "separator": ";"}
    brains = reader((), columns={"image": "Image_name", "label": "Brain_plane"}, patient_pattern=r"^Patient(\d+)_", **keys)
    scan = brains.headers(REAL)
    assert [*brains.find_classes(REAL, scan.headers)] == [
        "Not A Brain", "Other", "Trans-cerebellum", "Trans-thalamic", "Trans-ventricular"]
    subsets = reader(study.data.classes, columns={"image": "Image_name", "label": "Plane", "subset": "Train"}, **keys)
    assert len(subsets.headers(REAL).problems) == 40  # its Train is 0 or 1


def test_a_test_folder_without_a_train_folder_is_noted(tmp_path):
    for index, path in enumerate(("Training/cat/a.png", "Training/dog/b.png", "test/cat/c.png", "test/dog/d.png")):
        save(tmp_path / path, index)
    scan = reader(("cat", "dog"), images=".", labels="folders", table="").headers(tmp_path)
    assert any(note.startswith("there is test/ but no train/ beside it") for note in scan.notes) and len(scan.headers) == 4
    (tmp_path / "Training").rename(tmp_path / "train")
    scan = reader(("cat", "dog"), images=".", labels="folders", table="").headers(tmp_path)
    assert not any("beside it" in note for note in scan.notes)


def test_patients_of_new_images_are_read_without_labels(tmp_path):
    """A known patient must be known again: whose an image is does not hang on whether its class is written."""
    folder(tmp_path, "a.png", "b.png", "c.png", "d.png")
    found, titles = reader(columns={"patient": "ID"}), ("image", "label", "ID")

    def patients() -> dict:
        return {header.case: header.patient for header in found.headers(tmp_path, labels=False, new=True).headers}
    assert patients() == {case: case for case in "abcd"}  # no table
    write(tmp_path / "labels.csv", [("a.png", "", "S1"), ("b.png", "nonsense", "S1"), ("c.png", "brain", "")], titles)
    assert patients() == {"a": "S1", "b": "S1", "c": "c", "d": "d"}
    write(tmp_path / "labels.csv", [("a.png", "S1"), ("b.png", "S2")], ("image", "ID"))
    assert patients() == {"a": "S1", "b": "S2", "c": "c", "d": "d"}
    write(tmp_path / "labels.csv", [("a.png", "brain")])
    assert patients() == {case: case for case in "abcd"}  # no column of patients


def test_an_unknown_class_is_told_how_the_study_spells_its_own(tmp_path):
    """The study's spelling may be the wrong one."""
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "labels.csv", [("a.png", "Naevus"), ("b.png", "Seborrhoeic keratosis")])
    found = reader({"naevus": "Naevus", "keratosis": ["Seborheic keratosis", 3], "other": None})
    assert [str(problem) for problem in found.headers(tmp_path).problems] == [
        "b: labels.csv, row 3: label is 'Seborrhoeic keratosis', which is no class of the study; data.classes has naevus "
        "('Naevus'), keratosis ('Seborheic keratosis' or 3), other"]
