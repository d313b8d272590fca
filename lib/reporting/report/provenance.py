"""Where the results of report.html come from: data, models with their thresholds, versions of packages."""

from __future__ import annotations

from lib.packages import FOLDSCAN, versions
from lib.reporting.glossary import number, unit_of
from lib.reporting.report.facts import folds_text, read_if_there, status_of
from lib.reporting.report.source import Source
from lib.tasks.wording import Threshold

# what script 4 computes with
RUNNING = ("onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "pandas", "scikit-learn", "opencv-python", "matplotlib")


def largest_differences(source: Source) -> dict[int, float]:
    """fold -> the largest difference between network and ONNX file that was found, as a share of the output's largest value;
    {} where parity.csv does not speak of these models."""
    found: dict[int, float] = {}
    for row in [] if source.loaded else read_if_there(source.onnx / "parity.csv"):
        fold = int(row["fold"])
        if fold in source.models:
            share = float(row["largest_difference"]) / (float(row["largest_value"]) or 1.0)
            found[fold] = max(found.get(fold, 0.0), share)
    return found


def size_unit(source: Source) -> str:
    """That of the sizes of regions, "" where cases differ."""
    units = {case.geometry.size_unit for case in source.prepared.cases}
    return unit_of(f"size_{units.pop()}") if len(units) == 1 else ""


def threshold_value(threshold: Threshold, unit: str) -> str:
    """0.4; 0.1 mL (default)."""
    shown = f"{threshold.value:.3g} {unit}" if threshold.sized and unit else f"{threshold.value:.3g}"
    return f"{shown} (default)" if threshold.default else shown


def thresholds_of(task, network: dict, model: dict) -> tuple[Threshold, ...]:
    """Those that a model decides by."""
    words = task.with_calibration(model.get("calibration", {})).wording(network)
    return words.thresholds if words else ()


def model_text(source: Source, task, fold: int, parity: float | None) -> str:
    """What is known of a fold's model, in one line."""
    model = source.models[fold]
    parts = [f"checkpoint {model.get('checkpoint') or 'unknown'}", f"epoch {model['epoch'] + 1}",
             {"unfinished": "UNFINISHED training"}.get(status_of(source, fold), status_of(source, fold))]
    if fold not in source.scored:
        parts.append("no validation")
    elif model["score"] is not None:  # a checkpoint between epochs has none
        parts.append(f"{model['metric']} {number(model['score'], model['metric'].partition('/')[0])}")
    parts += [f"ONNX differs by at most {parity:.1e} of the largest value"] if parity is not None else []
    unit = size_unit(source)
    parts += [f"{one.name}: {threshold_value(one, unit)}" for one in thresholds_of(task, model["study"]["network"], model)]
    return ", ".join(parts)


def provenance_rows(source: Source, task, manifest: dict) -> list[tuple[str, str]]:
    """(what, which): fingerprints, models, versions; nothing of this machine but what computed. task: by which is judged."""
    prepared, parity = source.prepared, largest_differences(source)
    rows = [("Study", manifest["study"] if isinstance(manifest["study"], str) else manifest["study"]["name"]),
            ("Run", source.name), ("Data fingerprint", prepared.fingerprint),
            ("Channels", ", ".join(prepared.manifest["channels"]))]
    rows += [("Loaded model", source.loaded)] if source.loaded else []
    rows += [(f"Model of fold {fold}", model_text(source, task, fold, parity.get(fold))) for fold in source.models]
    rows += [("Tolerance", f"{task.tolerance_mm:g} mm")] if task.tolerance_mm else []
    return rows + [("Computed on", manifest["computed_on"]), ("Packages, here", versions_text(versions(RUNNING))),
                   ("Packages, training", trained_with(source) or "unknown"),
                   ("Packages, preparation", versions_text(prepared.manifest.get("packages", {})))]


def trained_with(source: Source) -> str:
    """Packages that networks were trained and exported with: each with its version, or those of the folds where they differ."""
    folds: dict[str, dict[str, list[int]]] = {}  # package -> version -> folds
    for fold, model in source.models.items():
        for name, version_ in model.get("packages", {}).items():
            folds.setdefault(name, {}).setdefault(version_, []).append(fold)
    return versions_text({name: next(iter(found)) if len(found) == 1 else
                          " and ".join(f"{version_} ({folds_text(where)})" for version_, where in found.items())
                          for name, found in folds.items()})


def versions_text(versions: dict[str, str]) -> str:
    names = {FOLDSCAN: "FoldScan"}
    return ", ".join(f"{names.get(name, name)} {version_}" for name, version_ in versions.items())
