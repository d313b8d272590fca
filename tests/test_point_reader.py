"""The reader of images with points in them: a table with a row per image, its columns, and all that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from lib.readers import make_reader
from lib.study import Data, Folds, InputError, build

SIZE = (20, 30)  # rows, columns
POINTS = ("ofd_1", "ofd_2")
HEADER = ("image", "ofd_1_x", "ofd_1_y", "ofd_2_x", "ofd_2_y")


def save(path: Path, grey: int = 0, size=SIZE) -> Path:
    """An image of its own: `grey` in all but the first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size, grey, np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(path)
    return path


def folder(root: Path, *paths: str) -> Path:
    for index, path in enumerate(paths):
        save(root / "images" / path, index)
    return root


def write(path: Path, rows: list, header=HEADER, separator=",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".xlsx":
        book = Workbook()
        for row in [header, *rows]:
            book.active.append(list(row))
        book.save(path)
    else:
        path.write_text("\n".join(separator.join(map(str, row)) for row in [header, *rows]), encoding="utf-8")
    return path


def reader(classes=POINTS, folds=Folds(), **keys):
    return make_reader(Data(reader={"kind": "image_points", "table": "points.csv", **keys}, classes=classes, folds=folds,
                            intensity="none", store="uint8"))


def problems(found, root) -> list[str]:
    return [str(problem) for problem in found.headers(root).problems]


@pytest.mark.parametrize("file, keys", [("points.csv", {}), ("points.csv", {"separator": ";"}), ("t/points.xlsx", {})])
def test_a_row_per_image(tmp_path, file, keys):
    folder(tmp_path, "a.png", "deep/b.png", "c.png", "d.png")
    write(tmp_path / file, [["b", 1, 2.5, 29.5, 19.5], ["a.png", -0.5, -0.5, "", ""], ["c", "", "", 3, 4], ["d", "", "", "", ""]],
          separator=keys.get("separator", ","))
    found = reader(table=file, **keys)
    scan = found.headers(tmp_path)
    assert not scan.problems and scan.ignored == []
    assert {h.case: h.labels for h in scan.headers} == {
        "a": {"ofd_1": [-0.5, -0.5]}, "c": {"ofd_2": [3, 4]}, "d": {}, "b": {"ofd_1": [1, 2.5], "ofd_2": [29.5, 19.5]}}
    json.dumps(scan.headers[0].labels)
    assert scan.notes[0] == "1 image without any point, kept as such: d" and len(scan.notes) == 2
    header = scan.headers[3]
    assert header.files == {"image": "images/deep/b.png"} and header.geometry.shape == (1, *SIZE)
    assert header.geometry.source == {"format": "image"}
    case = found.read(tmp_path, header)
    assert [*case.truth] == list(POINTS) and {value.dtype for value in case.truth.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(case.truth["ofd_1"], [[1, 2.5]])  # x before y
    np.testing.assert_array_equal(found.read(tmp_path, scan.headers[0]).truth["ofd_2"], [[np.nan, np.nan]])
    assert case.frames.shape == (1, 1, *SIZE) and found.read(tmp_path, header, labels=False).truth == {}


def test_columns_and_names_as_the_study_says(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "points.csv", [["a", 1, 2, 3, 4, "P7"]], ("File", "X of brow", "Y of brow", "x of back", "y of back", "who"))
    keys = {"columns": {"image": "file", "x": "x of {point}", "y": "y of {point}", "patient": "Who"}}
    (header,) = reader({"front": "brow", "back": None}, **keys).headers(tmp_path).headers
    assert header.labels == {"front": [1, 2], "back": [3, 4]} and header.patient == "P7"
    with pytest.raises(InputError, match=r"no column 'x of top' \(data.reader.columns.x of top\), 'y of top'"):
        reader(("brow", "top"), **keys).headers(tmp_path)


def test_points_that_the_study_does_not_name_are_found(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "points.csv", [["a", 1, 2, 3, 4, 5, 9]],
          ("image", "ofd_2_x", "ofd_2_y", "Bpd 1_X", "bpd 1_y", "lonely_x", "size"))
    found = reader(())
    scan = found.headers(tmp_path)
    assert [*found.find_classes(tmp_path, scan.headers).items()] == [("ofd_2", None), ("Bpd 1", None)]  # as in the table
    assert scan.headers[0].labels == {"ofd_2": [1, 2], "Bpd 1": [3, 4]}
    write(tmp_path / "points.csv", [["a", 1, 2]], ("image", "ofd_1_x", "ofd_2_y"))
    with pytest.raises(InputError, match="data.classes: none given, and .*points.csv has no pair of columns {point}_x and "
                       "{point}_y; it has image, ofd_1_x, ofd_2_y"):
        found.headers(tmp_path)


def test_all_bad_rows_are_listed_at_once(tmp_path):
    folder(tmp_path, *(f"{letter}.png" for letter in "abcdefghi"))
    write(tmp_path / "points.csv", [
        ["a", 1, 2, 3, 4], ["b", 1, "", 3, 4], ["c", "left", "1_0", "", 4], ["d", 29.6, 2, 1, 19.75], ["e", "nan", 2, "inf", ""],
        ["", 1, 2, 3, 4], ["f", 1, 2, 3, 4], ["f.png", 1, 2, 3, 5], ["g", 1, 2, 3, 4], ["g", "1.0", 2, 3, 4], ["h", -1, 2, 3, 4],
        ["x", "bad", 2, 3, 4]])
    scan = reader().headers(tmp_path)
    outside = "is outside of its image, which has 20 x 30 pixels (rows x columns)"
    assert [str(problem) for problem in scan.problems] == [
        "points.csv, row 7: image is empty, so nobody knows whose points these are; fill it in",
        "b: points.csv, row 3: ofd_1_y is empty, but ofd_1_x is not; both are where a point is absent",
        "c: points.csv, row 4: ofd_1_x is 'left' and ofd_1_y is '1_0', expected a number of pixels; ofd_2_x is empty, but "
        "ofd_2_y is not; both are where a point is absent",
        f"d: points.csv, row 5: ofd_1 (29.6, 2) {outside}; ofd_2 (1, 19.75) {outside}",
        "e: points.csv, row 6: ofd_1_x is 'nan', expected a number of pixels; ofd_2_x is 'inf', expected a number of pixels",
        "f: points.csv, row 9: a second row of one image says something else: ofd_2 [3.0, 5.0], but ofd_2 [3.0, 4.0] in "
        "points.csv, row 8",
        f"h: points.csv, row 12: ofd_1 (-1, 2) {outside}"]
    assert [h.case for h in scan.headers] == ["a", "g"]
    assert scan.notes[:2] == ["points.csv: 1 row of 1 image that is not in images/: x",
                              "1 of 9 images has no row in points.csv and is left out: i.png"]
    assert [(p.case, p.file) for p in scan.unused] == [("", "x"), ("i", "images/i.png")]


def test_swapped_columns_are_one_error_that_says_the_columns(tmp_path):
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "points.csv", [["a", 2, 25, 3, 29], ["b", 3, 4, 5, 6]])
    with pytest.raises(InputError) as caught:
        reader().headers(tmp_path)
    assert str(caught.value) == (
        "points.csv: x and y look swapped: 2 of 4 points do not fit their images, but would with x and y exchanged; set "
        'data.reader.columns to {x: "{point}_y", y: "{point}_x"}')
    keys = {"columns": {"x": "{point}_y", "y": "{point}_x"}}
    assert reader(**keys).headers(tmp_path).headers[0].labels == {"ofd_1": [25, 2], "ofd_2": [29, 3]}
    write(tmp_path / "points.csv", [["a", 2, 25, 3, 29], ["b", 25, 4, 5, 6]])  # one that fits in this way only
    assert len(problems(reader(), tmp_path)) == 1


def test_patients_subsets_and_layouts(tmp_path):
    for index, path in enumerate(("train/images/1.png", "val/images/1.png", "test/images/2.png")):
        save(tmp_path / path, index)
    for place, name in (("train", "1"), ("val", "1"), ("test", "2")):
        write(tmp_path / place / "points.csv", [[name, 1, 2, 3, 4]])
    scan = reader().headers(tmp_path)
    assert {h.case: h.subset for h in scan.headers} == {"train-1": "train", "val-1": "validation", "2": "test"}
    assert not scan.problems and scan.ignored == []
    root = folder(tmp_path / "columns", "a.png", "b.png", "c.png")
    write(root / "points.csv", [["a", 1, 2, 3, 4, "P", "train"], ["b", 1, 2, 3, 4, "Q", "val"], ["c", 1, 2, 3, 4, "", "test"]],
          (*HEADER, "who", "set"))
    scan = reader(columns={"patient": "who", "subset": "set"}).headers(root)
    assert [(h.patient, h.subset) for h in scan.headers] == [("P", "train"), ("Q", "validation")]
    assert [str(p) for p in scan.problems] == ["c: points.csv, row 4: who is empty"]


def test_sizes_of_pixels_from_a_table(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "points.csv", [["a", 1, 2, 3, 4]])
    write(tmp_path / "mm.csv", [["a.png", 0.25]], ("image", "mm"))
    keys = {"spacing_table": {"file": "mm.csv", "name_column": "image", "spacing_column": "mm"}}
    assert reader(**keys).headers(tmp_path).headers[0].geometry.spacing_mm == (1, 0.25, 0.25)


def test_new_data_needs_no_table(tmp_path):
    found = reader()
    root = folder(tmp_path, "a.png", "b.png")
    for place in (root, root / "images"):
        scan = found.headers(place, labels=False, new=True)
        assert [h.case for h in scan.headers] == ["a", "b"] and not scan.problems and scan.notes == []
        assert scan.headers[0].labels == {} and not found.has_truth(place, "a")
        with pytest.raises(InputError, match=r"points.csv: there is no such file \(data.reader.table\)"):
            found.headers(place, labels=True, new=True)
    write(root / "points.csv", [["a", 1, 2, 3, 40]])
    fresh = reader()
    assert [h.case for h in fresh.headers(root, labels=True, new=True).headers] == []
    assert fresh.has_truth(root, "a") and not fresh.has_truth(root, "b")


@pytest.mark.parametrize("classes, keys, text", [
    (POINTS, {"table": ""}, "data.reader.table: found none"),
    (POINTS, {"columns": {"x": "x"}}, "data.reader.columns.x: found 'x', expected the name of a column with {point} in it"),
    (POINTS, {"columns": {"x": "{point}_y"}}, "a column of its own for each role"),
    (POINTS, {"columns": {"z": "{point}_z"}}, "data.reader.columns: unknown 'z'"),
    ({"a": 1, "b": "x"}, {}, "data.classes.a: found 1, expected what the table's columns call it"),
    ({"a": "x", "b": "X"}, {}, "data.classes: found .* columns of its own for each point"),
    (POINTS, {"columns": {"patient": "p"}, "patient_pattern": "^(.)"}, "patient_pattern and columns.patient"),
    (POINTS, {"masks": "m"}, "unknown key data.reader.masks"),
])
def test_keys_that_could_never_work(classes, keys, text):
    with pytest.raises(InputError, match=text):
        reader(classes, **keys)


def test_the_yaml_keys_build_it():
    values = {"reader": {"kind": "image_points", "table": "t.xlsx", "columns": {"x": "x ({point})"}}, "classes": ["a"],
              "intensity": "none", "store": "uint8"}
    found = make_reader(build(Data, values, "data"))
    assert "t.xlsx with a row for each, in columns image, x ({point}), {point}_y" in found.expected


def test_the_corner_is_no_point(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "points.csv", [["a", 0, 0, 3, 4]])
    assert ["ofd_1 is 0, 0, the corner of the image, as if it were absent" in text for text in problems(reader(), tmp_path)] == [True]
