"""CSV tables of phantoms: same rows, same bytes, and no other file is overwritten."""
from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path


def write_table(path: Path, columns: Sequence[str], rows: list[tuple]) -> None:
    """Write a CSV; same rows, same bytes on every system."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(text.getvalue().encode())
    os.replace(partial, path)


def refuse_other_table(path: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    """Raise FileExistsError if there is another file than a table of these columns whose rows are of `names`."""
    if not path.exists():
        return
    try:
        head, *rows = list(csv.reader(io.StringIO(path.read_bytes().decode())))
        ours = head == list(columns) and {row[0] for row in rows} <= set(names)
    except (OSError, ValueError, IndexError, csv.Error):
        ours = False
    if not ours:
        raise FileExistsError(f"{path} is not a table of these phantoms and won't be overwritten: use another folder")
