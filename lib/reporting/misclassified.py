"""The cases that went wrong, as script 4 lays them out: a table, and their contact sheets by kind of mistake."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Sequence

from lib.reporting.style import NO_FILE_SIGNS
from lib.workspace import replacing, write_table

COLUMNS = ("kind", "rank", "confidence", "case", "patient", "fold", "truth", "predicted")  # then those of predictions.csv
APART = ("key", "picture")  # which sheet is whose; the last column


def write_misclassified(folder: Path, mistakes: Sequence[dict], sheets: dict[str, Path]) -> Path:
    """Write `misclassified.csv` under `folder`, a row per mistake (the header alone if there is none), and copy the sheets
    to `misclassified/<kind>/<rank>_<case>.png`, the surest mistake of each kind first. Returns the table's path.

    mistakes: rows of Task.mistakes, the surest first, each with its `case` and, where a case can have several, its `key`.
    sheets: key (or case) -> PNG, as far as there are any; a file that is not there is passed over.
    """
    ranks: Counter = Counter()
    rows = []
    for row in mistakes:
        kind = safe(row["kind"])
        ranks[kind] += 1
        source = sheets.get(row.get("key", row["case"]))
        picture = ""
        if source is not None and source.is_file():
            picture = f"misclassified/{kind}/{ranks[kind]:03d}_{safe(row['case'])}{source.suffix}"
            with replacing(folder / picture) as temporary:
                shutil.copyfile(source, temporary)
        rows.append({**row, "rank": ranks[kind], "picture": picture})
    rows.sort(key=lambda row: (row["kind"], row["rank"]))
    more = [column for column in (rows[0] if rows else ()) if column not in (*COLUMNS, *APART)]
    path = folder / "misclassified.csv"
    write_table(path, [*COLUMNS, *more, "picture"], rows)
    return path


def safe(name: str) -> str:
    """A name as that of a file or folder, without signs that such had better not hold."""
    return re.sub(NO_FILE_SIGNS, "_", name).strip(". ") or "_"
