"""Run a model over whole cases: one case in memory at a time, the next batch read while this one computes."""

from __future__ import annotations

from typing import Callable, Iterator, Sequence

import numpy as np

from lib.data.batches import batches, gather, read_ahead, spread_windows, window_index
from lib.data.store import CaseRecord, Samples
from lib.study import Window

BATCH = 8  # windows that script 4 gives to a model at once
Run = Callable[[np.ndarray], dict[str, np.ndarray]]  # (B, T, C, H, W) as stored -> named outputs (B, ...)


def predict_cases(run: Run, frames: np.ndarray, series: Sequence[tuple[CaseRecord, Samples]], window: Window,
                  batch_size: int) -> Iterator[tuple[CaseRecord, dict[str, np.ndarray]]]:
    """Yield each case with its outputs (samples of the case, or windows of its whole series; ...), in order.

    frames: (N, C, H, W), stored; series: the cases with their samples. Batches never mix cases.
    """
    plan = [(case, batch, last) for case, samples in series for spread in [spread_windows(samples, window)]
            for batch, last in mark_last(list(batches(spread, np.arange(len(spread)), batch_size)))]
    load = lambda item: (item[0], item[2], gather(frames, window_index(item[1], window)))  # noqa: E731
    collected: list[dict[str, np.ndarray]] = []
    for case, last, windows in read_ahead(plan, load):
        collected.append(run(windows))
        if last:
            yield case, {name: np.concatenate([part[name] for part in collected]) for name in collected[0]}
            collected = []


def mark_last(items: list) -> list[tuple]:
    return [(item, index == len(items) - 1) for index, item in enumerate(items)]


def torch_run(network, device, amp: bool = False) -> Run:
    """A Run of a torch network in evaluation mode, without gradients."""
    import torch

    def run(windows: np.ndarray) -> dict[str, np.ndarray]:
        network.eval()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
            outputs = network(torch.from_numpy(windows).to(device).float())
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}
    return run
