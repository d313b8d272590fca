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
from lib.checkpoints import load_checkpoint, save_checkpoint
from lib.study import InputError, load_study
from lib.training import Trainer
from lib.workspace import alone_in


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


def test_a_kept_epoch_that_repeats_worse_stays_the_best(prepared, tmp_path, monkeypatch):
    """Killed between best.pt and last.pt, on a device that does not repeat to the bit: the kept epoch is still the best."""
    from lib.selection import Selection
    place, replace, scores = prepared.copy(tmp_path, "prepared"), os.replace, {0: 0.5, 1: 0.7, 2: 0.6}
    monkeypatch.setattr(Selection, "score_of", lambda self, row: scores[row["epoch"]])

    def fail(source, target):
        if target.name == "last.pt" and len(load_checkpoint(source)["history"]) == 2:
            raise PowerCut
        replace(source, target)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PowerCut):
        place.train(0, "cut", "training.epochs=3")
    monkeypatch.setattr(os, "replace", replace)
    kept = load_checkpoint(place.fold(0, "cut") / "best.pt")
    scores[1] = 0.4
    best = place.train(0, "cut", "training.epochs=3")
    assert (best.epoch, best.score) == (kept["epoch"], kept["score"]) == (1, 0.7)
    assert_same(load_checkpoint(best.path)["network"], kept["network"])
    again = place.train(0, "cut", "training.epochs=3")
    assert again.already_finished and (again.epoch, again.score) == (1, 0.7)


# --- files and processes from elsewhere ------------------------------------------------------------------------------

def test_best_of_another_run_is_never_taken_for_this_ones(prepared, tmp_path, monkeypatch):
    place, finish = prepared.copy(tmp_path, "prepared"), Trainer._finish
    place.train(0, "other", "training.seed=1")
    folder = place.fold(0)
    best, foreign = folder / "best.pt", (place.fold(0, "other") / "best.pt").read_bytes()

    def stop(self, progress):
        raise PowerCut

    def exchange(self, progress):
        best.write_bytes(foreign)
        return finish(self, progress)

    def refused(message: str, content: bytes | None = None) -> None:
        """Whatever lies there is not touched, and what was there goes on."""
        own = best.read_bytes()
        best.write_bytes(own if content is None else content)
        with pytest.raises(InputError, match=message) as raised:
            place.train(0, RUN)
        assert "fold0/best.pt" in str(raised.value) and "--no-resume" in str(raised.value)
        assert content is None or best.read_bytes() == content
        best.write_bytes(own)

    def changed(**values) -> bytes:
        save_checkpoint(tmp_path / "changed.pt", {**load_checkpoint(best), **values})
        return (tmp_path / "changed.pt").read_bytes()

    monkeypatch.setattr(Trainer, "_finish", stop)  # after the last epoch
    with pytest.raises(PowerCut):
        place.train(0, RUN)
    refused(r"training\.seed: 0 -> 1", foreign)
    refused("epoch: found 7, expected [01]; ", changed(epoch=7, score=0.5))
    own = best.read_bytes()
    monkeypatch.setattr(Trainer, "_finish", exchange)  # while it trains
    refused(r"training\.seed: 0 -> 1")
    best.write_bytes(own)
    monkeypatch.setattr(Trainer, "_finish", finish)
    place.train(0, RUN)

    # the same for a fold that is finished
    assert place.train(0, RUN).already_finished
    refused("without its thresholds", own)
    refused("score: found 0.75, expected ", changed(score=0.75))
    refused("test_patients: found others, expected ", changed(test_patients="others"))
    refused("metric: found loss, expected dice/all", changed(metric="loss"))
    refused("not a readable checkpoint", b"cut short")
    refused("score: found None, expected", (folder / "last.pt").read_bytes())
    best.write_bytes(foreign)
    text = run_script("2a", *TINY, cwd=tmp_path, expect=2).stderr
    assert text.startswith("error: ") and text.count("\n") == 1 and "training.seed: 0 -> 1" in text


@pytest.mark.parametrize("resume", [True, False])
def test_one_process_at_a_time_trains_a_fold(prepared, tmp_path, resume):
    """The second of two is refused from the first batch on, whether it goes on or begins anew; --no-resume lets nobody in."""
    place, met = prepared.copy(tmp_path, "prepared"), []
    place.fold(0).mkdir(parents=True)
    (place.fold(0) / "left.txt").write_text("of an earlier training")

    def meanwhile(items, total, headline="", status=None, unit="it"):
        for item in items:
            if not met:
                for second in (True, False):
                    with pytest.raises(InputError) as raised:
                        place.train(0, RUN, resume=second)
                    met.append(str(raised.value))
            yield item
    best = place.train(0, RUN, progress=meanwhile, resume=resume)
    assert met == [f"another FoldScan process is training {place.fold(0)}: wait for it, or end it"] * 2
    assert (place.fold(0) / "left.txt").exists() == resume
    assert place.train(0, RUN).already_finished and not best.already_finished


def test_a_fold_that_another_process_trains_fails_in_2b(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    with alone_in(place.fold(0), "training"):
        place.train(1, RUN)  # another fold of the run
        run = run_script("2b", "--folds", 0, *TINY, cwd=tmp_path, expect=1)
        assert re.search(r"^error: another FoldScan process is training \S+fold0: wait for it, or end it$", run.stderr, re.M)
        assert list(place.fold(0).iterdir()) == []
    row, = (row for row in table(place.space.run(RUN) / "crossvalidation.csv") if row["fold"] == "0")
    assert row["status"].startswith("failed") and row["attempts"] == "1"
    assert not place.fold(0).exists()  # made for the lock, and still empty


def test_a_lock_leaves_nothing_and_needs_no_file_system_with_locks(prepared, tmp_path, monkeypatch):
    import fcntl
    place = prepared.copy(tmp_path, "prepared")
    with pytest.raises(InputError, match="training.select"):
        place.train(0, RUN, "training.select=nonsense")
    assert not (place.space.root / "runs").exists()

    def no_locks(*arguments):
        raise OSError(37, "No locks available")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    place.train(0, RUN, "training.epochs=1")


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
