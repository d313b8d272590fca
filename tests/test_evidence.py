"""evidence.npz: what goes in comes out, to the type and the bit, and the same evidence is the same file."""

from __future__ import annotations

import math
import zipfile

import numpy as np
import pytest

from lib.evidence import read_evidence, write_evidence
from lib.study import InputError

EVIDENCE = [
    {"patient": "P 1", "case": "Zoë \u2603 \udcff", "fold": 0, "truth": 1, "threshold": None, "right": True,
     "probabilities": np.array([0.1, 0.9], np.float32), "sizes": [1.5, 0.1 + 0.2, math.inf, -0.0], "pair": (1, ("a", [])),
     "presence": {"stroke": 1e-300, "nested": {"errors": {"px": np.array([[np.nan, 2.0]])}}}},
    {"patient": "P 2", "case": "", "fold": "", "truth": np.int64(3), "threshold": np.float32(0.3), "right": np.bool_(False),
     "probabilities": np.array([0.7, 0.3], np.float32), "sizes": [], "pair": (), "presence": {},
     "big": 2**70, "empty": np.zeros((0, 4), np.float16), "zero": np.array(7, np.int16), "flags": np.array([[True], [False]]),
     "names": np.array(["a", "longer"]), "swapped": np.array([1, 2], ">i4"), "column": np.arange(6).reshape(2, 3).T},
    {},
]


def same(one, other) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, (np.ndarray, np.generic)):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)  # tells -0.0 from 0.0, and nan is nan


def test_what_goes_in_comes_out(tmp_path):
    write_evidence(tmp_path / "evidence.npz", EVIDENCE)
    assert same(read_evidence(tmp_path / "evidence.npz"), EVIDENCE)
    assert not same([{"a": 1}], [{"a": True}]) and not same([np.zeros(2)], [np.zeros(2, np.float32)])  # the judge can say no
    write_evidence(tmp_path / "none.npz", [])
    assert read_evidence(tmp_path / "none.npz") == []


def test_what_comes_out_can_be_written_to(tmp_path):
    write_evidence(tmp_path / "evidence.npz", [{"a": np.zeros(2)}, {"a": np.zeros(2)}])
    first, second = read_evidence(tmp_path / "evidence.npz")
    first["a"][:] = 1
    assert second["a"].tolist() == [0, 0]


def test_same_evidence_same_bytes_and_no_pickle(tmp_path):
    for name in ("one.npz", "other.npz"):
        write_evidence(tmp_path / name, EVIDENCE)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as file:
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with np.load(tmp_path / "one.npz", allow_pickle=False) as file:
        assert len(file.files) == len({name for name in file.files if file[name].dtype.kind != "O"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "other.npz"]


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, np.array([None]), np.ma.zeros(2), np.zeros(2, [("a", "f4")]), b"raw", 1j])
def test_what_it_does_not_know_is_refused(tmp_path, value):
    with pytest.raises(TypeError, match="evidence"):
        write_evidence(tmp_path / "evidence.npz", [{"value": value}])
    assert list(tmp_path.iterdir()) == []


def test_broken_files_are_said_in_words(tmp_path):
    path = tmp_path / "evidence.npz"
    with pytest.raises(InputError, match="missing.*script 4"):
        read_evidence(path)
    write_evidence(path, EVIDENCE)
    whole = path.read_bytes()
    for broken in (b"", b"no archive", whole[:len(whole) // 2], whole[:80] + b"\0" * 40 + whole[120:]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="not readable.*script 4"):
            read_evidence(path)
    np.savez(path, other=np.zeros(2))
    with pytest.raises(InputError, match="not readable"):
        read_evidence(path)
