"""A training that was stopped at any moment ends as if it never was: to the bit, on the CPU with the same threads."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import torch

from conftest import RUN, TINY, command_of, run_script, script_environment, table
from lib.checkpoints import save_checkpoint
from lib.study import InputError, load_study


class PowerCut(BaseException):
    """Stops a training in this process as abruptly as Python allows."""


def cut_off(epoch: int, batch: int):
    """A `progress` that ends the world at a batch of an epoch, both counted from 0 within this process."""
    calls = itertools.count()

    def progress(items, total, headline="", status=None, unit="it"):
        if unit != "batch":  # validation
            yield from items
            return
        number = next(calls)
        for index, item in enumerate(items):
            if (number, index) == (epoch, batch):
                raise PowerCut
            yield item
    return progress


def assert_same(one, other, where=""):
    """Equal to the bit, tensors and all."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other)):
            assert_same(*pair, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} {other}"


def assert_same_fold(one, other):
    for name in ("best.pt", "last.pt"):
        assert_same(*(torch.load(folder / name, weights_only=True) for folder in (one, other)), name)
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


def test_killed_training_goes_on_to_the_same_bits(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    arguments = ("-k", 0, *TINY, "-e", 5)
    run_script("2a", *arguments, "-n", "whole", cwd=tmp_path)
    process = subprocess.Popen(command_of("2a", *arguments, "-n", "killed"), cwd=tmp_path, env=script_environment(),
                               stdout=subprocess.DEVNULL)
    metrics, deadline = place.fold(0, "killed") / "metrics.csv", time.monotonic() + 120
    while not metrics.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it did not finish before
    left = torch.load(place.fold(0, "killed") / "last.pt", weights_only=True)
    assert 1 <= left["epoch"] < 5 and not left["finished"]
    text = run_script("2a", *arguments, "-n", "killed", cwd=tmp_path).stdout
    assert f"from epoch {left['epoch'] + 1}" in text and "epoch 1/5" not in text
    assert_same_fold(place.fold(0, "whole"), place.fold(0, "killed"))
    assert len(table(metrics)) == 5
    assert not [path for path in place.space.root.rglob("*") if "partial" in path.name and path.suffix != ".pt"]


@pytest.mark.parametrize("settings", [
    ("optimizer=sgd", "schedule=one_cycle"), ("optimizer=adam", "schedule=plateau", "schedule_options={patience: 0}"),
    ("optimizer=adamw", "schedule=cosine_restarts", "schedule_options={T_0: 2}"), ("accumulate=2", "amp=false"),
    ("schedule=constant", "select=loss"), ("optimizer=rmsprop", "learning_rate=1.0e-4", "average=0.9")], ids="-".join)
def test_every_schedule_and_optimiser_goes_on_in_mid_epoch(prepared, tmp_path, settings):
    place = prepared.copy(tmp_path, "prepared")
    overrides = [f"training.{setting}" for setting in ("epochs=3", *settings)]
    place.train(0, "whole", *overrides)
    with pytest.raises(PowerCut):
        place.train(0, "cut", *overrides, progress=cut_off(1, 1))
    with pytest.raises(PowerCut):  # and once more, in the very first batch after going on and an epoch
        place.train(0, "cut", *overrides, progress=cut_off(1, 0))
    place.train(0, "cut", *overrides)
    assert_same_fold(place.fold(0, "whole"), place.fold(0, "cut"))


def test_killed_before_any_write_it_goes_on_to_the_same_bits(prepared, tmp_path, monkeypatch):
    """Every file is put in place by os.replace: stop before the first, the second, ... until it runs through."""
    place, replace = prepared.copy(tmp_path, "prepared"), os.replace
    place.train(0, "whole")
    wrong = []
    for stop in itertools.count():
        count = itertools.count()

        def fail(source, target):
            if next(count) == stop:
                raise PowerCut
            replace(source, target)
        monkeypatch.setattr(os, "replace", fail)
        try:
            place.train(0, "cut")
            break  # fewer writes than `stop`: every moment has been tried
        except PowerCut:
            pass
        finally:
            monkeypatch.setattr(os, "replace", replace)
        place.train(0, "cut")
        try:
            assert_same_fold(place.fold(0, "whole"), place.fold(0, "cut"))
        except AssertionError as error:
            wrong.append(f"stopped before write {stop}: {str(error).splitlines()[0][:200]}")
        shutil.rmtree(place.space.run("cut"))
    assert stop >= 6 and not wrong, "\n".join(wrong)


def test_finished_folds_are_skipped_and_no_resume_trains_anew(trained, tmp_path):
    place = trained.copy(tmp_path, "prepared", "runs")
    folder = place.fold(0)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    text = run_script("2b", "--folds", 0, *TINY, cwd=tmp_path).stdout
    assert "finished before" in text and before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    rows = table(place.space.run(RUN) / "crossvalidation.csv")
    assert [row["status"] for row in rows] == ["finished"] * 3  # the others are still in the table
    # anew in one more process, alone and not two at a time: the same bits as the fold of the shared workspace
    text = run_script("2a", "-k", 0, "--no-resume", *TINY, cwd=tmp_path).stdout
    assert "epoch 1/2" in text and "finished before" not in text
    assert_same_fold(trained.fold(0), folder)
    assert len((folder / "train.log").read_text().splitlines()) == len((trained.fold(0) / "train.log").read_text().splitlines())


def test_other_settings_do_not_mix_with_an_interrupted_fold(trained, tmp_path):
    place = trained.copy(tmp_path, "prepared", "runs")
    before = (place.fold(0) / "last.pt").read_bytes()
    text = run_script("2a", *TINY, "-lr", 0.5, cwd=tmp_path, expect=2).stderr
    assert re.search(r"learning_rate: \S+ -> 0\.5", text) and "--no-resume" in text
    assert (place.fold(0) / "last.pt").read_bytes() == before
    assert place.train(0, RUN, "tracking.project=other").already_finished  # what changes no weight may differ


def test_conversion_and_inference_of_the_same_checkpoint_repeat(tested, tmp_path):
    place = tested.copy(tmp_path, "prepared", "runs", "results")
    for fold in (1, 2):
        shutil.rmtree(place.fold(fold))
    before = (place.results / "results.csv").read_text().splitlines()
    text = run_script("3", cwd=tmp_path).stdout
    assert "fold 1, 2" in text  # said that they have no model
    first, again = (p.space.onnx(RUN) / "fold0.onnx" for p in (tested, place))
    assert first.read_bytes() == again.read_bytes()
    run_script("4", "--no-heatmaps", cwd=tmp_path)
    after = (place.results / "results.csv").read_text().splitlines()
    start = f"flair_visibility,{RUN},0,"
    assert [r for r in after if r.startswith(start)] == [r for r in before if r.startswith(start)] != []


def test_early_stopping_waits_for_patience_and_keeps_the_best(prepared, tmp_path, monkeypatch):
    import lib.selection
    place = prepared.copy(tmp_path, "prepared")
    monkeypatch.setattr(lib.selection.Selection, "score_of", lambda self, row: 0.5)  # the first is never bettered
    best = place.train(0, RUN, "training.epochs=9", "training.patience=2")
    losses = [float(row["validation_loss"]) for row in table(place.fold(0) / "metrics.csv")]
    assert len(losses) == 3 and best.epoch == losses.index(min(losses))  # of equal scores that with the lower loss
    assert place.train(0, RUN, "training.epochs=9", "training.patience=2").already_finished


def test_weights_that_know_the_test_patients_are_refused(prepared, tmp_path):
    """A checkpoint of another fold was trained on patients whom this one tests."""
    from lib.data.store import Prepared
    from lib.runs import check_start
    from lib.workspace import read_manifest
    place = prepared.copy(tmp_path, "prepared")
    data = Prepared(place.space.prepared, read_manifest(place.space.prepared))
    study = load_study("flair_visibility")
    kept = {"study": {"data": {"classes": list(study.data.classes)}}, "fold": 0, "fingerprint": data.fingerprint,
            "test_patients": data.test_hash(0)}
    path = tmp_path / "weights.pt"

    def start(fold: int, **changed) -> None:
        save_checkpoint(path, {**kept, **changed})
        check_start(dataclasses.replace(study, network={**study.network, "weights": str(path)}), data, fold)

    start(0)
    with pytest.raises(InputError, match="a checkpoint of fold 0 of this very data, and was trained on patients whom fold 1 tests"):
        start(1)
    start(1, fingerprint="other")  # said, not refused
    with pytest.raises(InputError, match="for the classes a, b, not brain"):
        start(0, study={"data": {"classes": ["a", "b"]}})
