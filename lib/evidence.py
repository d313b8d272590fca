"""evidence.npz of a results folder: the little of every case that numbers over the whole set are made of.

A file that NumPy opens without pickle: `structure` is the list of dicts as JSON (UTF-8 bytes), in which each array has left its
dtype and shape; its values lie in `values_<number>`, one flat array per dtype, in the order in which they are met.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from lib.study import InputError
from lib.workspace import replacing

EVIDENCE = "evidence.npz"
BROKEN = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile,
          zlib.error)  # what NumPy, zipfile and the way back say of bytes that are no evidence


def write_evidence(path: Path, evidence: Sequence[dict]) -> None:
    """Write pieces of evidence, one per case; the same evidence gives the same bytes.

    What a piece may hold, however nested: str, int, float, bool, None, lists, tuples, dicts with str keys, NumPy arrays and
    NumPy scalars. TypeError for anything else, and for arrays of Python objects, records or subclasses of arrays.
    """
    stores: dict[str, list[np.ndarray]] = {}
    structure = json.dumps([pack(one, stores) for one in evidence], ensure_ascii=False, separators=(",", ":"))
    values = {f"values_{index}": np.concatenate(parts, dtype=dtype) for index, (dtype, parts) in enumerate(stores.items())}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, structure=np.frombuffer(structure.encode("utf-8", "surrogatepass"), np.uint8), **values)


def read_evidence(path: Path) -> list[dict]:
    """What `write_evidence` was given: same types, dtypes and values. Raises InputError for a file that is missing or broken."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # np.load leaves a broken one open
            structure = json.loads(file["structure"].tobytes().decode("utf-8", "surrogatepass"))
            stores = [file[f"values_{index}"] for index in range(len(file.files) - 1)]
        reader = Unpacker({store.dtype.str: store for store in stores})
        evidence = [reader.unpack(one) for one in structure]
        if reader.unread():
            raise ValueError("values are left over")
        return evidence
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run script 4 again, which writes it") from None
    except BROKEN as error:
        raise InputError(f"{path} is not readable ({error}): run script 4 again, which writes it") from None


def pack(value: Any, stores: dict[str, list[np.ndarray]]) -> Any:
    """A value as JSON: what JSON has no word for becomes a list that starts with one. Arrays go into `stores`, by dtype."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) in (list, tuple):
        return [type(value).__name__, *(pack(item, stores) for item in value)]
    if type(value) is dict:
        strange = [key for key in value if type(key) is not str]
        if strange:
            raise TypeError(f"evidence: the keys of a dict must be text, not {strange[0]!r}")
        return {key: pack(item, stores) for key, item in value.items()}
    if type(value) is np.ndarray or isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in "biufcSUmM":
            raise TypeError(f"evidence: no arrays of {array.dtype}")
        stores.setdefault(array.dtype.str, []).append(array.reshape(-1))
        return ["array" if type(value) is np.ndarray else "scalar", array.dtype.str, list(array.shape)]
    raise TypeError(f"evidence: no {type(value).__name__}")


class Unpacker:
    """The way back from `pack`, once through all of it. stores: dtype -> (n,) the values of all arrays of that dtype."""

    def __init__(self, stores: dict[str, np.ndarray]):
        self.stores, self.places = stores, dict.fromkeys(stores, 0)

    def unpack(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.unpack(item) for key, item in value.items()}
        if not isinstance(value, list):
            return value
        word, *items = value
        if word in ("list", "tuple"):
            return [list, tuple][word == "tuple"](self.unpack(item) for item in items)
        if word not in ("array", "scalar"):
            raise ValueError(f"unknown {word!r}")
        array = self.take(*items)
        return array[()] if word == "scalar" else array

    def take(self, dtype: str, shape: list[int]) -> np.ndarray:
        start = self.places[dtype]
        stop = self.places[dtype] = start + int(np.prod(shape, dtype=np.int64))
        if stop > len(self.stores[dtype]):
            raise ValueError("values are missing")
        return self.stores[dtype][start:stop].reshape(shape).copy()

    def unread(self) -> bool:
        return any(self.places[dtype] != len(store) for dtype, store in self.stores.items())
