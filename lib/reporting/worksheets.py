"""Tables as Excel worksheets: numbers stay numbers, text stays text, and the same rows are the same file."""

from __future__ import annotations

import datetime
import io
import math
import numbers
import re
import zipfile
from pathlib import Path
from typing import Any, Mapping, Sequence

from lib.workspace import replacing

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive can name
DECIMALS, TINY = "0.0000", "0.00E+00"
WIDTHS = (9, 48)  # of a column, in letters
NO_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")  # what XML cannot hold
SHEET_SIGNS = re.compile(r"[\[\]:*?/\\]")  # what Excel forbids in the name of a sheet
FORMULA = ("=", "+", "-", "@")  # what Excel takes for a formula when somebody edits the cell
LONGEST = 32767  # letters that a cell can hold


def write_worksheet(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> Path:
    """Write an .xlsx atomically: a column per key in order of first appearance, a row per mapping.

    Numbers show 4 decimals and are kept whole; None and NaN are empty cells; everything else is text, never a formula.
    """
    from openpyxl import Workbook
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter
    columns = list(dict.fromkeys(column for row in rows for column in row))
    book = Workbook()
    sheet = book.active
    sheet.title = SHEET_SIGNS.sub(" ", title).strip(" '")[:31] or "Sheet"
    for number, column in enumerate(columns, start=1):
        heading = sheet.cell(1, number)
        fill(heading, str(column))
        heading.font = Font(bold=True)
        longest = len(str(column)) + 4  # the filter's button
        for line, row in enumerate(rows, start=2):
            longest = max(longest, fill(sheet.cell(line, number), row.get(column)) + 2)
        sheet.column_dimensions[get_column_letter(number)].width = min(max(longest, WIDTHS[0]), WIDTHS[1])
    sheet.freeze_panes = "A2"
    if columns:
        sheet.auto_filter.ref = f"A1:{get_column_letter(len(columns))}{len(rows) + 1}"
    book.properties.creator = "FoldScan"
    book.properties.created = datetime.datetime(*EPOCH)
    packed = io.BytesIO()
    book.save(packed)
    with replacing(path) as temporary:
        temporary.write_bytes(timeless(packed.getvalue()))
    return path


def fill(cell, value: Any) -> int:
    """Put a value into an openpyxl cell; returns how many letters it shows."""
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, float) and math.isnan(value):
        return 0
    if isinstance(value, (bool, numbers.Integral)):
        cell.value = value
        return len(str(value))
    if isinstance(value, numbers.Real) and math.isfinite(value):
        cell.value = float(value)
        cell.number_format = DECIMALS if value == 0 or abs(value) >= 5e-5 else TINY
        return len(f"{value:.4f}")
    text = NO_CONTROL.sub("\ufffd", str(value))[:LONGEST]
    cell.value = text
    cell.data_type = "s"  # openpyxl would take =... for a formula and #N/A for an error
    cell.quotePrefix = text.startswith(FORMULA)
    return max(map(len, text.splitlines()), default=0)


def timeless(archive: bytes) -> bytes:
    """The same archive without the moment at which it was written."""
    result, stamp = io.BytesIO(), datetime.datetime(*EPOCH).isoformat().encode() + b"Z"
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(result, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "docProps/core.xml":
                content = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>" + stamp, content)
            fixed = zipfile.ZipInfo(entry.filename, EPOCH)
            fixed.create_system, fixed.external_attr = 3, 0o600 << 16
            new.writestr(fixed, content, zipfile.ZIP_DEFLATED, compresslevel=6)
    return result.getvalue()
