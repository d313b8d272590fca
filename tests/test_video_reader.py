"""The reader of cine loops: a table of scores, videos in sub-folders, whose they are, and all that can be wrong."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from openpyxl import Workbook

from lib.data.case import CaseError
from lib.preparation import stop_if_bad
from lib.readers import make_reader
from lib.readers.video_patients import patient_hash
from lib.readers.video_rows import case_names
from lib.study import Data, Folds, InputError
from test_dicom import moving, speckle, write_dicom, write_video
from test_sector import fan, loop, text

TABLE = "echo_annotations.csv"
HEADER = ["video_path", "quality_score"]


def reader(classes=("poor", "good"), folds=Folds(), **keys):
    return make_reader(Data(reader={"kind": "video_table", **keys}, classes=classes, folds=folds, intensity="none",
                            store="uint8"))


def write_table(root: Path, rows: list, header=HEADER, file: str = TABLE, separator: str = ",") -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".xlsx":
        book = Workbook()
        for row in [header, *rows]:
            book.active.append(list(row))
        book.save(path)
        return path
    with path.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, delimiter=separator).writerows([header, *rows])
    return path


def folder(root: Path, *names: str, **tags) -> Path:
    """Small DICOM loops, each of its own pixels, of patients P0, P1, ..."""
    for index, name in enumerate(names):
        write_dicom(root / name, speckle(3, 8, 10, seed=index), **{"PatientID": f"P{index}", **tags})
    return root


def problems(found, root) -> list[str]:
    return sorted(str(problem) for problem in found.headers(root).problems)


def cases(scan) -> dict:
    assert not scan.problems, scan.problems
    return {header.case: header for header in scan.headers}


# --- a table -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("file, separator", [(TABLE, ","), ("notes/scores.csv", ";"), ("scores.xlsx", ",")])
def test_a_row_per_video(tmp_path, file, separator):
    folder(tmp_path, "echo/10.dcm", "echo/9.dcm", FrameTime=40, HeartRate=66)
    write_video(tmp_path / "echo" / "x.avi", moving())
    up = "../" if "/" in file else ""
    write_table(tmp_path, [[f"{up}echo/10.dcm", 0.5], [f"{up}echo/9.dcm", "0,25" if separator == ";" else 0.25],
                           [f"{up}echo\\x.avi", 1]], file=file, separator=separator)
    found = reader(table=file, separator=separator)
    scan = found.headers(tmp_path)
    assert not scan.problems and not scan.ignored and not scan.unused
    assert [header.case for header in scan.headers] == ["9", "10", "x"]  # natural
    nine, ten, avi = scan.headers
    assert (nine.labels, ten.labels) == ({"class": "poor", "score": 0.25}, {"class": "good", "score": 0.5})
    assert nine.files == {"video": "echo/9.dcm"} and nine.channels == 1 and nine.subset == ""
    assert nine.geometry.shape == (3, 8, 10) and nine.geometry.flat and nine.geometry.spacing_mm is None
    assert nine.geometry.source == {"format": "video", "frame_rate": 25.0}
    assert nine.about == {"frames": 3, "frame_rate": 25.0, "heart_rate": 66.0, "coding": "Explicit VR Little Endian"}
    assert avi.about == {"frames": 9, "frame_rate": 20.0, "heart_rate": None, "coding": "AVI"}
    assert (ten.patient, nine.patient, avi.patient) == (patient_hash("P0", ""), patient_hash("P1", ""), "x")
    json.dumps([header.labels | header.about for header in scan.headers])
    case = found.read(tmp_path, ten)
    assert case.frames.dtype == np.uint8 and case.frames.flags.c_contiguous
    np.testing.assert_array_equal(case.frames[0], speckle(3, 8, 10))
    assert {name: (truth.dtype, truth.tolist()) for name, truth in case.truth.items()} == {
        "poor": (np.dtype(bool), [False]), "good": (np.dtype(bool), [True])}
    assert found.read(tmp_path, ten, labels=False).truth == {}


def test_keys_columns_threshold_and_classes(tmp_path):
    folder(tmp_path, "a.dcm", "b.dcm")
    write_table(tmp_path, [["a.dcm", 60, "A"], ["b.dcm", 59.9, "A"]], ["File", "Stars", "who"])
    found = reader(("low", "high"), threshold=60, columns={"video": "file", "score": "stars", "patient": "who"})
    headers = cases(found.headers(tmp_path))
    assert {case: header.labels["class"] for case, header in headers.items()} == {"a": "high", "b": "low"}
    assert {header.patient for header in headers.values()} == {"A"}
    nameless = reader(classes=(), columns={"video": "file", "score": "stars"}, threshold=60)
    found = {case: header.labels["class"] for case, header in cases(nameless.headers(tmp_path)).items()}
    assert found == {"a": "good", "b": "poor"}
    assert nameless.find_classes(tmp_path, []) == {"poor": None, "good": None}


@pytest.mark.parametrize("keys, message", [({"classes": ("a", "b", "c")}, "data.classes: found"),
                                           ({"channels": 2}, "data.reader.channels"),
                                           ({"threshold": float("nan")}, "threshold"),
                                           ({"table": "../a.csv"}, "data.reader.table"),
                                           ({"table": ""}, "data.reader.table"), ({"sheet": "x"}, "data.reader.sheet"),
                                           ({"columns": {"vidoe": "x"}}, "did you mean 'video'"),
                                           ({"patient_pattern": "("}, "regular expression"),
                                           ({"columns": {"video": "a", "score": "a"}}, "a column of its own"),
                                           ({"patient_pattern": "x", "columns": {"patient": "p"}}, "only one of them"),
                                           ({"separator": ""}, "one character")])
def test_wrong_keys(keys, message):
    with pytest.raises(InputError, match=message):
        reader(**keys)


def test_names_without_suffix_and_of_other_case(tmp_path):
    folder(tmp_path, "videos/A1.DCM", "videos/IM0001", "videos/1.2.840.99", "videos/b.dcm")
    (tmp_path / "videos" / "notes.txt").write_text("x")
    (tmp_path / "videos" / "README").write_text("no video")
    write_table(tmp_path, [["videos/a1", 1], ["videos/IM0001", 1], ["./videos/1.2.840.99", 0], ["videos/B.dcm", 1]])
    scan = reader().headers(tmp_path)
    assert {case: header.files["video"] for case, header in cases(scan).items()} == {
        "A1": "videos/A1.DCM", "IM0001": "videos/IM0001", "1.2.840.99": "videos/1.2.840.99", "b": "videos/b.dcm"}
    assert scan.ignored == ["videos/notes.txt", "videos/README"]


def test_videos_of_one_name_are_cases_of_their_own(tmp_path):
    names = case_names(["a/1.dcm", "b/1.dcm", "b/1.avi", "c/2.dcm", "b_1.dcm"])
    assert names == {"a/1.dcm": "a_1", "b/1.dcm": "b_1.dcm", "b/1.avi": "b_1.avi", "c/2.dcm": "2", "b_1.dcm": "b_1"}
    folder(tmp_path, "a/1.dcm", "b/1.dcm")
    write_table(tmp_path, [["a/1.dcm", 1], ["b/1.dcm", 0]])
    assert [*cases(reader().headers(tmp_path))] == ["a_1", "b_1"]
    assert [*cases(reader().headers(tmp_path, labels=False, new=True))] == ["a_1", "b_1"]


def test_subsets(tmp_path):
    folder(tmp_path, "a.dcm", "b.dcm", "c.dcm")
    write_table(tmp_path, [["a.dcm", 1, "TRAIN"], ["b.dcm", 0, "Val"], ["c.dcm", 0, "test"]], [*HEADER, "Split"])
    columns = {"subset": "split"}
    found = {case: header.subset for case, header in cases(reader(columns=columns).headers(tmp_path)).items()}
    assert found == {"a": "train", "b": "validation", "c": "test"}
    for other in (reader(), reader(columns=columns, folds=Folds(pool=True))):
        assert {header.subset for header in other.headers(tmp_path).headers} == {""}
    write_table(tmp_path, [["a.dcm", 1, "train"], ["b.dcm", 0, "other"], ["c.dcm", 0, ""]], [*HEADER, "Split"])
    found = problems(reader(columns=columns), tmp_path)
    assert len(found) == 2 and "Split" not in found[0] and "split is 'other', expected one of train, val" in found[0]


# --- patients ------------------------------------------------------------------------------------------------------

def test_a_patient_is_known_by_column_pattern_hash_or_not_at_all(tmp_path):
    folder(tmp_path, "P7/x1.dcm", "P8/x2.dcm")
    write_dicom(tmp_path / "P9" / "x3.dcm", speckle(2, 8, 8), PatientID="")
    rows = [[f"P{n}/x{n - 6}.dcm", 1, f"who{n}"] for n in (7, 8, 9)]
    write_table(tmp_path, rows, [*HEADER, "Patient"])

    def patients(**keys):
        scan = reader(**keys).headers(tmp_path)
        return [header.patient for header in cases(scan).values()], " ".join(scan.notes)

    good = "a score of 0.5 or more is good: 3 of 3 videos; the scores lie between 1 and 1"
    assert patients() == (["who7", "who8", "who9"], good)
    assert patients(patient_pattern=r"^(P\d)/")[0] == ["P7", "P8", "P9"]  # of the path, where the name has none
    assert patients(patient_pattern=r"x(\d)")[0] == ["1", "2", "3"]
    write_table(tmp_path, [row[:2] for row in rows])
    found, notes = patients()
    key = hashlib.blake2b(b"FoldScan", digest_size=64).digest()
    assert found == [hashlib.blake2b(text, key=key, digest_size=6).hexdigest() for text in (b"P0", b"P1")] + ["x3"]
    assert "2 videos are known by a hash of PatientID: set data.reader.patient_salt" in notes
    assert "1 video without a patient" in notes and "folds leak" in notes
    salted, notes = patients(patient_salt="secret" * 30)
    assert salted[2] == "x3" and not set(salted[:2]) & set(found) and len(salted[0]) == 12 and "patient_salt" not in notes
    with pytest.raises(InputError, match="no column 'who'"):
        patients(columns={"patient": "who"})


def test_a_patient_cell_that_is_empty(tmp_path):
    folder(tmp_path, "a.dcm", "b.dcm")
    write_table(tmp_path, [["a.dcm", 1, "p"], ["b.dcm", 0, ""]], [*HEADER, "patient"])
    [problem] = problems(reader(), tmp_path)
    assert problem == (f"b: {TABLE}, row 3: patient is empty, so nobody knows whose video it is; fill it in in every row, or "
                       "take the column away")
    new = cases(reader().headers(tmp_path, labels=True, new=True))
    assert (new["a"].patient, new["b"].patient) == ("p", patient_hash("P1", ""))


def test_one_id_for_all_is_doubted_and_no_name_is_kept(tmp_path):
    folder(tmp_path, "a.dcm", "b.dcm", PatientID="ANON-4711", PatientName="Doe^Jane", PatientBirthDate="19510829")
    write_table(tmp_path, [["a.dcm", 1], ["b.dcm", 0]])
    scan = reader().headers(tmp_path)
    assert "all 2 DICOM videos have the same PatientID" in " ".join(scan.notes)
    shown = repr(scan) + repr(reader().read(tmp_path, scan.headers[0]).header)
    assert not any(secret in shown for secret in ("ANON", "4711", "Doe", "Jane", "1951"))


def test_paths_may_begin_at_another_folder(tmp_path):
    (tmp_path / "lists").mkdir()
    folder(tmp_path, "loops/a.dcm")
    write_table(tmp_path / "lists", [["a.dcm", 1]])
    with pytest.raises(InputError, match="none of its 1 rows names a video that is there.*paths begin at lists"):
        reader(table="lists/echo_annotations.csv").headers(tmp_path)
    for root in ("loops", "lists/../loops"):
        header, = reader(table="lists/echo_annotations.csv", root=root).headers(tmp_path).headers
        assert header.files == {"video": "loops/a.dcm"}
    with pytest.raises(InputError, match="data.reader.root"):
        reader(root="../elsewhere")


def test_a_column_that_may_name_patients_is_not_passed_over_in_silence(tmp_path):
    folder(tmp_path, "a.dcm")
    write_table(tmp_path, [["a.dcm", 1, "x"]], [*HEADER, "patient_id"])
    note = "has a column 'patient_id' that is not used: if it tells whose a video is, set data.reader.columns: {patient: patient_id}"
    assert any(note in line for line in reader().headers(tmp_path).notes)
    assert not any("not used" in line for line in reader(columns={"patient": "patient_id"}).headers(tmp_path).notes)


# --- pixels --------------------------------------------------------------------------------------------------------

def test_the_sector_alone_is_kept(tmp_path):
    frames = loop(10)
    write_dicom(tmp_path / "a.dcm", frames)
    write_dicom(tmp_path / "still.dcm", np.repeat(frames[:1], 4, axis=0))
    write_dicom(tmp_path / "one.dcm", frames[1:2])
    write_table(tmp_path, [["a.dcm", 1], ["still.dcm", 1], ["one.dcm", 0]])
    scan = reader().headers(tmp_path)
    assert ("1 video of a single frame, which stands for all of a window; nothing moves, so what is around its sector "
            "stays") in scan.notes
    read = {header.case: reader().read(tmp_path, header) for header in scan.headers}
    masked = read["a"].frames[0]
    assert frames[0][text() & ~fan()].all() and not masked[:, text() & ~fan()].any()
    inside = fan() & (cv2.erode(fan().astype(np.uint8), np.ones((5, 5))) > 0)
    np.testing.assert_array_equal(masked[:, inside], frames[:, inside])
    assert read["a"].header.about["sector_share"] == pytest.approx(fan().mean(), abs=0.03)
    for name, expected in (("still", frames[:1].repeat(4, axis=0)), ("one", frames[1:2])):
        np.testing.assert_array_equal(read[name].frames[0], expected)
        assert read[name].header.about["sector_share"] == 1.0
    note, = reader().remarks([case.header for case in read.values()])
    assert "1 video in which too little moves" in note and "NOT removed: still." in note
    assert reader().remarks([read["a"].header, read["one"].header]) == []
    plain = reader(mask_sector=False)
    whole = plain.read(tmp_path, plain.headers(tmp_path).headers[0])
    np.testing.assert_array_equal(whole.frames[0], frames)
    assert "sector_share" not in whole.header.about
    assert any(note == "1 video of a single frame, which stands for all of a window" for note in plain.headers(tmp_path).notes)


def test_colours_kept_or_turned_grey_are_said(tmp_path):
    frames = loop(5)[..., None].repeat(3, axis=3)
    frames[..., 2] //= 2
    write_dicom(tmp_path / "a.dcm", frames)
    write_table(tmp_path, [["a.dcm", 1]])
    found = reader(channels=3)
    scan = found.headers(tmp_path)
    case = found.read(tmp_path, scan.headers[0])
    assert case.frames.shape == (3, 5, *fan().shape) and found.channel_names == ("red", "green", "blue")
    np.testing.assert_array_equal(case.frames[:, 2, 150, 160], frames[2, 150, 160])
    assert not any("colours" in note for note in scan.notes)
    assert any("stored with colours: turned grey" in note for note in reader().headers(tmp_path).notes)


def test_both_jobs_may_read_at_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    names = [f"{n}.dcm" for n in range(8)]
    folder(tmp_path, *names)
    write_table(tmp_path, [[name, 1] for name in names])
    found = reader()
    with ThreadPoolExecutor(2) as pool:
        read = list(pool.map(lambda header: found.read(tmp_path, header), found.headers(tmp_path).headers))
    for index, case in enumerate(read):
        np.testing.assert_array_equal(case.frames[0], speckle(3, 8, 10, seed=index))


# --- new data ------------------------------------------------------------------------------------------------------

def test_new_data_with_and_without_a_table(tmp_path):
    folder(tmp_path, "a.dcm", "sub/b.dcm", "c.dcm")
    scan = reader().headers(tmp_path, labels=False, new=True)
    assert [*cases(scan)] == ["a", "c", "b"] and all(header.labels == {} for header in scan.headers)
    assert not reader().has_truth(tmp_path, "a")
    with pytest.raises(InputError, match="there is no such file"):
        reader().headers(tmp_path, labels=True, new=True)
    write_table(tmp_path, [["a.dcm", 1, "me"], ["sub/b.dcm", "bad", "you"]], [*HEADER, "patient"])
    found = reader()
    unlabelled = found.headers(tmp_path, labels=False, new=True).headers
    assert [header.patient for header in unlabelled] == ["me", patient_hash("P2", ""), patient_hash("P1", "")]
    labelled = found.headers(tmp_path, labels=True, new=True)
    assert [header.case for header in labelled.headers] == ["a"] and [problem.case for problem in labelled.problems] == ["b"]
    assert [found.has_truth(tmp_path, case) for case in "abc"] == [True, True, False]


# --- what can be wrong ---------------------------------------------------------------------------------------------

def test_everything_that_is_wrong_is_listed_at_once(tmp_path):
    folder(tmp_path, "good.dcm", "two.dcm", "same.dcm", "word.dcm", "empty.dcm", "spare.dcm", "short.dcm")
    (tmp_path / "short.dcm").write_bytes((tmp_path / "short.dcm").read_bytes()[:-100])
    (tmp_path / "text.dcm").write_text("hello" * 100)
    rows = [["good.dcm", 1], ["two.dcm", 1], ["two.dcm", 0], ["same.dcm", 1], ["./same.dcm", "1.0"], ["word.dcm", "fine"],
            ["empty.dcm", ""], ["gone.dcm", 1], ["short.dcm", 1], ["text.dcm", 0], ["../out.dcm", 1], ["/etc/passwd", 1],
            ["C:\\x.dcm", 1]]
    write_table(tmp_path, rows)
    scan = reader().headers(tmp_path)
    found = sorted(str(problem) for problem in scan.problems)
    expected = [("empty", "row 8: quality_score is empty"), ("gone", "row 9: video_path is 'gone.dcm', which is not there"),
                ("out", "row 12: video_path is '../out.dcm', which leaves the input folder"),
                ("passwd", "row 13: video_path is '/etc/passwd', which leaves"), ("short", "short.dcm: holds 1 of 3 frames"),
                ("text", "text.dcm: is no DICOM file"), ("two", "row 4: says other things than"),
                ("word", "row 7: quality_score is 'fine', expected a number"), ("x", "row 14: video_path is 'C:")]
    assert len(found) == len(expected)
    for line, (case, words) in zip(found, expected):
        assert line.startswith(f"{case}: ") and words in line, line
    assert [header.case for header in scan.headers] == ["good", "same"]
    assert [str(problem) for problem in scan.unused] == [f"spare: spare.dcm: has no row in {TABLE}"]
    notes = "\n".join(scan.notes)
    assert "1 of 8 videos has no row" in notes and "of 1 video there are several rows that say the same: same.dcm" in notes
    with pytest.raises(InputError, match="9 cases cannot be used"):
        stop_if_bad(scan.problems, False)
    stop_if_bad(scan.problems, True)


def test_an_empty_path_can_not_be_skipped(tmp_path):
    folder(tmp_path, "a.dcm")
    write_table(tmp_path, [["a.dcm", 1], ["", 1]])
    [problem] = reader().headers(tmp_path).problems
    assert problem.case == "" and "row 3" in str(problem) and "video_path is empty" in str(problem)


def test_what_concerns_all_stops_at_once(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        reader().headers(tmp_path / "none")
    with pytest.raises(InputError, match="there is no such file"):
        reader().headers(tmp_path)
    folder(tmp_path, "a.dcm")
    with pytest.raises(InputError, match=f"name the folder that holds {TABLE}"):
        reader().headers(tmp_path / "a.dcm")
    write_table(tmp_path, [["a.dcm", 1]], ["path", "score"])
    with pytest.raises(InputError, match="no column 'video_path' .*, 'quality_score'"):
        reader().headers(tmp_path)
    write_table(tmp_path, [["x.dcm", 1], ["y.dcm", 1]])
    with pytest.raises(InputError, match="none of its 2 rows names a video .* it names x.dcm, y.dcm, and the videos are a.dcm"):
        reader().headers(tmp_path)


def test_links_that_leave_the_folder(tmp_path):
    root = folder(tmp_path / "in", "a.dcm")
    folder(tmp_path / "out", "b.dcm", "c.dcm")
    os.symlink(tmp_path / "out" / "b.dcm", root / "b.dcm")
    os.symlink(tmp_path / "out", root / "far")
    os.symlink(root / "a.dcm", root / "near.dcm")
    write_table(root, [["a.dcm", 1], ["near.dcm", 1], ["b.dcm", 1], ["far/c.dcm", 1]])
    found = problems(reader(), root)
    assert len(found) == 2 and all("a link that leaves the input folder" in line for line in found)
    assert [header.case for header in reader().headers(root).headers] == ["a", "near"]
    new = reader().headers(root, labels=False, new=True)
    assert sorted(header.case for header in new.headers) == ["a", "near"] and len(new.problems) >= 2


def test_a_video_that_breaks_while_it_is_read_is_a_case_error(tmp_path):
    folder(tmp_path, "a.dcm")
    write_table(tmp_path, [["a.dcm", 1]])
    found = reader()
    [header] = found.headers(tmp_path).headers
    (tmp_path / "a.dcm").unlink()
    with pytest.raises(CaseError) as caught:
        found.read(tmp_path, header)
    assert str(caught.value.problem) == "a: a.dcm: cannot be read (No such file or directory)"
