"""[3] Best checkpoints to self-contained ONNX files, each proven against its network in ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from lib.checkpoints import as_kept, check_best, check_fingerprint, load_checkpoint
from lib.data.store import Prepared
from lib.networks import make_network
from lib.onnx_model import OnnxModel
from lib.prediction import predict_cases, torch_run
from lib.progress import no_progress, print_line
from lib.study import InputError, Study, study_from_dict, training_differences, without_paths
from lib.tasks import make_task
from lib.workspace import Workspace, file_hash, read_table, replacing, write_table

OPSET = 18
PARITY_CASES = 2
BATCHES = (1, 5)  # 5 rarely divides a series, so that a last, smaller batch is tried as well
OUTPUT_TOLERANCE = 1e-3  # of an output's largest value: float32 sums in another order
SMALLEST, SMALLEST_MAP = 1.0, 1e-5  # where an output's largest value is below this, the tolerance is of this
METRIC_TOLERANCE = 1e-3
COLUMNS = ("fold", "case", "batch", "output", "largest_value", "largest_difference", "metric", "torch_score", "onnx_score", "passed")


def parse_checkpoints(texts: list[str]) -> dict[int, Path]:
    """["0=a.pt", "3=b.pt"] -> {0: a.pt, 3: b.pt}. Raises InputError."""
    chosen = {}
    for text in texts:
        fold, equals, path = text.partition("=")
        if not equals or not fold.strip().isdigit() or int(fold) in chosen:
            raise InputError(f"--checkpoint {text!r}: expected FOLD=PATH, once per fold, such as 0=runs/FVV/fold0/last.pt")
        chosen[int(fold)] = Path(path)
    return chosen


def convert_folds(prepared: Prepared, space: Workspace, name: str, chosen: dict[int, Path],
                  onnx_dir: Path | None = None, progress=no_progress) -> tuple[list[dict], Path]:
    """Convert each fold's checkpoint; returns the rows of parity.csv and the folder. Raises InputError.

    A model that fails parity is removed, an older one of that fold with it.
    """
    folder = onnx_dir or space.onnx(name)
    checkpoints = collect(prepared, space, name, chosen)
    for old in folder.glob("fold*.onnx"):  # a fold without a checkpoint must not be tested by an older model
        if old.name not in {f"fold{fold}.onnx" for fold in checkpoints}:
            old.unlink()
            print(f"removed {old}: its fold has no checkpoint in run {name}")
    rows = []
    for fold, (path, checkpoint) in progress(checkpoints.items(), len(checkpoints), "converting", unit="fold"):
        target = folder / f"fold{fold}.onnx"
        candidate = folder / f"fold{fold}.candidate.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found, passed = convert(path, checkpoint, prepared, candidate, chosen=fold in chosen)
            if passed:
                os.replace(candidate, target)
            else:
                target.unlink(missing_ok=True)  # an older model must not stand in for one that fails
        finally:
            candidate.unlink(missing_ok=True)
        rows += found
        print_line(f"fold {fold}: {path} (epoch {checkpoint['epoch'] + 1}, {checkpoint['metric']}"
              f"{score_text(checkpoint['score'])}{'' if checkpoint.get('finished') else ', UNFINISHED training'}) -> "
              f"{target if passed else 'FAILED parity'}; outputs differ by at most {most(found):.1e} of their largest value")
    prepared.check_unchanged()
    write_parity(folder / "parity.csv", rows)
    missing = [fold for fold in sorted(prepared.splits) if not (folder / f"fold{fold}.onnx").is_file()]
    if missing:
        print(f"no model yet for fold {', '.join(map(str, missing))}: only the other folds will be tested")
    return rows, folder


def convert(path: Path, checkpoint: dict, prepared: Prepared, candidate: Path, chosen: bool) -> tuple[list[dict], bool]:
    """Write the checkpoint of `path` as `candidate` and prove it: its rows of parity.csv, and whether all passed."""
    task = export(checkpoint, prepared, candidate, file_hash(path), chosen)
    rows = parity(checkpoint, prepared, task, candidate, checkpoint["fold"])
    return rows, all(row["passed"] == "yes" for row in rows)


def loaded_model(prepared: Prepared, space: Workspace, name: str, path: Path) -> tuple[Path, str]:
    """A model that the user named: (ONNX file, a short name for its results). A checkpoint is converted first.

    Raises InputError for a stale checkpoint, or one whose conversion fails parity.
    """
    if path.suffix == ".onnx":
        return path, f"{path.resolve().parent.name}-{path.stem}"
    checkpoint = as_kept(load_checkpoint(path))
    check_fingerprint(path, checkpoint["fingerprint"], prepared.fingerprint, f"python 2a-Training.py {space.arguments} "
                      f"-n {name} -k {checkpoint['fold']} --no-resume")
    label = f"{path.resolve().parent.parent.name}-fold{checkpoint['fold']}-{path.stem}"  # run, fold, file
    target = space.onnx(name) / f"load-{label}.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with replacing(target) as candidate:
        rows, passed = convert(path, checkpoint, prepared, candidate, chosen=True)
        if not passed:
            raise InputError(f"{path}: its ONNX file does not give the network's answers (they differ by {most(rows):.1e} of "
                             "their largest value)")
    return target, label


def collect(prepared: Prepared, space: Workspace, name: str, chosen: dict[int, Path]) -> dict:
    """fold -> (path, checkpoint), each checked: right fold, this prepared data, one set of settings."""
    for fold in chosen:
        prepared.check_fold(fold)
    found = {}
    for fold in sorted(prepared.splits):
        path = chosen.get(fold, space.fold(name, fold) / "best.pt")
        if fold in chosen or path.is_file():
            found[fold] = (path, as_kept(load_checkpoint(path)))
            if fold not in chosen:
                check_is_kept(*found[fold], f"python 2a-Training.py {space.arguments} -n {name} -k {fold} --no-resume")
    if not found:
        raise InputError(f"run {name!r} has no trained fold in {space.run(name)}: first run  "
                         f"python 2b-TrainingKFolds.py {space.arguments} -n {name}")
    first = next(iter(found.values()))
    for fold, (path, checkpoint) in found.items():
        if checkpoint["fold"] != fold:
            raise InputError(f"{path} was trained as fold {checkpoint['fold']}, not {fold}: its test patients are others")
        check_fingerprint(path, checkpoint["fingerprint"], prepared.fingerprint,
                          f"python 2b-TrainingKFolds.py {space.arguments} -n {name} --no-resume")
        changed = training_differences(first[1]["study"], checkpoint["study"])
        if changed and not chosen:
            raise InputError(f"{path} was trained with other settings than {first[0]} ({'; '.join(changed)}): train all "
                             "folds of a run alike, or name checkpoints with --checkpoint FOLD=PATH")
    return found


def check_is_kept(path: Path, checkpoint: dict, remedy: str) -> None:
    """Raise InputError for a best.pt beside the last.pt of a finished training that has not kept it."""
    last = path.with_name("last.pt")
    state = load_checkpoint(last) if last.is_file() else {}
    if state.get("finished"):
        check_best(path, checkpoint, state, remedy)


def export(checkpoint: dict, prepared: Prepared, path: Path, source: str, chosen: bool = False):
    """Write the checkpoint's network as ONNX with its metadata; returns the calibrated task.

    source: hash of the checkpoint's file, so that a model is known to be older than a fold trained anew.
    chosen: the user named this checkpoint, so its settings may differ from those of the other folds.
    """
    study = study_from_dict(checkpoint["study"])
    task = make_task(study).with_calibration(checkpoint.get("calibration", {}))
    network = restore_network(study, checkpoint, task)
    example = torch.zeros(2, study.window.frames, checkpoint["channels"], *study.data.size)
    with torch.no_grad():
        names = list(network(example))
    with quiet():
        torch.onnx.export(network, (example,), path, dynamo=True, opset_version=OPSET, external_data=False,
                          input_names=["frames"], output_names=names,
                          dynamic_shapes={"frames": {0: torch.export.Dim("batch")}}, verbose=False)
    seal(path, {**metadata(study, {**task.reads, **network.explanation}, checkpoint, prepared), "chosen": json.dumps(chosen),
                "checkpoint": json.dumps(source), "parameters": json.dumps(sum(p.numel() for p in network.parameters())),
                "packages": json.dumps({**checkpoint.get("packages", {}), "onnx": version("onnx")})})
    return task


def restore_network(study: Study, checkpoint: dict, task) -> torch.nn.Module:
    """The checkpoint's network as it is exported: it explains itself where the study names a layer for that."""
    network = make_network(study, checkpoint["channels"], task.outputs, weights_follow=True).eval()
    network.load_state_dict(checkpoint["network"])
    network.explain()
    return network


def metadata(study: Study, outputs: dict[str, str], checkpoint: dict, prepared: Prepared) -> dict[str, str]:
    """All that a program needs to use the model, and all that script 4 needs to refuse it, as JSON texts. outputs: name ->
    what it means."""
    data = study.data
    return {key: json.dumps(value, sort_keys=True) for key, value in {
        "foldscan": 1, "study": without_paths(study), "fold": checkpoint["fold"], "fingerprint": checkpoint["fingerprint"],
        "test_patients": checkpoint["test_patients"], "classes": data.classes, "calibration": checkpoint.get("calibration", {}),
        "input": {"layout": "batch, frames, channels, rows, columns", "channels": prepared.manifest["channels"],
                  "frames": study.window.frames, "stride": study.window.stride, "size": data.size,
                  "intensity": data.intensity, "clip": data.clip, "store": data.store,
                  "scale": study.window.scale, "orientation": "as in the image file" if prepared.cases[0].geometry.flat
                  else "rows to anterior, columns to left (RAS)", "fit": "scaled to fit, then padded: corner = (size - scaled) // 2"},
        "outputs": outputs,
        "amp": checkpoint.get("amp"), "epoch": checkpoint["epoch"], "metric": checkpoint["metric"],
        "score": finite_or_none(checkpoint["score"]),
        "finished": checkpoint.get("finished", False)}.items()}


def score_text(score: float) -> str:
    return f" {score:.4f}" if np.isfinite(score) else ""


def finite_or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def seal(path: Path, values: dict[str, str]) -> None:
    """Add metadata, and drop what the exporter notes of this machine (stack traces with local paths)."""
    import onnx
    model = onnx.load(path)
    model.doc_string = ""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        parts = [*graph.node, *graph.value_info]
        if graph is model.graph:
            parts += [*graph.input, *graph.output, *graph.initializer]
        for part in parts:
            part.doc_string = ""
            del part.metadata_props[:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, values)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def parity(checkpoint: dict, prepared: Prepared, task, path: Path, fold: int) -> list[dict]:
    """Torch and ONNX Runtime on whole validation cases (training cases where there are none), at several batch sizes."""
    study = study_from_dict(checkpoint["study"])
    network = restore_network(study, checkpoint, task)
    model = OnnxModel(path, "cpu")
    cases = (prepared.cases_of(fold, "validation") or prepared.cases_of(fold, "train"))[:PARITY_CASES]
    series = [(case, prepared.samples_of([case])) for case in cases]
    metric = checkpoint["metric"] if checkpoint["metric"].split("/")[0] in task.case_metrics else f"{task.case_metrics[0]}/all"
    rows = []
    for batch in BATCHES:
        ours = predict_cases(torch_run(network, torch.device("cpu")), prepared.frames, series, study.window, batch)
        theirs = predict_cases(model.run, prepared.frames, series, study.window, batch)
        for (case, expected), (_, found) in zip(ours, theirs):
            rows.append({"fold": fold, "case": case.case, "batch": batch, "metric": metric,
                         **compare(expected, found, task, prepared.truth(case), case, metric)})
    return rows


def compare(expected: dict, found: dict, task, truth, case, metric: str) -> dict:
    """The output that differs most for its size, by how much, and both final scores of one case."""
    # what the task does not read is only looked at, and may be small
    sizes = {name: max(SMALLEST if name in task.reads else SMALLEST_MAP, float(np.abs(value).max()))
             for name, value in expected.items()}
    differences = {name: float(np.abs(found[name] - value).max()) for name, value in expected.items()}
    worst = max(sizes, key=lambda name: np.nan_to_num(differences[name] / sizes[name], nan=np.inf))
    scores = []
    for outputs in (expected, found):
        rows = task.score(task.decode(outputs, case), truth, case, distances=False)
        name, cls = metric.split("/")
        scores.append(float(rows[cls, name]))
    same = np.isclose(*scores, rtol=0, atol=METRIC_TOLERANCE, equal_nan=True)
    passed = bool(differences[worst] <= OUTPUT_TOLERANCE * sizes[worst] and same)  # a NaN difference fails
    return {"output": worst, "largest_value": sizes[worst], "largest_difference": differences[worst], "torch_score": scores[0],
            "onnx_score": scores[1], "passed": "yes" if passed else "no"}


def most(rows: list[dict]) -> float:
    """The largest difference in rows of parity.csv, as a share of the output's largest value."""
    return max(row["largest_difference"] / row["largest_value"] for row in rows)


def write_parity(path: Path, rows: list[dict]) -> None:
    """Rows of the folds just converted; those of other folds that are still there stay."""
    converted = {row["fold"] for row in rows}
    kept = []
    if path.is_file():
        kept = [row for row in read_table(path) if int(row["fold"]) not in converted
                and path.with_name(f"fold{row['fold']}.onnx").is_file()]
    write_table(path, COLUMNS, sorted([*kept, *rows], key=lambda row: int(row["fold"])))


@contextlib.contextmanager
def quiet():
    """The exporter talks; what it says of its own progress is of no use to a person. Errors pass."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
