"""Worksheets: what is written is what Excel and pandas read, no text is a formula, the same rows are the same bytes."""

from __future__ import annotations

import math
import time
import zipfile

import numpy as np
import openpyxl
import pandas
import pytest

from lib.reporting.worksheets import write_worksheet

ROWS = [
    {"file": "D10frame_1.png", "fold": 0, "dice": 0.123456789012, "hd95_mm": math.nan},
    {"file": "=1+1", "fold": 1, "dice": np.float32(0.5), "note": "seen later"},
    {"file": "-3", "fold": np.int64(2), "dice": None, "note": "@home"},
    {"file": "007", "fold": 3, "dice": 1e-6, "note": "#N/A", "hd95_mm": math.inf},
]


@pytest.fixture
def sheet(tmp_path):
    return openpyxl.load_workbook(write_worksheet(tmp_path / "a.xlsx", ROWS, "results: [all]")).active


def test_columns_come_in_order_of_first_appearance(sheet):
    assert [cell.value for cell in sheet[1]] == ["file", "fold", "dice", "hd95_mm", "note"]
    assert all(cell.font.bold for cell in sheet[1]) and not sheet["A2"].font.bold
    assert sheet.freeze_panes == "A2" and sheet.auto_filter.ref == "A1:E5"
    assert sheet.title == "results   all"  # Excel forbids the signs


def test_numbers_are_numbers_of_which_four_decimals_show(sheet):
    assert sheet["C2"].value == 0.123456789012 and sheet["C2"].number_format == "0.0000"
    assert sheet["C3"].value == 0.5 and sheet["B4"].value == 2 and sheet["B4"].data_type == "n"
    assert sheet["C5"].value == 1e-6 and sheet["C5"].number_format == "0.00E+00"  # 0.0000 would say nothing
    assert sheet["C4"].value is None and sheet["D2"].value is None and sheet["D3"].value is None
    assert sheet["D5"].value == "inf"  # a cell cannot hold it as a number


def test_text_is_never_a_formula(sheet, tmp_path):
    assert [sheet[f"A{row}"].value for row in range(2, 6)] == ["D10frame_1.png", "=1+1", "-3", "007"]
    for name in ("A3", "A4", "A5", "E4", "E5"):
        assert sheet[name].data_type == "s", name
    assert sheet["A3"].quotePrefix and sheet["E4"].quotePrefix  # editing the cell makes none of it either
    assert b"<f>" not in zipfile.ZipFile(tmp_path / "a.xlsx").read("xl/worksheets/sheet1.xml")


def test_a_heading_is_no_formula_either(tmp_path):
    sheet = openpyxl.load_workbook(write_worksheet(tmp_path / "a.xlsx", [{"=A1": 1}], "x")).active
    assert sheet["A1"].value == "=A1" and sheet["A1"].data_type == "s"


def test_pandas_reads_the_same(tmp_path):
    table = pandas.read_excel(write_worksheet(tmp_path / "a.xlsx", ROWS, "x"), dtype={"file": str})
    assert table["file"].tolist() == ["D10frame_1.png", "=1+1", "-3", "007"]
    assert table["fold"].tolist() == [0, 1, 2, 3] and table["dice"][0] == 0.123456789012 and np.isnan(table["dice"][2])


def test_same_rows_same_bytes(tmp_path):
    first = write_worksheet(tmp_path / "a.xlsx", ROWS, "x").read_bytes()
    time.sleep(2.1)  # a zip archive counts in steps of two seconds
    assert write_worksheet(tmp_path / "b.xlsx", ROWS, "x").read_bytes() == first
    assert write_worksheet(tmp_path / "c.xlsx", ROWS[:3], "x").read_bytes() != first
    properties = openpyxl.load_workbook(tmp_path / "a.xlsx").properties
    assert properties.created.year == properties.modified.year == 1980


def test_no_rows_and_hard_text(tmp_path):
    assert openpyxl.load_workbook(write_worksheet(tmp_path / "a.xlsx", [], "")).active.title == "Sheet"
    hard = ["bell\x07", "två\nlines & <tags>", " spaces ", "x" * 40000]
    sheet = openpyxl.load_workbook(write_worksheet(tmp_path / "b.xlsx", [{"t": t} for t in hard], "x" * 99)).active
    assert [sheet[f"A{row}"].value for row in range(2, 6)] == ["bell\ufffd", *hard[1:3], "x" * 32767]
    assert sheet.column_dimensions["A"].width <= 50 and len(sheet.title) == 31
