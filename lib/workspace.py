"""Where everything lies in a workspace, atomic writes, and the manifest that says what was prepared."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import math
import numbers
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

from lib.study import InputError

FORMAT = 2  # of prepared/; a change of what script 1 computes raises it, so that old arrays are seen as stale


@dataclass(frozen=True)
class Workspace:
    """Every path of one study's workspace (see the file contract in the README)."""
    root: Path
    arguments: str = ""  # `-s ... -o ...` as given: the commands that errors name work on this workspace

    @property
    def prepared(self) -> Path:
        return self.root / "prepared"

    def run(self, name: str) -> Path:
        return self.root / "runs" / name

    def fold(self, name: str, fold: int) -> Path:
        return self.run(name) / f"fold{fold}"

    def onnx(self, name: str) -> Path:
        return self.root / "onnx" / name

    def results(self, name: str) -> Path:
        return self.root / "results" / name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; it takes its place only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # the name keeps the suffix, because writers such as nibabel choose their format by it
    temporary = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def cell(value: Any) -> Any:
    """A table cell: floats in ten significant digits (so that files compare), NaN as an empty cell."""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return "" if math.isnan(value) else f"{value:.10g}"
    return "" if value is None else value


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Write a CSV atomically; a row is a mapping from column name to value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    write_text(path, text.getvalue())


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def text_hash(*parts: Any) -> str:
    """A short hash of JSON-able parts, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def building(folder: Path, keep: Sequence[str] = ()) -> Iterator[Path]:
    """Build `folder` as `folder.partial`; it takes its place only when the block ends well.

    keep: patterns of entries of the old folder that move into the new one. Raises InputError while another
    process builds the same folder. A kill at any moment leaves the last whole folder, or (between the two renames)
    a hidden one, which the next `recover` puts back.
    """
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        keep_out(lock, f"writing {folder}")
        recover(folder, keep)
        empty(partial)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if folder.exists():
            os.replace(folder, put_aside(folder))
        os.replace(partial, folder)
        recover(folder, keep)
    finally:
        os.close(lock)


@contextlib.contextmanager
def alone_in(folder: Path, doing: str) -> Iterator[None]:
    """Keep other processes out of `folder` while the block runs; made for it, it goes again if it stays empty.

    doing: "training", for the message of another process. The lock is on the folder itself and ends with the process, so that
    a kill leaves nothing: what the folder holds may go (`empty`), but not the folder. Raises InputError while another
    process holds it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = open_alone(folder, doing)
    try:
        yield
    finally:
        for path in made:  # from the inside out
            with contextlib.suppress(OSError):  # it holds something
                path.rmdir()
        os.close(lock)


def open_alone(folder: Path, doing: str) -> int:
    """A locked descriptor of `folder`, which is made if need be. Raises InputError while another process holds it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process has just removed its empty one
            continue
        try:
            keep_out(lock, f"{doing} {folder}")
            if os.path.samestat(os.fstat(lock), folder.stat()):
                return lock
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # of a folder that was removed before it was locked


def keep_out(lock: int, doing: str) -> None:
    """Lock an open folder until it is closed. Raises InputError while another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another FoldScan process is {doing}: wait for it, or end it") from None
    except OSError:  # a file system without locks
        pass


def put_aside(folder: Path) -> Path:
    """Where a replaced folder waits for its removal: a name that nobody gives to a folder of their own."""
    return folder.with_name(f".{folder.name}.foldscan-replaced")


def empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def recover(folder: Path, keep: Sequence[str] = ()) -> None:
    """Finish or undo a replacement of `folder` that was killed after its first rename."""
    old = put_aside(folder)
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    for entry in [entry for pattern in keep for entry in old.glob(pattern)]:
        if not (folder / entry.name).exists():  # one made since then is newer
            os.replace(entry, folder / entry.name)
    shutil.rmtree(old, ignore_errors=True)


TABLES = ("samples.csv", "cases.csv", "folds.csv", "splits.csv")


def write_manifest(prepared: Path, manifest: dict) -> None:
    """Written last: without it nothing counts as prepared. It seals the four tables with their hashes."""
    tables = {name: file_hash(prepared / name) for name in TABLES}
    write_json(prepared / "manifest.json", {"format": FORMAT, **manifest, "tables": tables})


def read_manifest(prepared: Path) -> dict | None:
    """The manifest, or None if nothing is prepared (or by another version of the format)."""
    recover(prepared)
    path = prepared / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except ValueError:
        raise InputError(f"{path} is not readable: delete {prepared} and run script 1 again") from None
    return manifest if manifest.get("format") == FORMAT else None


def require_manifest(prepared: Path, remedy: str) -> dict:
    """The manifest of a whole, untouched `prepared/`, or an InputError that names the command to run."""
    manifest = read_manifest(prepared)
    if manifest is None:
        raise InputError(f"nothing is prepared in {prepared}: first run  {remedy}")
    for name in broken_tables(prepared, manifest):
        raise InputError(f"{prepared / name} is missing or was changed after script 1 wrote it: run  {remedy}")
    return manifest


def broken_tables(prepared: Path, manifest: dict) -> list[str]:
    """Names of the tables that are not those that the manifest sealed."""
    return [name for name, expected in manifest["tables"].items()
            if not (prepared / name).is_file() or file_hash(prepared / name) != expected]
