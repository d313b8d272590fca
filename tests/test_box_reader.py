"""The reader of boxes: tables and YOLO label files, matched to images in sub-folders, and all that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook, load_workbook
from PIL import Image

from conftest import ROOT
from lib.data.case import CaseError
from lib.preparation import stop_if_bad
from lib.readers import make_reader
from lib.readers.names import some
from lib.readers.tables import SpacingTable, parse_number, read_spacings, read_table
from lib.study import Data, Folds, InputError, build

SIZE = (20, 30)  # rows, columns
HEADER = ["fname", "structure", "h_min", "w_min", "h_max", "w_max"]
CLASSES = ("palate", "nasal bone", "NT")
REAL = ROOT.parent / "shared" / "data" / "fetus_framework"


def save(path: Path, grey: int = 0, size=SIZE, **keys) -> Path:
    """An image of its own: `grey` in all but the first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size, grey, np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(path, **keys)
    return path


def folder(root: Path, *paths: str) -> Path:
    for index, path in enumerate(paths):
        save(root / "images" / path, index)
    return root


def write(path: Path, rows: list, header=HEADER, separator=",", bom="", sheet="boxes") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".xlsx":
        text = "\n".join(separator.join(map(str, row)) for row in [header, *rows])
        path.write_text(bom + text, encoding="utf-8")
        return path
    book = Workbook()
    book.active.title = sheet
    for row in [header, *rows]:
        book.active.append(list(row))
    book.save(path)
    return path


def reader(classes=CLASSES, folds=Folds(), **keys):
    keys = keys if "table" in keys or "yolo" in keys else {"table": "b.csv", **keys}
    return make_reader(Data(reader={"kind": "image_boxes", **keys}, classes=classes, folds=folds, intensity="none",
                            store="uint8"))


def boxes(found, root) -> dict[str, dict]:
    scan = found.headers(root)
    assert not scan.problems, scan.problems
    return {header.case: header.labels for header in scan.headers}


def problems(found, root) -> list[str]:
    return [str(problem) for problem in found.headers(root).problems]


# --- a table -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("file, keys, bom", [("b.csv", {}, ""), ("b.csv", {"separator": ";"}, "\ufeff"),
                                             ("t/b.tsv", {"separator": "\t"}, ""), ("b.xlsx", {}, "")])
def test_a_row_per_box(tmp_path, file, keys, bom):
    folder(tmp_path, "10.png", "9.jpg", "deep/er/2.tiff", "deep/x.bmp")
    write(tmp_path / file, [["10.png", "NT", 1, 2, 3.5, 4], ["10.png", "palate", 0, 0, 20, 30],
                            ["9.jpg", "nasal bone", 5, 6, 7, 8], ["", "", "", "", "", ""],
                            ["2.tiff", "NT", 1, 2, 3, 4], ["x.bmp", "NT", 1, 2, 3, 4]],
          separator=keys.get("separator", ","), bom=bom)
    found = reader(table=file, **keys)
    scan = found.headers(tmp_path)
    assert not scan.problems and scan.ignored == []
    assert [header.case for header in scan.headers] == ["9", "10", "x", "2"]  # natural; sub-folders last
    header = scan.headers[1]
    assert header.labels == {"palate": [0, 0, 30, 20], "NT": [2, 1, 4, 3.5]}  # x before y; the study's order
    assert [*header.labels] == ["palate", "NT"] and all(type(v) is float for v in header.labels["NT"])
    json.dumps(header.labels)
    assert header.files == {"image": "images/10.png"} and scan.headers[3].files == {"image": "images/deep/er/2.tiff"}
    assert header.geometry.shape == (1, *SIZE) and header.geometry.flat and header.geometry.spacing_mm is None
    assert header.geometry.source == {"format": "image"}
    assert (header.channels, header.patient, header.subset) == (1, "10", "")
    case = found.read(tmp_path, header)
    assert case.frames.dtype == np.uint8 and case.frames.shape == (1, 1, *SIZE) and case.frames[0, 0, 0, 0] == 255
    assert [*case.truth] == list(CLASSES) and {v.dtype for v in case.truth.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(case.truth["NT"], [[2, 1, 4, 3.5]])
    np.testing.assert_array_equal(case.truth["nasal bone"], [[np.nan] * 4])
    assert found.read(tmp_path, header, labels=False).truth == {}


def test_columns_by_role_and_without_regard_to_blanks_and_case(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4]], ["Image ", "STRUCTURE", "x1", " x2", "H_MIN", "h_max"])
    keys = {"file": "image", "x_min": "x1", "x_max": "x2"}
    assert boxes(reader(columns=keys), tmp_path) == {"a": {"NT": [1, 3, 2, 4]}}
    write(tmp_path / "b.csv", [["no.png", "a.png", "NT", 1, 2, 3, 4]], ["Fname", *HEADER])
    assert boxes(reader(), tmp_path) == {"a": {"NT": [2, 1, 4, 3]}}  # the exact name first
    write(tmp_path / "b.csv", [["a.png", "a.png", "NT", 1, 2, 3, 4]], ["Fname", "FNAME", *HEADER[1:]])
    with pytest.raises(InputError, match=r"b.csv: 2 columns are called 'fname' \(data.reader.columns.file\)"):
        reader().headers(tmp_path)


def test_structures_are_matched_by_their_words(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "b.csv", [["a.png", " PALATE", 1, 2, 3, 4], ["a.png", "Nasal   bone", 2, 3, 4, 5]])
    assert boxes(reader(), tmp_path)["a"] == {"palate": [2, 1, 4, 3], "nasal bone": [3, 2, 5, 4]}
    other = reader({"roof": ["palate", "hard palate"], "nose": "nasal BONE", "NT": None})
    assert boxes(other, tmp_path)["a"] == {"roof": [2, 1, 4, 3], "nose": [3, 2, 5, 4]}


def test_a_sheet_by_its_name_and_the_cells_of_programs_that_lie_about_their_number(tmp_path):
    folder(tmp_path, "168.png")
    book = Workbook()
    book.active.title = "Read me"
    book.active.append(["about these boxes"])
    sheet = book.create_sheet(" Boxes")
    for row in ([], HEADER, [168.0, "NT", 1, 2, 3, 4]):  # a blank row first, a name that became a number
        sheet.append(row)
    book.save(tmp_path / "b.xlsx")
    assert boxes(reader(table="b.xlsx", sheet="boxes"), tmp_path) == {"168": {"NT": [2, 1, 4, 3]}}
    with pytest.raises(InputError, match="b.xlsx: there is no sheet 'x'; it has Read me,  Boxes"):
        reader(table="b.xlsx", sheet="x").headers(tmp_path)
    with pytest.raises(InputError, match="b.xlsx: sheet Read me has no rows below the names of its columns"):
        reader(table="b.xlsx").headers(tmp_path)


# --- names of images -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["Scan1.PNG", "scan1.png", "Scan1", "SCAN1", "Set 2/Test/Scan1.PNG",
                                  "Set 2\\Test\\Scan1", "images/Set 2/Test/scan1.png", "./Set 2/Test/Scan1.PNG",
                                  "set 2/test/scan1"])
def test_what_a_table_may_call_an_image(tmp_path, name):
    folder(tmp_path, "Set 2/Test/Scan1.PNG", "Set 2/other.png")
    write(tmp_path / "b.csv", [[name, "NT", 1, 2, 3, 4]])
    assert boxes(reader(), tmp_path) == {"Scan1": {"NT": [2, 1, 4, 3]}}


@pytest.mark.parametrize("name", ["scan1.jpg", "Test/Scan1.PNG", "Set 2/Scan1.PNG", "Scan1.PNG.png", "Scan"])
def test_what_it_may_not(tmp_path, name):
    folder(tmp_path, "Set 2/Test/Scan1.PNG")
    write(tmp_path / "b.csv", [[name, "NT", 1, 2, 3, 4]])
    with pytest.raises(InputError, match=r"b.csv: none of its 1 rows names an image that is there "
                       r"\(data.reader.columns.file is 'fname'\); it names .*; the images are Set 2/Test/Scan1.PNG"):
        reader().headers(tmp_path)


def test_exact_names_win_and_others_must_be_clear(tmp_path):
    folder(tmp_path, "a.png", "A.png", "c.d.png", "c.png")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4], ["A", "NT", 2, 2, 3, 4], ["c.d", "NT", 1, 1, 9, 9]])
    assert boxes(reader(), tmp_path) == {"a": {"NT": [2, 1, 4, 3]}, "A": {"NT": [2, 2, 4, 3]},
                                         "c.d": {"NT": [1, 1, 9, 9]}}
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4], ["a.PNG", "palate", 2, 2, 3, 4], ["c", "NT", 1, 1, 9, 9]])
    scan = reader().headers(tmp_path)
    assert [header.case for header in scan.headers] == ["c"]  # a and A may lack their palate
    assert [str(p) for p in scan.problems] == ["a: b.csv, row 3: fname is 'a.PNG', which may mean A.png and a.png"]


@pytest.mark.parametrize("name", ["../a.png", "images/../../a.png", "/data/a.png", "C:\\data\\a.png", "C:a.png",
                                  "..\\a.png", "\\\\server\\a.png"])
def test_names_that_leave_the_data_folder_are_refused(tmp_path, name):
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "b.csv", [[name, "NT", 1, 2, 3, 4], ["b.png", "NT", 1, 2, 3, 4]])
    scan = reader().headers(tmp_path)
    (problem,) = scan.problems
    assert problem.file == "b.csv, row 2" and problem.reason == (
        f"fname is {name!r}, which leaves the data folder; expected a file name, or a path inside the folder")
    assert [header.case for header in scan.headers] == ["b"]


def test_rows_without_an_image_and_images_without_a_row_are_said(tmp_path):
    folder(tmp_path, *(f"{n}.png" for n in range(1, 13)), "in.png")
    rows = [[f"x{n}.png", "NT", 1, 2, 3, 4] for n in range(12)] + [["x3.png", "palate", "bad", 2, 3, 4]]
    write(tmp_path / "b.csv", [*rows, ["in.png", "NT", 1, 2, 3, 4]])
    scan = reader().headers(tmp_path)
    assert [header.case for header in scan.headers] == ["in"] and not scan.problems
    assert scan.notes[:2] == [
        "b.csv: 13 rows of 12 images that are not in images/: x0.png, x1.png, x2.png, x3.png, x4.png, x5.png, x6.png, "
        "x7.png, x8.png, x9.png and 2 more",
        "12 of 13 images have no box in b.csv and are left out: 1.png, 2.png, 3.png, 4.png, 5.png, 6.png, 7.png, "
        "8.png, 9.png, 10.png and 2 more"]
    assert scan.notes[2].startswith("no patient_pattern: each image")
    assert reader().has_truth(tmp_path, "in") and not reader().has_truth(tmp_path, "1")


def test_a_single_one_is_said_in_the_singular(tmp_path):
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4], ["c.png", "NT", 1, 2, 3, 4]])
    assert reader(patient_pattern="(.)").headers(tmp_path).notes == [
        "b.csv: 1 row of 1 image that is not in images/: c.png",
        "1 of 2 images has no box in b.csv and is left out: b.png"]
    assert some("abc", 2) == "a, b and 1 more" and some("ab", 2) == "a, b"


# --- bad rows ------------------------------------------------------------------------------------------------------

BAD = [["a.png", "NT", 1, 2, 3, 4], ["b.png", "NT", "", 2, 3, 4], ["c.png", "palate", "", 2, 3, ""],
       ["d.png", "", 1, 2, 3, 4], ["e.png", "NT", "1_0", "left", 3, 4], ["f.png", "NT", "nan", 2, 3, "inf"],
       ["g.png", "NT", 3, 2, 3, 4], ["h.png", "NT", 1, 4.5, 3, 4], ["i.png", "NT", -3, 2, 3, 4],
       ["j.png", "NT", 1, -0.5, 20.25, 30.75], ["k.png", "NT", 1, 2, 3, 4], ["k.png", "palate", 1, 2, 3, 4],
       ["k.png", " nt ", 1, 2, 3, 5], ["", "NT", 1, 2, 3, 4], ["l.png", "NT", 0, 0, 20, 30],
       ["m.png", "NT", 1, 29, 3, 31], ["n.png", "NT", 1, 2, 3, 4], ["n.png", "palate", 1, 2, 3, "4,0 px"]]
WHERE = "its image, which has 20 x 30 pixels (rows x columns)"
REASONS = [("b", 3, "NT: h_min is empty"), ("c", 4, "palate: h_min and w_max are empty"),
           ("d", 5, "structure is empty"),
           ("e", 6, "NT: w_min is 'left' and h_min is '1_0', expected a number of pixels"),
           ("f", 7, "NT: h_min is 'nan' and w_max is 'inf', expected a number of pixels"),
           ("g", 8, "NT: h_min 3 is not below h_max 3"), ("h", 9, "NT: w_min 4.5 is not below w_max 4"),
           ("i", 10, f"NT: reaches 3 px beyond the top edge of {WHERE}"),
           ("j", 11, "NT: reaches 0.5 px beyond the left edge and 0.75 px beyond the right edge and 0.25 px beyond the "
                     f"bottom edge of {WHERE}"),
           ("k", 14, "NT: a second box in one image; the first is in b.xlsx, sheet boxes, row 12"),
           ("", 15, "fname is empty, so nobody knows whose box it is; fill it in (of merged cells the first row alone has it)"),
           ("m", 17, f"NT: reaches 1 px beyond the right edge of {WHERE}"),
           ("n", 19, "palate: w_max is '4,0 px', expected a number of pixels")]


def test_all_bad_rows_are_listed_at_once_with_their_sheet_and_number(tmp_path):
    folder(tmp_path, *(f"{letter}.png" for letter in "abcdefghijklmn"))
    write(tmp_path / "b.xlsx", BAD)
    scan = reader(table="b.xlsx").headers(tmp_path)
    assert {str(problem) for problem in scan.problems} == {
        f"{case}{': ' * bool(case)}b.xlsx, sheet boxes, row {row}: {reason}" for case, row, reason in REASONS}
    assert len(scan.problems) == len(REASONS)
    assert {header.case: header.labels for header in scan.headers} == {  # k and n are left out, whole
        "a": {"NT": [2, 1, 4, 3]}, "l": {"NT": [0, 0, 30, 20]}}
    assert not any("no box" in note for note in scan.notes)


def test_bad_rows_of_a_csv_have_its_row_number_blank_lines_counted(tmp_path):
    folder(tmp_path, "a.png")
    (tmp_path / "b.csv").write_text("\n" + ",".join(HEADER) + "\n\na.png,NT,1,2,x,4\n")
    assert problems(reader(), tmp_path) == ["a: b.csv, row 4: NT: h_max is 'x', expected a number of pixels"]


def test_bad_images_are_listed_with_bad_rows(tmp_path):
    folder(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "images" / "a.png").write_text("a letter")
    (tmp_path / "images" / "c.png").write_text("a letter that no row names")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 300, 4], ["a.png", "palate", 1, "", 3, 4],
                               ["b.png", "NT", 3, 2, 1, 4]])
    assert problems(reader(), tmp_path) == [
        "a: images/a.png: is no PNG, JPEG, TIFF or BMP image", "a: b.csv, row 3: palate: w_min is empty",
        "b: b.csv, row 4: NT: h_min 3 is not below h_max 1"]


def test_unknown_structures_are_one_error_with_all_their_rows(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "b.xlsx", [["a.png", "NT", 1, 2, 3, 4], ["a.png", "IT", 1, 2, 3, 4], ["a.png", "chin", 1, 2, 3, 4],
                                ["not there.png", "IT", 1, 2, 3, 4], ["a.png", "palate", "", 2, 3, 4]])
    with pytest.raises(InputError) as caught:
        reader(table="b.xlsx").headers(tmp_path)
    assert str(caught.value) == (
        "b.xlsx, sheet boxes: structures that the study does not know:\n  'IT' in rows 3, 5\n  'chin' in row 4\n"
        "It knows palate, nasal bone, NT. Add them to data.classes, as other spellings too, such as classes: "
        "{palate: [palate, IT]}, or correct the rows")


def test_most_boxes_swapped_is_one_error_that_says_the_columns(tmp_path):
    folder(tmp_path, "a.png", "b.png", "c.png")
    rows = [["a.png", "NT", 22, 3, 28, 9], ["b.png", "NT", 21, 3, 29, 9], ["c.png", "NT", 1, 2, 3, 4]]
    write(tmp_path / "b.csv", rows)
    with pytest.raises(InputError) as caught:
        reader().headers(tmp_path)
    text = ("b.csv: x and y look swapped: 2 of 3 boxes do not fit their images, but would with x and y exchanged; set "
            "data.reader.columns to {x_min: h_min, y_min: w_min, x_max: h_max, y_max: w_max}")
    assert str(caught.value) == text
    keys = dict(pair.split(": ") for pair in text.split("{")[1][:-1].split(", "))
    assert boxes(reader(columns=keys), tmp_path)["a"] == {"NT": [22, 3, 28, 9]}
    write(tmp_path / "b.csv", [*rows, ["b.png", "palate", 3, 22, 9, 28]])  # one that fits in this way only
    assert len(problems(reader(), tmp_path)) == 2


# --- tables that cannot be read ------------------------------------------------------------------------------------

def test_missing_columns_are_named_beside_those_that_are_there(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "b.csv", [["a.png", 1]], ["name", "structure;x", ""])
    with pytest.raises(InputError, match=r"b.csv: there is no column 'fname' \(data.reader.columns.file\), 'structure' "
                       r"\(.*\.structure\), 'w_min' .*'h_max' .*; it has name, structure;x, separated by ','$"):
        reader().headers(tmp_path)
    write(tmp_path / "b.xlsx", [["a.png", "NT", 1, 2, 3]], HEADER[:-1])
    with pytest.raises(InputError, match=r"no column 'w_max' \(data.reader.columns.x_max\); it has fname, .*, h_max$"):
        reader(table="b.xlsx").headers(tmp_path)


@pytest.mark.parametrize("file, content, text", [
    ("b.csv", None, r"b.csv: there is no such file \(data.reader.table\)"),
    ("b.xlsx", None, r"b.xlsx: there is no such file \(data.reader.table\)"),
    ("b.xlsx", b"", r"cannot be read as a table .*; expected CSV in UTF-8, or XLSX"),
    ("b.xlsx", b"fname,structure\n", r"cannot be read as a table \(File is not a zip file\)"),
    ("b.xlsx", b"PK\x03\x04 and then nothing", "cannot be read as a table"),
    ("b.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
     "b.xlsx: is encrypted, or an old .xls workbook; .* as .xlsx"),
    ("b.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "b.xls: is encrypted, or an old .xls workbook"),
    ("b.csv", b"PK\x03\x04", "b.csv: is a workbook or an archive, no CSV; name a workbook .xlsx"),
    ("b.csv", b"", r"b.csv: is empty \(data.reader.table\)"),
    ("b.csv", b"\xef\xbb\xbf\n , \n", "b.csv: is empty"),
    ("b.csv", ",".join(HEADER).encode(), "b.csv: has no rows below the names of its columns"),
    ("b.csv", "fname\nbl\u00e4.png".encode("latin-1"), "cannot be read as a table .*UTF-8"),
    ("b.csv", b'fname,x\na,"b\nc,d\n', "cannot be read as a table .*unexpected end of data"),
    ("b.csv", b"fname,x\na,1\nb,1,5\nc,0,5\n",
     r"b.csv: row 3, 4: more cells than the 2 columns, separated by ','; put"),
])
def test_tables_that_cannot_be_read(tmp_path, file, content, text):
    folder(tmp_path, "a.png")
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=text):
        reader(table=file).headers(tmp_path)


def test_an_empty_workbook(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "b.xlsx", [], [])
    with pytest.raises(InputError, match="b.xlsx: sheet boxes is empty"):
        reader(table="b.xlsx").headers(tmp_path)


def test_a_workbook_that_states_wrong_dimensions_is_read_whole(tmp_path):
    import zipfile
    write(tmp_path / "whole.xlsx", [[f"{n}.png", "NT", 1, 2, 3, 4] for n in range(5)])
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as old, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("sheet1.xml"):
                assert b'ref="A1:F6"' in content
                content = content.replace(b'ref="A1:F6"', b'ref="A1"')
            new.writestr(name, content)
    table = read_table(tmp_path, "b.xlsx", "key")
    assert len(table.rows) == 5 and len(table.header) == 6 and table.row(3) == "b.xlsx, sheet boxes, row 3"
    assert [row for row, _ in table.rows] == [2, 3, 4, 5, 6]


def test_spacings_are_read_by_the_same_tables(tmp_path):
    write(tmp_path / "t.csv", [["a.png", "0,5"], ["b", 2]], ["Name", "mm"], ";")
    table = SpacingTable("t.csv", "name", "MM", separator=";")
    assert read_spacings(tmp_path, table, (".png",)) == {"a": (0.5, 0.5), "b": (2.0, 2.0)}
    folder(tmp_path, "a.png", "b.png", "c.png")
    write(tmp_path / "b.csv", [[f"{name}.png", "NT", 1, 2, 3, 4] for name in "abc"])
    found = reader(spacing_table={"file": "t.csv", "name_column": "name", "spacing_column": "mm", "separator": ";"})
    scan = found.headers(tmp_path)
    assert {h.case: h.geometry.spacing_mm for h in scan.headers} == {"a": (1, 0.5, 0.5), "b": (1, 2, 2)}
    assert [str(p) for p in scan.problems] == ["c: images/c.png: has no row in t.csv"] and scan.ignored == []
    (tmp_path / "t.csv").unlink()
    scan = found.headers(tmp_path, labels=False)
    assert scan.headers[0].geometry.spacing_mm is None and "t.csv is not in" in scan.notes[0]
    assert reader(pixels_per_mm=4).headers(tmp_path).headers[0].geometry.spacing_mm == (1, 0.25, 0.25)


# --- folders -------------------------------------------------------------------------------------------------------

def test_test_folders_are_external(tmp_path):
    names = ["a.png", "Set1/b.png", "Set2/Test/c.png", "Set2/Test/deeper/d.png", "Set2/e.png", "Test/f.png",
             "Set2/Tests/g.png"]
    folder(tmp_path, *names)
    write(tmp_path / "b.csv", [[name, "NT", 1, 2, 3, 4] for name in names])
    for folds in (Folds(), Folds(pool=True)):
        scan = reader(test_folders=["Set2/Test/", "Test"], folds=folds).headers(tmp_path)
        assert {h.case: h.subset for h in scan.headers} == {
            **dict.fromkeys("abeg", ""), **dict.fromkeys("cdf", "external")}
    with pytest.raises(InputError, match="there is no folder images/test3/; images/ holds Set1, Set2, Test$"):
        reader(test_folders=["test3"]).headers(tmp_path)


@pytest.mark.parametrize("train, val", [("train", "val"), ("Train", "Valid"), ("TRAIN", "validation")])
def test_subsets_of_the_raw_data(tmp_path, train, val):
    names = [f"{train}/a.png", f"{train}/site/b.png", f"{val}/c.png", "test/d.png", "test/far/e.png", "more/Test/f.png"]
    folder(tmp_path, *names)
    write(tmp_path / "b.csv", [[name, "NT", 1, 2, 3, 4] for name in names])
    keys = {"test_folders": ["more", "test/far"]}  # named, they win
    found = {h.case: h.subset for h in reader(**keys).headers(tmp_path).headers}
    assert found == {"a": "train", "b": "train", "c": "validation", "d": "test", "e": "external", "f": "external"}
    pooled = {h.case: h.subset for h in reader(folds=Folds(pool=True), **keys).headers(tmp_path).headers}
    assert pooled == {**dict.fromkeys("abcd", ""), "e": "external", "f": "external"}
    with pytest.raises(InputError, match="1 of 6 images lie beside the train, .*: images/more/Test/f.png"):
        reader().headers(tmp_path)
    assert {h.subset for h in reader().headers(tmp_path, labels=False).headers} == {""}
    assert {h.subset for h in reader().headers(tmp_path, new=True).headers} == {""}


def test_without_a_train_folder_folders_mean_nothing(tmp_path):
    folder(tmp_path, "TrainVal/a.png", "test/b.png")
    write(tmp_path / "b.csv", [[name, "NT", 1, 2, 3, 4] for name in "ab"])
    assert {h.subset for h in reader().headers(tmp_path).headers} == {""}


def test_a_name_found_twice_is_a_problem_that_names_both(tmp_path):
    folder(tmp_path, "one/a.png", "two/a.png", "b.png", "one/b.jpg", "c.png")
    write(tmp_path / "b.csv", [["one/a.png", "NT", 1, 2, 3, 4], ["b.jpg", "NT", 1, 2, 3, 4], ["c", "NT", 1, 2, 3, 4]])
    for labels in (True, False):
        scan = reader().headers(tmp_path, labels)
        assert [header.case for header in scan.headers] == ["c"]
        assert {str(problem) for problem in scan.problems} == {
            f"{case}: images/{one}: images/{two} has the same name and other content, and both would be one case; "
            "rename or remove one" for case, one, two in (("a", "one/a.png", "two/a.png"), ("b", "b.png", "one/b.jpg"))}
        assert len(scan.problems) == 2


@pytest.mark.parametrize("keys, stays, subset", [({"test_folders": ["held out"]}, "held out/a.png", "external"),
                                                 ({"test_folders": ["train"]}, "train/a.png", "external"),
                                                 ({}, "test/a.png", "test")])
def test_of_identical_images_the_tested_one_stays(tmp_path, keys, stays, subset):
    for path in ("train/a.png", "val/a.png", "held out/a.png", "test/a.png"):
        save(tmp_path / "images" / path)
    folder(tmp_path, "val/x.png", "train/y.png")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4], ["x", "NT", 1, 2, 3, 4]])
    scan = reader(**keys).headers(tmp_path)
    assert {h.case: (h.files["image"], h.subset) for h in scan.headers} == {
        "a": (f"images/{stays}", subset), "x": ("images/val/x.png", "validation")} and not scan.problems
    (note,) = [note for note in scan.notes if "copies" in note]
    assert note.startswith("1 image with copies, of each of which one is used (that in a test folder, if one is): "
                           f"{stays} = ") and note.count(" = ") == 3


def test_rows_of_two_copies_may_say_the_same(tmp_path):
    for path in ("one/a.png", "two/a.png"):
        save(tmp_path / "images" / path)
    rows = [["one/a.png", "NT", 1, 2, 3, 4], ["two/a.png", "NT", 1, 2, 3, 4], ["two/a.png", "palate", 1, 2, 3, 4]]
    write(tmp_path / "b.csv", rows)
    assert boxes(reader(), tmp_path) == {"a": {"palate": [2, 1, 4, 3], "NT": [2, 1, 4, 3]}}
    rows[1][-1] = 5
    write(tmp_path / "b.csv", rows)
    assert problems(reader(), tmp_path) == [
        "a: b.csv, row 3: NT: a second box in one image; the first is in b.csv, row 2"]


def test_what_is_not_the_studys_is_ignored_and_links_are_followed_once(tmp_path):
    folder(tmp_path / "in", "a.png", "deep/.hidden.png", ".trash/b.png")
    (tmp_path / "in/images/deep/notes.txt").write_text("?")
    save(tmp_path / "elsewhere" / "c.png", 9)
    (tmp_path / "in/images/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/images/deep/loop").symlink_to(tmp_path / "in/images")
    (tmp_path / "in/readme").write_text("?")
    write(tmp_path / "in/b.csv", [["a.png", "NT", 1, 2, 3, 4], ["link/c.png", "NT", 1, 2, 3, 4]])
    scan = reader().headers(tmp_path / "in")
    assert [h.files["image"] for h in scan.headers] == ["images/a.png", "images/link/c.png"] and not scan.problems
    assert set(scan.ignored) == {"readme", "images/.trash", "images/deep/.hidden.png", "images/deep/notes.txt"}


def test_images_and_table_in_the_input_folder_itself(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4]])
    scan = reader(images=".").headers(tmp_path)
    assert scan.headers[0].files == {"image": "a.png"} and scan.ignored == ["labels/a.txt"]
    scan = reader(images=".", yolo="labels").headers(tmp_path)
    assert scan.headers[0].labels == {"palate": [7.5, 5, 22.5, 15]} and scan.ignored == ["b.csv"]


def test_names_that_no_table_could_hold(tmp_path):
    folder(tmp_path, " a.png", "line\nbreak/c.png", "d.png")
    write(tmp_path / "b.csv", [["d.png", "NT", 1, 2, 3, 4]])
    scan = reader().headers(tmp_path, labels=False)
    assert [h.case for h in scan.headers] == ["d"] and {str(p) for p in scan.problems} == {
        "a: the file's name begins or ends with a blank; rename it",
        "c: its folder's name holds line breaks, or bytes that are not UTF-8; rename it"}


def test_patients_by_a_pattern_on_the_file_name(tmp_path):
    folder(tmp_path, "x/P1_a.png", "y/P1_b.png", "P2_a.png", "other.png")
    write(tmp_path / "b.csv", [[name, "NT", 1, 2, 3, 4] for name in ("P1_a", "P1_b", "P2_a", "other")])
    scan = reader(patient_pattern="^(P[0-9]+)_").headers(tmp_path)
    assert {h.case: h.patient for h in scan.headers} == {"P1_a": "P1", "P1_b": "P1", "P2_a": "P2"} and scan.notes == []
    assert "other: its name does not match" in str(scan.problems[0])
    with pytest.raises(InputError, match="finds a patient in none of 4 file names"):
        reader(patient_pattern="^Q").headers(tmp_path)


def test_conversions_are_said_for_the_images_in_use(tmp_path):
    for name in "ab":
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8) + np.uint8(ord(name))).save(
            folder(tmp_path, "z.png") / "images" / f"{name}.png")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4]])
    assert "1 image with colours: turned grey (channels: 3 would keep them)" in reader().headers(tmp_path).notes
    found = reader(channels=3)
    scan = found.headers(tmp_path)
    assert found.channel_names == ("red", "green", "blue") and not any("colours" in note for note in scan.notes)
    assert found.read(tmp_path, scan.headers[0]).frames.shape == (3, 1, *SIZE)


def test_an_image_that_breaks_after_its_header_was_read_is_named(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4]])
    found = reader()
    (header,) = found.headers(tmp_path).headers
    path = tmp_path / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CaseError) as caught:
        found.read(tmp_path, header)
    assert str(caught.value.problem) == "a: images/a.png: is truncated or damaged; copy the file again"


# --- YOLO label files ----------------------------------------------------------------------------------------------

def labels(root: Path, files: dict[str, str], place="labels") -> Path:
    for name, text in files.items():
        path = root / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_label_files_mirror_the_images(tmp_path):
    folder(tmp_path, "train/1.png", "val/2.jpg", "val/3.png", "val/4.png", "val/no.png", "test/deep/5.tif")
    labels(tmp_path, {"train/1.txt": "2 0.5 0.5 0.5 0.5\n\n0 0.25 0.2 0.1 0.4", "val/2.txt": "1.0 .5 .5 1 1\n",
                      "val/3.txt": "", "val/4.txt": " \n", "test/deep/5.txt": "\ufeff0 0.2 0.3 0.4 0.6",
                      "train/2.txt": "0 .5 .5 .1 .1", "lost.txt": "", "classes.txt": "palate\nNasal bone\nNT\n",
                      "notes.doc": "?"})
    found = reader(yolo="labels")
    scan = found.headers(tmp_path)
    assert not scan.problems and scan.ignored == []
    assert {h.case: h.subset for h in scan.headers} == {"1": "train", "2": "validation", "5": "test"}
    by_case = {h.case: h.labels for h in scan.headers}
    assert by_case["2"] == {"nasal bone": [0, 0, 30, 20]}
    assert by_case["1"]["NT"] == [7.5, 5, 22.5, 15] and by_case["1"]["palate"] == pytest.approx([6, 0, 9, 8])
    assert by_case["5"]["palate"] == pytest.approx([0, 0, 12, 12])
    assert scan.notes[:2] == ["labels/: 2 label files without an image in images/: lost.txt, train/2.txt",
                              "3 of 6 images have no box in labels/ and are left out: val/3.png, val/4.png, val/no.png"]
    assert found.has_truth(tmp_path, "1") and not found.has_truth(tmp_path, "3")
    case = found.read(tmp_path, next(header for header in scan.headers if header.case == "1"))
    np.testing.assert_array_equal(case.truth["NT"], [[7.5, 5, 22.5, 15]])


def test_label_files_beside_their_images(tmp_path):
    folder(tmp_path, "train/1.png")
    labels(tmp_path, {"train/1.txt": "2 0.5 0.5 0.5 0.5"}, "images")
    scan = reader(yolo="images").headers(tmp_path)
    assert scan.headers[0].labels == {"NT": [7.5, 5, 22.5, 15]} and scan.ignored == []


@pytest.mark.parametrize("line, reason", [
    ("3 .5 .5 .1 .1", "class 3; expected 0 to 2, the place in data.classes"),
    ("-1 .5 .5 .1 .1", "class -1; expected 0 to 2, the place in data.classes"),
    ("0.5 .5 .5 .1 .1", "class 0.5; expected 0 to 2, the place in data.classes"),
    ("NT .5 .5 .1 .1", "'NT': expected numbers"), ("0 .5 nan .1 x", "'nan' and 'x': expected numbers"),
    ("0 .5 .5 .1", "4 numbers; expected class, centre x, centre y, width, height"),
    ("0 .5 .5 .1 .1 .9", "6 numbers (a sixth is a confidence: these are predictions, no truth); expected class, "
                         "centre x, centre y, width, height"),
    ("0 .5 .5 0 .1", "palate: width 0, expected above 0"), ("0 .5 .5 .1 -.2", "palate: height -0.2, expected above 0"),
    ("0 1.0 .5 .1 .1", f"palate: reaches 1.5 px beyond the right edge of {WHERE}"),
    ("0 .5 .05 .1 .2", f"palate: reaches 1 px beyond the top edge of {WHERE}"),
    ("0 15 10 4 4", "palate: reaches 480 px beyond the right edge and 220 px beyond the bottom edge of " + WHERE),
    ("1 .6 .5 .1 .1", "nasal bone: a second box in one image; the first is in labels/1.txt, line 1"),
])
def test_bad_lines_are_listed(tmp_path, line, reason):
    folder(tmp_path, "1.png", "2.png", "3.png")
    labels(tmp_path, {"1.txt": f"1 .5 .5 .1 .1\n\n{line}\n", "2.txt": "0 1 2 3", "3.txt": "0 .5 .5 .1 .1"})
    scan = reader(yolo="labels").headers(tmp_path)
    assert [h.case for h in scan.headers] == ["3"] and len(scan.problems) == 2
    assert str(scan.problems[0]) == f"1: labels/1.txt, line 3: {reason}"


def test_rounding_of_a_share_is_clipped(tmp_path):
    folder(tmp_path, "1.png", "2.png")
    labels(tmp_path, {"1.txt": "0 0.0999995 0.9000005 0.2 0.2", "2.txt": "0 0.09999 0.5 0.2 0.2"})
    scan = reader(yolo="labels").headers(tmp_path)
    box = scan.headers[0].labels["palate"]
    assert [h.case for h in scan.headers] == ["1"] and box[0] == 0 and box[3] == 20
    assert "0.0003 px beyond the left edge" in str(scan.problems[0])


def test_label_files_that_cannot_be_read_or_belong_to_nothing(tmp_path):
    folder(tmp_path, "1.png", "2.png")
    with pytest.raises(InputError, match=r"there is no folder labels/ \(data.reader.yolo\)"):
        reader(yolo="labels").headers(tmp_path)
    labels(tmp_path, {"x.txt": "0 .5 .5 .1 .1"})
    with pytest.raises(InputError, match=r"labels/ \(data.reader.yolo\): none of its 1 label files is named as an "
                                         "image; it holds x.txt; the images are 1.png, 2.png"):
        reader(yolo="labels").headers(tmp_path)
    labels(tmp_path, {"2.txt": "0 .5 .5 .1 .1"})
    (tmp_path / "labels" / "1.txt").write_bytes(b"\xff\xfe0")
    assert problems(reader(yolo="labels"), tmp_path) == ["1: labels/1.txt: cannot be read as text"]
    labels(tmp_path, {"classes.txt": "NT\npalate\nnasal bone"})
    with pytest.raises(InputError, match="classes.txt: lists NT, palate, nasal bone, but data.classes palate, .*, NT"):
        reader(yolo="labels").headers(tmp_path)


@pytest.mark.parametrize("names, text", [
    ("[palate, Nasal  bone, NT]", ""), ("{0: palate, 2: NT, 1: nasal bone}", ""),
    ("[NT, palate, nasal bone]", "data.yaml: lists NT, palate, nasal bone, but data.classes palate, nasal bone, NT"),
    ("7", "data.yaml: holds no `names`")])
def test_the_order_in_a_data_yaml_has_to_be_the_studys(tmp_path, names, text):
    folder(tmp_path, "1.png")
    labels(tmp_path, {"1.txt": "0 .5 .5 .1 .1"})
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {names}\n")
    if not text:
        assert not reader(yolo="labels").headers(tmp_path).problems
        return
    with pytest.raises(InputError, match=text):
        reader(yolo="labels").headers(tmp_path)


def test_what_is_not_used_is_listed_whole(tmp_path):
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4], *[[f"gone{i}.png", "NT", 1, 2, 3, 4] for i in range(12)]])
    unused = reader().headers(tmp_path).unused
    assert [(p.case, p.file) for p in unused] == [*[("", f"gone{i}.png") for i in range(12)], ("b", "images/b.png")]
    assert unused[0].reason == "is named in b.csv, but there is no such image" and unused[-1].reason == "has no box"


def test_a_row_without_a_name_cannot_be_left_out(tmp_path):
    """As of merged cells: nobody knows whose box it is, so no image can be trusted to be whole."""
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "b.xlsx", [["a.png", "NT", 1, 2, 3, 4], [None, "palate", 1, 2, 3, 4], ["b.png", "NT", 3, 2, 1, 4]])
    problems = reader(table="b.xlsx").headers(tmp_path).problems
    with pytest.raises(InputError, match="2 cases cannot be used.*\\n  b.xlsx, sheet boxes, row 3: fname is empty"):
        stop_if_bad(problems, skip_bad=False)
    with pytest.raises(InputError) as caught:
        stop_if_bad(problems, skip_bad=True)
    assert "nobody knows the case" in str(caught.value) and "row 4" not in str(caught.value)
    stop_if_bad([problem for problem in problems if problem.case], skip_bad=True)


def test_formulas_without_values_and_hidden_sheets(tmp_path):
    folder(tmp_path, "a.png")
    path = write(tmp_path / "b.xlsx", [["a.png", "NT", 1, 2, 3, 4], ["=raw!A1", "=raw!B1", "=raw!C1", "=raw!D1", 3, 4]])
    with pytest.raises(InputError, match="sheet boxes, row 3: the formula '=raw!A1' has no stored value"):
        reader(table="b.xlsx").headers(tmp_path)
    write(path, [["a.png", "NT", 1, 2, 3, 4]], sheet="old")
    book = load_workbook(path)
    book["old"].sheet_state = "hidden"
    new = book.create_sheet("new")
    for row in [HEADER, ["a.png", "palate", 5, 6, 7, 8]]:
        new.append(row)
    book.save(path)
    assert boxes(reader(table="b.xlsx"), tmp_path) == {"a": {"palate": [6, 5, 8, 7]}}
    assert boxes(reader(table="b.xlsx", sheet="old"), tmp_path) == {"a": {"NT": [2, 1, 4, 3]}}


def test_links_take_no_image_out_of_its_subset(tmp_path):
    root = folder(tmp_path / "one", "Test/a.png", "TrainVal/b.png")
    write(root / "b.csv", [["a.png", "NT", 1, 2, 3, 4], ["b.png", "NT", 1, 2, 3, 4]])
    (root / "images" / "All").symlink_to("Test")
    assert {h.case: h.subset for h in reader(test_folders=["Test"]).headers(root).headers} == {"a": "external", "b": ""}
    root = folder(tmp_path / "two", "train/a.png", "val/b.png")
    write(root / "b.csv", [["a.png", "NT", 1, 2, 3, 4], ["b.png", "NT", 1, 2, 3, 4]])
    (root / "images" / "train" / "extra").symlink_to("../val")
    with pytest.raises(InputError, match="train/extra/b.png is a link to .*val/b.png: one image in two of"):
        reader().headers(root)


def test_a_test_folder_holds_images(tmp_path):
    folder(tmp_path, "a.png")
    (tmp_path / "images" / "Test").mkdir()
    write(tmp_path / "b.csv", [["a.png", "NT", 1, 2, 3, 4]])
    with pytest.raises(InputError, match="data.reader.test_folders: images/Test/ holds no image"):
        reader(test_folders=["Test"]).headers(tmp_path)


def test_the_order_of_classes_is_found_in_sub_folders_too(tmp_path):
    folder(tmp_path, "train/1.png")
    labels(tmp_path, {"train/1.txt": "0 .5 .5 .1 .1", "train/classes.txt": "NT\npalate\nnasal bone"})
    with pytest.raises(InputError, match="train/classes.txt: lists NT, palate"):
        reader(yolo="labels").headers(tmp_path)


def test_a_thousands_comma_is_no_number():
    assert [parse_number(text, ";") for text in ("1,5", "0,024", "1,024", "12,345,678", "1024")] == [1.5, 0.024, None, None, 1024]


def test_another_separator_is_named(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "b.csv", [["a.png", "NT", "1,5", "2,5", 3, 4]], separator=";")
    with pytest.raises(InputError, match="look separated by ';', not by ',': set data.reader.separator to ';'"):
        reader().headers(tmp_path)


# --- new data ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("keys", [{"table": "b.csv"}, {"table": "b.xlsx"}, {"yolo": "labels"}])
def test_new_data_needs_no_boxes(tmp_path, keys):
    found = reader(test_folders=["Test"], **keys)
    root = folder(tmp_path, "train/a.png", "b.png")
    for place in (root, root / "images"):
        scan = found.headers(place, labels=False, new=True)
        assert [h.case for h in scan.headers] == ["b", "a"] and not scan.problems and scan.notes == []
        assert scan.headers[0].labels == {} and {h.subset for h in scan.headers} == {""}
        assert found.read(place, scan.headers[0], labels=False).truth == {} and not found.has_truth(place, "a")
        with pytest.raises(InputError, match="there is no"):
            found.headers(place, labels=True, new=True)
    assert found.headers(root / "images", labels=False).headers[1].files == {"image": "train/a.png"}
    with pytest.raises(InputError, match="there is no folder images/; it holds b.png, train"):
        found.headers(root / "images")


def test_new_data_with_boxes(tmp_path):
    found = reader()
    for root, images in ((tmp_path / "one", "images"), (tmp_path / "two", ".")):
        save(root / images / "a.png", 1)
        save(root / images / "sub" / "b.png", 2)
        write(root / "b.csv", [["a.png", "NT", 1, 2, 3, 4], ["sub/b.png", "NT", 3, 2, 1, 4]])
        scan = found.headers(root, labels=True, new=True)
        assert [h.labels for h in scan.headers] == [{"NT": [2, 1, 4, 3]}] and scan.problems[0].case == "b"
        assert found.has_truth(root, "b") and not found.has_truth(root, "c")
        assert len(found.headers(root, labels=False, new=True).headers) == 2
        assert found.headers(root, labels=False, new=True).ignored == []


# --- keys ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make, text", [
    (lambda root: None, "does not exist: make it, or name yours with -i"),
    (lambda root: root.write_text("?"), "is a file: name the folder that holds images/"),
    (lambda root: root.mkdir(), "there is no folder images/; it holds nothing. Expected images/ with images"),
])
def test_folders_that_are_missing(tmp_path, make, text):
    make(tmp_path / "in")
    with pytest.raises(InputError, match=text):
        reader().headers(tmp_path / "in")


@pytest.mark.parametrize("classes, keys, text", [
    ((), {}, "data.classes: found none, expected the names of the structures"),
    (CLASSES, {"table": "", "yolo": ""}, "neither table nor yolo"),
    (CLASSES, {"table": "b", "yolo": "l"}, "table and yolo"),
    (CLASSES, {"yolo": "l", "columns": {"file": "f"}}, "with yolo"), (CLASSES, {"sheet": "x"}, "data.reader.sheet"),
    (CLASSES, {"yolo": "l", "separator": ";"}, "with yolo"), (CLASSES, {"separator": ";;"}, "data.reader.separator"),
    (CLASSES, {"columns": {"xmin": "a"}}, "data.reader.columns: unknown 'xmin' .did you mean 'x_min'"),
    (CLASSES, {"columns": {"x_min": " "}}, "data.reader.columns.x_min: found no name"),
    (CLASSES, {"columns": {"x_min": "h_min"}}, "data.reader.columns: found .* a column of its own for each role"),
    (CLASSES, {"images": ""}, "data.reader.images"), (CLASSES, {"images": "../x"}, "a path inside the input folder"),
    (CLASSES, {"table": "/x.csv"}, "a path inside the input folder"), (CLASSES, {"yolo": "../l"}, "a path inside"),
    (CLASSES, {"test_folders": ["../x"]}, "data.reader.test_folders"),
    (CLASSES, {"test_folders": ["."]}, "a sub-folder of"),
    (CLASSES, {"test_folders": "Test"}, "data.reader.test_folders"), (CLASSES, {"channels": 2}, "data.reader.channels"),
    (CLASSES, {"pixels_per_mm": -1}, "data.reader.pixels_per_mm"), (CLASSES, {"patient_pattern": "("}, "not a regular"),
    (CLASSES, {"tabel": "b.csv"}, "did you mean table"),
    ({"NT": 5}, {}, "data.classes.NT: found 5, expected a name that the table gives it, or a list"),
    ({"NT": []}, {}, "data.classes.NT"), ({"NT": ["NT", " "]}, {}, "data.classes.NT"),
    ({"NT": "x", "IT": ["X ", "IT"]}, {}, "data.classes.IT: 'X ' is a name of NT too"),
    (("NT", "nt"), {}, "data.classes.nt: this is a name of NT too"),
])
def test_keys_that_could_never_work(classes, keys, text):
    with pytest.raises(InputError, match=text):
        reader(classes, **keys)


def test_the_yaml_keys_build_it_and_it_finds_no_classes():
    values = {"reader": {"kind": "image_boxes", "table": "t.xlsx", "sheet": "s", "images": "pictures",
                         "test_folders": ["T"], "columns": {"file": "name"}},
              "classes": {"IT": ["IT", "4th ventricle"]}, "intensity": "none", "store": "uint8"}
    found = make_reader(build(Data, values, "data"))
    assert found.test_folders == ("T",) and "pictures/ with images" in found.expected and "t.xlsx" in found.expected
    with pytest.raises(InputError, match="name the structures in data.classes"):
        found.find_classes(Path("."), [])
    with pytest.raises(InputError, match="data.store"):
        make_reader(build(Data, {**values, "store": "float16"}, "data"))


# --- real data -----------------------------------------------------------------------------------------------------

def test_the_public_workbook_and_its_images():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there")
    images = "Dataset for Fetus Framework"
    structures = ("thalami", "midbrain", "palate", "IT", "CM", "NT", "nasal bone", "nasal tip", "nasal skin")
    found = reader(structures, images=images, table="ObjectDetection.xlsx", test_folders=["Test"])
    scan = found.headers(REAL)
    assert not scan.problems and len(scan.headers) == 179
    subsets = [header.subset for header in scan.headers]
    assert subsets.count("") == 147 and subsets.count("external") == 32
    assert scan.notes[0].startswith(
        f"ObjectDetection.xlsx, sheet ObjectDetection: 7927 rows of 952 images that are not in {images}/: 0.png, 2.png")
    assert scan.notes[1] == (
        "10 of 189 images have no box in ObjectDetection.xlsx and are left out: Test/1372.png, Test/1373.png, "
        "Test/1374.png, Test/1375.png, Test/1376.png, Test/1377.png, Test/1378.png, Test/1379.png, "
        "TrainVal/71.png, TrainVal/194.png")
    assert sum(len(header.labels) for header in scan.headers) == 9433 - 7927
    assert len(found.headers(REAL, labels=False).headers) == 189
    swapped = reader(structures, images=images, table="ObjectDetection.xlsx",
                     columns={"x_min": "h_min", "y_min": "w_min", "x_max": "h_max", "y_max": "w_max"})
    with pytest.raises(InputError, match="x and y look swapped: 147 of 1506 boxes"):  # most fit either way
        swapped.headers(REAL)
    case = found.read(REAL, scan.headers[0])
    assert case.frames.shape == (1, *case.header.geometry.shape) and [*case.truth] == [*structures]
