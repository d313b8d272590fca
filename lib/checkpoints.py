"""What a checkpoint holds: written atomically, read without running any code in it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from lib.study import InputError, training_differences
from lib.workspace import replacing

FORMAT = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Plain values and tensors only, so that `weights_only` can read it."""
    # through an open file: given a name, torch writes it into the archive, and equal checkpoints would differ
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint on the CPU. Raises InputError for anything that is not one of ours."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint {path}") from None
    except Exception as error:  # torch raises many kinds for files that it cannot read; each means the same here
        raise InputError(f"{path} is not a readable checkpoint ({' '.join(str(error).split())[:160]})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or "fingerprint" not in content:
        raise InputError(f"{path} is not a FoldScan checkpoint")
    return content


def as_kept(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as scripts 3 and 4 take it: best.pt and epochNNN.pt as they are; of last.pt the weights that would be
    kept if training ended there, without score and thresholds."""
    if "best_epoch" not in checkpoint:
        return checkpoint
    average = {key.removeprefix("module."): value for key, value in checkpoint["average"].items()
               if key.startswith("module.")}
    return {**checkpoint, "epoch": checkpoint["epoch"] - 1, "score": math.nan, "calibration": {},
            "network": average or checkpoint["network"]}


def check_fingerprint(path: Path, found: str, prepared: str, remedy: str) -> None:
    """Stop if `path` was made from other prepared data."""
    if found != prepared:
        raise InputError(f"{path} is stale: it was made from other prepared data (fingerprint {found[:8]}, now "
                         f"{prepared[:8]}). Renew it with  {remedy}")


def check_best(path: Path, best: dict[str, Any], last: dict[str, Any], remedy: str, ahead: bool = False) -> None:
    """Stop if `best`, read from `path`, is not the best epoch of the training that `last` tells of, as last.pt does: a file
    from elsewhere would pass for it, under settings that never made it. ahead: its epoch and score are not compared.

    Raises InputError.
    """
    pairs = {key: (best.get(key), last[key]) for key in ("fold", "fingerprint", "test_patients", "metric")}
    if not ahead:
        pairs |= {"epoch": (best.get("epoch"), last["best_epoch"]), "score": (best.get("score"), last["best_score"])}
    wrong = [f"{key}: found {found}, expected {expected}" for key, (found, expected) in pairs.items()
             if found != expected and not (found != found and expected != expected)]  # NaN without validation patients
    wrong += training_differences(last["study"], best["study"])
    if wrong:
        raise InputError(f"{path} is not the best epoch of this training ({'; '.join(wrong)}): put the file back that was there, "
                         f"or train the fold anew with  {remedy}")
