"""lib.workspace: what is written takes its place whole or not at all, and the manifest seals the tables."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from lib import workspace
from lib.data.store import open_prepared
from lib.study import InputError, plain, study_from_dict
from lib.workspace import (TABLES, Workspace, building, cell, file_hash, read_json, read_manifest, read_table, recover,
                           replacing, require_manifest, text_hash, write_json, write_manifest, write_table, write_text)


def content(folder: Path) -> dict[str, str]:
    """Relative path -> text of every file below `folder`."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_path_of_the_contract():
    space = Workspace(Path("w"))
    assert [p.as_posix() for p in (space.prepared, space.run("A"), space.fold("A", 3), space.onnx("A"),
                                   space.results("A"))] == ["w/prepared", "w/runs/A", "w/runs/A/fold3", "w/onnx/A",
                                                            "w/results/A"]


def test_replacing_puts_the_new_file_in_place_at_the_end(tmp_path):
    path = tmp_path / "deep" / "table.nii.gz"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent and temporary.name.endswith("table.nii.gz") and temporary != path
        temporary.write_text("new")
        assert not path.exists()
    assert content(tmp_path) == {"deep/table.nii.gz": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_keeps_the_old_file_when_the_writer_fails(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert content(tmp_path) == {"table.csv": "old"}


def test_writing_json_that_cannot_be_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None, "é"]})
    with pytest.raises(ValueError):
        write_json(path, {"a": math.nan})
    assert read_json(path) == {"a": [1, None, "é"]}


def build(folder: Path, text: str = "new", keep: tuple[str, ...] = ()) -> None:
    with building(folder, keep) as partial:
        assert partial != folder and list(partial.iterdir()) == []
        (partial / "a.txt").write_text(text)


def test_building_replaces_the_whole_folder(tmp_path):
    folder = tmp_path / "prepared"
    build(folder, "first")
    (folder / "only_in_the_old.txt").write_text("x")
    build(folder, "second")
    assert content(tmp_path) == {"prepared/a.txt": "second"}


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_building_keeps_the_old_folder_when_it_fails(tmp_path, error):
    folder = tmp_path / "prepared"
    build(folder, "old")
    with pytest.raises(error), building(folder) as partial:
        (partial / "a.txt").write_text("half")
        raise error
    assert content(tmp_path) == {"prepared/a.txt": "old"}


def test_building_keeps_what_it_is_told_to(tmp_path):
    folder = tmp_path / "results"
    build(folder, "old")
    write_text(folder / "predict-new" / "b.txt", "of another command")
    build(folder, "new", keep=("predict-*",))
    assert content(tmp_path) == {"results/a.txt": "new", "results/predict-new/b.txt": "of another command"}


def test_what_a_killed_build_left_is_cleared_away(tmp_path):
    folder = tmp_path / "prepared"
    write_text(tmp_path / "prepared.partial" / "junk.txt", "half")
    build(folder)
    assert content(tmp_path) == {"prepared/a.txt": "new"}


def test_a_kill_between_the_two_renames_is_undone_or_finished(tmp_path):
    folder = tmp_path / "prepared"
    write_text(tmp_path / ".prepared.foldscan-replaced" / "a.txt", "old")
    recover(folder)  # the old one had been moved away, the new one was not there yet
    assert content(tmp_path) == {"prepared/a.txt": "old"}
    write_text(tmp_path / ".prepared.foldscan-replaced" / "a.txt", "older")
    recover(folder)  # the new one was there, the old one not yet deleted
    assert content(tmp_path) == {"prepared/a.txt": "old"}
    recover(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


class Killed(BaseException):
    """As if the process ended here: no code of the killed function runs after it."""


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_at_any_rename_loses_nothing(tmp_path, monkeypatch, moment):
    """The old or the new folder is somewhere whole, and what was to be kept is there after the next build."""
    folder = tmp_path / "results"
    build(folder, "old")
    write_text(folder / "predict-new" / "b.txt", "hours of work")
    real, calls = os.replace, []

    def replace(source, target):
        if len(calls) == moment:
            raise Killed
        calls.append(source)
        real(source, target)

    monkeypatch.setattr(workspace.os, "replace", replace)
    try:
        build(folder, "new", keep=("predict-*",))
    except Killed:
        pass
    monkeypatch.undo()
    survivor = folder if folder.exists() else tmp_path / ".results.foldscan-replaced"
    assert (survivor / "a.txt").read_text() in ("old", "new")
    build(folder, "newest", keep=("predict-*",))
    assert content(tmp_path) == {"results/a.txt": "newest", "results/predict-new/b.txt": "hours of work"}


@pytest.mark.parametrize("value, expected", [
    (0.1 + 0.2, "0.3"), (1 / 3, "0.3333333333"), (1e-12, "1e-12"), (123456789012.0, "1.23456789e+11"), (2.0, "2"),
    (float("nan"), ""), (None, ""), (7, 7), ("text", "text"), (0.0, "0"), (np.float64("nan"), ""),
    (np.float64(0.1) + 0.2, "0.3"), (float("inf"), "inf"),
])
def test_cells(value, expected):
    assert cell(value) == expected


def test_a_table_survives_commas_quotes_and_newlines(tmp_path):
    rows = [{"a": 'say "x", y', "b": 1.5}, {"a": "two\nlines", "c": "left out"}]
    write_table(tmp_path / "t.csv", ["a", "b"], rows)
    assert (tmp_path / "t.csv").read_bytes() == b'a,b\n"say ""x"", y",1.5\n"two\nlines",\n'
    assert read_table(tmp_path / "t.csv") == [{"a": 'say "x", y', "b": "1.5"}, {"a": "two\nlines", "b": ""}]


def test_hashes_depend_on_content_alone(tmp_path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).write_text(text)
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") != file_hash(tmp_path / "c")
    assert text_hash({"a": 1, "b": 2}) == text_hash({"b": 2, "a": 1}) != text_hash({"a": 2, "b": 1})


def prepared_folder(space: Workspace) -> dict:
    """A hand-written `prepared/` of one case with two frames and one class; returns its study."""
    study = study_from_dict({"name": "tiny", "data": {"reader": {}, "classes": ["lesion"], "size": [8, 8]},
                             "task": {"kind": "segmentation"}, "network": {"name": "smp/Unet/resnet18"}})
    truth = np.zeros((1, 2, 3, 3), bool)
    truth[0, 1, 2, 0] = True
    with building(space.prepared) as folder:
        np.save(folder / "frames.npy", np.zeros((2, 1, 8, 8), np.float16))
        np.save(folder / "targets.npy", np.zeros((2, 1, 8, 8), np.uint8))
        (folder / "truth").mkdir()
        np.save(folder / "truth" / "000000.npy", np.packbits(truth, axis=-1))
        write_table(folder / "samples.csv", ["sample", "case", "patient", "frame", "series_start", "series_stop"],
                    [dict(sample=i, case="c", patient="p", frame=i, series_start=0, series_stop=2) for i in (0, 1)])
        geometry = {"shape": [2, 3, 3], "spacing_mm": [5, 1, 1], "flat": False, "turn": 2,
                    "source": {}}
        write_table(folder / "cases.csv", ["case", "patient", "samples", "files", "geometry", "content"],
                    [dict(case="c", patient="p", samples=2, files="{}", geometry=json.dumps(geometry), content="x")])
        write_table(folder / "folds.csv", ["patient", "fold", "stratum"], [dict(patient="p", fold=0, stratum="s")])
        write_table(folder / "splits.csv", ["fold", "patient", "subset"], [
            dict(fold=0, patient="p", subset="test"), dict(fold=1, patient="p", subset="train")])
        write_manifest(folder, plain({
            "study": study.to_dict(), "data_as_written": study.to_dict()["data"], "fingerprint": "f",
            "channels": ["t1"], "frames_shape": [2, 1, 8, 8], "targets_shape": [2, 1, 8, 8]}))
    return study


def test_the_manifest_seals_each_table(tmp_path):
    space = Workspace(tmp_path)
    prepared_folder(space)
    assert set(require_manifest(space.prepared, "COMMAND")["tables"]) == set(TABLES)
    for name in TABLES:
        path = space.prepared / name
        original = path.read_bytes()
        for changed in (original.replace(b"p", b"q", 1), original + b"\n", None):
            path.unlink() if changed is None else path.write_bytes(changed)
            with pytest.raises(InputError, match=f"{name} is missing or was changed .* run  COMMAND"):
                require_manifest(space.prepared, "COMMAND")
            path.write_bytes(original)
    require_manifest(space.prepared, "COMMAND")


def test_no_manifest_is_not_prepared(tmp_path):
    with pytest.raises(InputError, match="nothing is prepared in .*: first run  COMMAND"):
        require_manifest(tmp_path / "prepared", "COMMAND")
    space = Workspace(tmp_path)
    prepared_folder(space)
    path = space.prepared / "manifest.json"
    write_json(path, {**read_json(path), "format": workspace.FORMAT + 1})
    assert read_manifest(space.prepared) is None  # of another version: as good as none
    path.write_text('{"format": 1, "stu')
    with pytest.raises(InputError, match="not readable: delete .* and run script 1 again"):
        read_manifest(space.prepared)


def test_prepared_data_is_opened_as_it_was_written(tmp_path):
    space = Workspace(tmp_path)
    prepared, study = open_prepared(space, prepared_folder(space), [])
    assert (prepared.fingerprint, prepared.channels, len(prepared.samples)) == ("f", 1, 2)
    [case] = prepared.cases
    assert (case.case, case.patient, case.samples) == ("c", "p", slice(0, 2))
    assert (case.geometry.shape, case.geometry.spacing_mm, case.geometry.turn) == ((2, 3, 3), (5, 1, 1), 2)
    assert np.argwhere(prepared.truth(case)).tolist() == [[0, 1, 2, 0]]
    assert prepared.patients(0, "test") == ["p"] and prepared.cases_of(1, "train") == [case]
    assert len(prepared.samples_of(prepared.cases_of(0, "train"))) == 0
    with pytest.raises(InputError, match="fold 2 does not exist: .* has folds 0 to 1"):
        prepared.check_fold(2)


def test_other_data_keys_or_another_study_are_refused(tmp_path):
    space = Workspace(tmp_path)
    study = prepared_folder(space)
    with pytest.raises(InputError, match="--set data.clip=3: data keys are fixed when the data is prepared"):
        open_prepared(space, study, ["training.epochs=3", "data.clip=3"])
    changed = study_from_dict({**study.to_dict(), "data": {**study.to_dict()["data"], "clip": 3}})
    with pytest.raises(InputError, match=r"data.clip: 10.0 -> 3.0\): run 1-DataPreparation.py again"):
        open_prepared(space, changed, [])
    with pytest.raises(InputError, match="prepared for study 'tiny', not 'other'"):
        open_prepared(space, study_from_dict({**study.to_dict(), "name": "other"}), [])


def test_damaged_arrays_say_so(tmp_path):
    space = Workspace(tmp_path)
    study = prepared_folder(space)
    path = space.prepared / "frames.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="unreadable arrays .* run script 1 again"):
        open_prepared(space, study, [])
    np.save(path, np.zeros((3, 1, 8, 8), np.float16))
    with pytest.raises(InputError, match="does not have the shape in the manifest"):
        open_prepared(space, study, [])
