"""Traps that the seeds fell into, and others like them, each pinned by a test."""

from __future__ import annotations

import json
import math
import re
import runpy
import shutil
import sys

import nibabel
import numpy as np
import pytest
import torch

from conftest import FOLDS, PREPARE, ROOT, RUN, SCRIPTS, TINY, run_script, table
from lib.data.batches import gather, window_index
from lib.study import InputError, Window


def trainer_of(place, fold: int, *overrides: str, folder=None):
    """A Trainer of one fold as train_fold makes it, for a look inside."""
    from lib.training import Trainer, open_fold
    prepared, study = place.open(*overrides)
    return Trainer(study, open_fold(prepared, fold), folder or place.fold(fold, "inside"), torch.device("cpu"))


def onnx_metadata(path) -> dict:
    import onnx
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


# --- best, not latest ------------------------------------------------------------------------------------------------

def test_the_best_epoch_is_converted_not_the_latest(prepared, tmp_path, monkeypatch):
    import lib.selection
    from lib.onnx_model import OnnxModel
    place = prepared.copy(tmp_path, "prepared")
    overrides = ("training.select=dice/brain", "training.epochs=3")
    # the first epoch is the best one and stays it
    monkeypatch.setattr(lib.selection.Selection, "score_of", lambda self, row: 0.5 - row["epoch"] / 10)
    place.train(0, RUN, *overrides)
    best, last = (torch.load(place.fold(0) / name, weights_only=True) for name in ("best.pt", "last.pt"))
    assert best["epoch"] == 0 and last["epoch"] == 3
    run_script("3", cwd=tmp_path)
    meta = onnx_metadata(place.space.onnx(RUN) / "fold0.onnx")
    assert meta["epoch"] == 0 and meta["metric"] == "dice/brain"

    trainer = trainer_of(place, 0, *overrides)
    prepared_data, study = place.open()
    windows = gather(prepared_data.frames, window_index(prepared_data.samples.take(slice(10, 14)), study.window)).astype(np.float32)
    found = OnnxModel(place.space.onnx(RUN) / "fold0.onnx", "cpu").run(windows)["logits"]

    def logits(state):
        trainer.network.load_state_dict(state["network"])
        with torch.no_grad():
            return trainer.network.eval()(torch.from_numpy(windows))["logits"].numpy()
    assert np.abs(found - logits(best)).max() < 1e-3 < 10 * 1e-3 < np.abs(found - logits(last)).max()


@pytest.mark.parametrize("select", ["dice", "loss", "dice/brain"])
def test_best_is_the_best_of_metrics_csv(prepared, tmp_path, select):
    place = prepared.copy(tmp_path, "prepared")
    place.train(1, RUN, f"training.select={select}", "training.epochs=4", "training.learning_rate=0.02")
    rows = table(place.fold(1) / "metrics.csv")
    scores = [float(row[{"loss": "validation_loss", "dice": "dice/all"}.get(select, select)]) for row in rows]
    best = torch.load(place.fold(1) / "best.pt", weights_only=True)
    wanted = min(scores) if select == "loss" else max(scores)
    assert best["epoch"] == scores.index(wanted) and best["score"] == pytest.approx(wanted)


def test_without_validation_patients_the_last_epoch_is_kept_and_said_loudly(prepared, tmp_path, capsys):
    place = prepared.copy(tmp_path, "prepared")
    run_script("1", *PREPARE, "-v", 0, "--set", "report.figures=false", cwd=tmp_path)
    best = place.train(0, RUN)
    assert best.epoch == 1 and "WARNING" in capsys.readouterr().out


# --- windows, truth, augmentation ------------------------------------------------------------------------------------

def test_first_and_last_slices_have_their_true_neighbours(prepared):
    """The seed's last slice of the data set lost its neighbours; and no window may reach into another patient."""
    data, _ = prepared.open()
    index = window_index(data.samples, Window(3, 1))
    end = len(data.frames) - 1
    assert index[end].tolist() == [end - 1, end, end] and index[0].tolist() == [0, 0, 1]
    assert index[7].tolist() == [6, 7, 7] and index[8].tolist() == [8, 8, 9]  # Patient_01 has slices 0 to 7
    wide = window_index(data.samples, Window(7, 2))
    assert wide[end].tolist() == [end - 6, end - 4, end - 2, end, end, end, end]
    owner = np.array([row["case"] for row in table(data.folder / "samples.csv")])
    assert (owner[wide] == owner[:, None]).all()

    windows = gather(data.frames, index)
    scan = nibabel.as_closest_canonical(nibabel.load(prepared.patients / "Patient_07" / "b1000.nii.gz"))
    raw = np.asarray(scan.dataobj, np.float32).transpose(2, 1, 0)
    for place, z in enumerate((6, 7, 7)):  # the last window against the file itself, shrunk by 2 x 2 means
        shrunk = raw[z].reshape(32, 2, 32, 2).mean(axis=(1, 3))
        found = windows[end, place, 1].astype(np.float32)
        assert np.corrcoef(found.ravel(), shrunk.ravel())[0, 1] > 0.99
        assert np.corrcoef(found.ravel(), raw[z - 3].reshape(32, 2, 32, 2).mean(axis=(1, 3)).ravel())[0, 1] < 0.98


def test_script_4_scores_the_truth_that_is_stored(tested, tmp_path):
    """The seed's test set was read without labels: every truth was empty."""
    place = tested.copy(tmp_path, "prepared", "onnx", "results")
    name = "Patient_04"
    before = {tuple(row.values())[:-1]: row["value"] for row in table(place.results / "results.csv") if row["case"]}
    image = nibabel.as_closest_canonical(nibabel.load(place.results / "predictions" / f"{name}.nii.gz"))
    predicted = np.asarray(image.dataobj).transpose(3, 2, 1, 0) == 1
    np.save(place.space.prepared / "truth" / "000003.npy", np.packbits(predicted, axis=-1))
    run_script("4", "--no-heatmaps", cwd=tmp_path)
    after = {tuple(row.values())[:-1]: row["value"] for row in table(place.results / "results.csv") if row["case"]}
    assert {key for key in before if key[4] != name and before[key] != after[key]} == set()
    for cls, mask in zip(("brain", "stroke", "flair_visible"), predicted):
        values = {key[6]: value for key, value in after.items() if key[4] == name and key[5] == cls}
        assert (values["dice"], values["hd95_mm"]) == (("1", "0") if mask.any() else ("", ""))
    assert before["flair_visibility", RUN, *next(k[2:4] for k in before if k[4] == name), name, "brain", "dice"] != "1"


def test_validation_is_never_augmented(prepared, monkeypatch):
    import lib.training
    absurd = ("augmentation.transform_prob=1", "augmentation.rotation_range=[90,170]", "augmentation.zoom_range=[0.2,0.3]",
              "augmentation.brightness_shift=[5,9]", "augmentation.noise_level=[5,9]", "augmentation.flip_rows=true")
    plain, wild = trainer_of(prepared, 0), trainer_of(prepared, 0, *absurd)
    wild.network.load_state_dict(plain.network.state_dict())
    first = plain.validation.scores(plain.kept)
    assert first == plain.validation.scores(plain.kept) or all(a == b or math.isnan(a) for a, b in zip(first.values(), plain.validation.scores(plain.kept).values()))
    for key, value in wild.validation.scores(wild.kept).items():
        assert value == first[key] or math.isnan(value), key
    from lib.progress import no_progress
    assert wild.train_epoch(no_progress)["train_loss"] != plain.train_epoch(no_progress)["train_loss"]  # but training is

    def forbidden(*_):
        raise AssertionError("augmentation in validation")
    monkeypatch.setattr(lib.training, "augment", forbidden)
    plain.validation.scores(plain.kept)
    with pytest.raises(AssertionError, match="augmentation"):
        plain.train_epoch(no_progress)


def test_an_empty_mask_has_no_largest_component(prepared):
    from lib.imaging.brainmask import largest_component
    from lib.tasks import make_task
    assert not largest_component(np.zeros((4, 5, 6), bool)).any()
    data, study = prepared.open()
    task, case = make_task(study), data.cases[0]
    prediction = task.decode({"logits": np.full((8, 3, 32, 32), -20, np.float32)}, case)
    assert not prediction.masks.any() and task.volume(prediction).shape == (8, 64, 64, 3)
    scores = task.score(prediction, data.truth(case), case)
    assert scores["brain", "dice"] == 0 and math.isnan(scores["brain", "hd95_mm"]) and scores["brain", "volume_ml"] == 0


def test_a_last_batch_of_one_sample_does_not_stop_the_default_network(prepared):
    """DeepLabV3+ normalises one pooled value per channel; over a single sample that has no variance."""
    from lib.progress import no_progress
    trainer = trainer_of(prepared, 0, "network={name: smp/DeepLabV3Plus/resnet18}", "training.batch_size=12")
    assert len(trainer.fold.train) % 12 == 1
    losses = trainer.train_epoch(no_progress)
    assert math.isfinite(losses["train_loss"])


# --- failures show ---------------------------------------------------------------------------------------------------

def test_a_failing_fold_fails_the_command_and_the_table_says_which(prepared, tmp_path):
    """Fold A trains on a poisoned patient, fold B tests it, fold C cannot write: only B finishes, and all is told.

    A crash that is tried again is in test_cluster: these two are for the person at the shell to mend.
    """
    place = prepared.copy(tmp_path, "prepared")
    rows = table(place.space.prepared / "splits.csv")
    where = {patient: {int(r["fold"]): r["subset"] for r in rows if r["patient"] == patient} for patient in {r["patient"] for r in rows}}
    patient = min(p for p, subsets in where.items() if sorted(subsets.values()) == ["test", "train", "train"])
    finishes = next(fold for fold, subset in where[patient].items() if subset == "test")
    poisoned, crashes = (fold for fold in range(3) if fold != finishes)
    frames = np.load(place.space.prepared / "frames.npy", mmap_mode="r+")
    for sample in table(place.space.prepared / "samples.csv"):
        if sample["patient"] == patient:
            frames[int(sample["sample"]), 1, 10, 10] = np.nan
    frames.flush()
    place.space.run(RUN).mkdir(parents=True)
    place.fold(crashes).write_text("in the way")

    run = run_script("2b", "-j", 2, *TINY, cwd=tmp_path, expect=1)
    message = re.search(r"the loss is not finite.*", run.text)[0]
    trained_on = {r["patient"] for r in rows if int(r["fold"]) == poisoned and r["subset"] == "train"}
    named = set(re.findall(r"Patient_\d+", message))
    assert patient in named <= trained_on
    status = {int(row["fold"]): row for row in table(place.space.run(RUN) / "crossvalidation.csv")}
    assert status[finishes]["status"] == "finished" and float(status[finishes]["score"]) >= 0
    assert status[poisoned]["status"].startswith("failed") and status[poisoned]["attempts"] == "1"  # bad input: no use in trying again
    assert status[crashes]["status"].startswith("failed") and status[crashes]["attempts"] == "1"
    for fold in (poisoned, crashes):
        assert re.search(rf"^ *{fold} .*failed", run.stdout, re.M)
    assert re.search(rf"FAILED: fold {min(poisoned, crashes)}, {max(poisoned, crashes)}", run.stdout)
    assert (place.fold(finishes) / "best.pt").is_file()


def test_a_loss_that_is_not_finite_stops_and_says_only_what_is_true(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    with pytest.raises(InputError, match="not finite") as raised:
        place.train(0, RUN, "training.learning_rate=1e30", "training.clip_norm=0")
    message = str(raised.value)
    assert "Patient_" in message and "1e+30" in message
    assert ("last.pt" in message) == (place.fold(0) / "last.pt").is_file()


def test_a_model_that_answers_nan_is_one_line(tested, tmp_path, monkeypatch):
    """No number comes of it, and the last results stay."""
    from lib.inference import test_folds
    from lib.onnx_model import OnnxModel
    from lib.progress import no_progress
    place = tested.copy(tmp_path, "prepared", "onnx", "results")
    before = (place.results / "results.csv").read_bytes()
    answers = OnnxModel.run
    monkeypatch.setattr(OnnxModel, "run", lambda self, windows: {name: np.where(np.arange(value.size).reshape(value.shape) == 7,
                                                                               np.nan, value)
                                                                 for name, value in answers(self, windows).items()})
    prepared, study = place.open()
    with pytest.raises(InputError, match=r"fold0\.onnx answers Patient_\d+ with numbers that are not finite"):
        test_folds(prepared, study, place.space, RUN, None, "cpu", no_progress)
    assert (place.results / "results.csv").read_bytes() == before


def test_a_test_that_fails_keeps_the_comparisons(tested, tmp_path, monkeypatch):
    """Only results that were replaced make a comparison stale; what is no comparison is left alone."""
    import lib.inference
    from lib.progress import no_progress
    place = tested.copy(tmp_path, "prepared", "onnx", "results")
    others = place.space.root / "results" / "other"
    made = {name: others / f"compare-{name}" / "manifest.json" for name in (RUN, "third", "odd", "broken")}
    for name, path in made.items():
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"b": {"folder": f"results/{name}"}}))
    made["odd"].write_text("{}")
    made["broken"].write_text("{")
    prepared, study = place.open("report.heatmaps=false")
    monkeypatch.setattr(lib.inference, "provenance", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lib.inference.test_folds(prepared, study, place.space, RUN, None, "cpu", no_progress)
    assert all(path.is_file() for path in made.values())
    monkeypatch.undo()
    lib.inference.test_folds(prepared, study, place.space, RUN, None, "cpu", no_progress)
    assert {name: path.is_file() for name, path in made.items()} == {RUN: False, "third": True, "odd": True, "broken": True}


@pytest.mark.parametrize("name", ["a/b", ".hidden", "FVV.partial", "compare-FVV"])
def test_names_of_runs_that_are_folders_of_ours_are_refused(name, tmp_path):
    assert "the name of a run" in run_script("4", "-n", name, cwd=tmp_path, expect=2).stderr


def test_a_model_that_fails_parity_is_not_left_in_place(converted, tmp_path, monkeypatch, capsys):
    import lib.conversion
    place = converted.copy(tmp_path, "prepared", "runs", "onnx")
    for fold in (1, 2):
        shutil.rmtree(place.fold(fold))
    monkeypatch.setattr(lib.conversion, "OUTPUT_TOLERANCE", -1.0)
    monkeypatch.setattr(sys, "argv", [SCRIPTS["3"]])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / SCRIPTS["3"]), run_name="__main__")
    assert ended.value.code == 1 and "FAILED parity and removed: fold 0" in capsys.readouterr().out
    folder = place.space.onnx(RUN)
    # the older fold0 went too, and those of folds that have no checkpoint any more
    assert not list(folder.glob("*.onnx"))
    passed = {row["fold"]: row["passed"] for row in table(folder / "parity.csv")}
    assert passed == {"0": "no"}


def test_a_checkpoint_of_another_fold_is_refused(converted, tmp_path):
    place = converted.copy(tmp_path, "prepared", "runs", "onnx")
    before = {path.name: path.read_bytes() for path in place.space.onnx(RUN).iterdir()}
    other = place.fold(1) / "best.pt"
    text = run_script("3", "--checkpoint", f"0={other}", cwd=tmp_path, expect=2).stderr
    assert str(other) in text and "fold 1, not 0" in text and "Traceback" not in text
    run_script("3", "--checkpoint", f"7={other}", cwd=tmp_path, expect=2)
    run_script("3", "--checkpoint", "0", cwd=tmp_path, expect=2)
    assert before == {path.name: path.read_bytes() for path in place.space.onnx(RUN).iterdir()}


def test_a_checkpoint_by_name_is_the_one_converted(trained, tmp_path):
    place = trained.copy(tmp_path, "prepared", "runs")
    for fold in (1, 2):
        shutil.rmtree(place.fold(fold))
    chosen = tmp_path / "kept.pt"
    state = torch.load(place.fold(0) / "best.pt", weights_only=True)
    torch.save({**state, "epoch": 41}, chosen)
    run_script("3", "--checkpoint", f"0={chosen}", "--onnx-dir", tmp_path / "models", cwd=tmp_path)
    assert onnx_metadata(tmp_path / "models" / "fold0.onnx")["epoch"] == 41
    assert not place.space.onnx(RUN).exists()


def test_stale_files_are_refused_with_the_command_that_renews_them(tested, tmp_path):
    place = tested.copy(tmp_path)
    run_script("1", *PREPARE, "-v", 0.5, "--set", "report.figures=false", cwd=tmp_path)
    results = (place.results / "results.csv").read_bytes()
    for name, arguments, stale, remedy in (("2a", TINY, "last.pt", r"2a-Training.py.*--no-resume"),
                                           ("2b", TINY, "last.pt", r"2b-TrainingKFolds.py.*--no-resume"),
                                           ("3", (), "best.pt", r"2b-TrainingKFolds.py.*--no-resume"),
                                           ("4", (), "fold0.onnx", r"3-ConvertModels.py")):
        text = run_script(name, *arguments, cwd=tmp_path, expect=2).stderr
        assert stale in text and "stale" in text and re.search(rf"python {remedy}", text), text
        assert "Traceback" not in text and text.count("\n") == 1
    assert (place.results / "results.csv").read_bytes() == results
    run_script("1", *PREPARE, "--set", "report.figures=false", cwd=tmp_path)  # as it was: everything fits again
    run_script("4", "--no-heatmaps", cwd=tmp_path)
    assert (place.results / "results.csv").read_bytes() == results


def test_debug_leaves_nothing(prepared, tmp_path):
    place = prepared.copy(tmp_path, "prepared")
    before = sorted(path for path in tmp_path.rglob("*"))
    for switch in (("-d",), ("-d", "True")):
        text = run_script("2a", *switch, *TINY, "--tracker", "wandb", cwd=tmp_path).stdout
        assert "all checks passed" in text and "training batches" in text
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not place.space.run(RUN).exists()


def test_preloading_changes_nothing(trained, tmp_path):
    place = trained.copy(tmp_path, "prepared")
    run_script("2a", "-ram", *TINY, cwd=tmp_path)
    assert (place.fold(0) / "metrics.csv").read_bytes() == (trained.fold(0) / "metrics.csv").read_bytes()


def test_debug_mode_knows_the_balanced_sampler(prepared, tmp_path):
    """-d looks at the first few samples only, and so must the sampler."""
    place = prepared.copy(tmp_path, "prepared")
    run = run_script("2a", "-d", *TINY, "--set", "training.sampler=balanced", "--set", "training.batch_size=2", cwd=tmp_path)
    assert "all checks passed" in run.stdout and not place.space.run(RUN).exists()


def test_a_best_checkpoint_that_this_training_has_not_kept_is_not_converted(trained, tmp_path):
    from lib.checkpoints import load_checkpoint, save_checkpoint
    from lib.conversion import collect
    place = trained.copy(tmp_path, "prepared", "runs")
    prepared, _ = place.open()
    assert sorted(collect(prepared, place.space, RUN, {})) == list(range(FOLDS))
    path = place.fold(1) / "best.pt"
    kept = load_checkpoint(path)
    save_checkpoint(path, {**kept, "score": kept["score"] + 0.1})
    with pytest.raises(InputError, match=r"fold1/best.pt is not the best epoch of this training \(score: .*-k 1 --no-resume"):
        collect(prepared, place.space, RUN, {})
    assert sorted(collect(prepared, place.space, RUN, {1: path})) == list(range(FOLDS))  # named by hand, and told so
