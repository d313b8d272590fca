"""Training epochs of the pipeline beside the bare forward, backward and step on tensors that lie in memory.

    python benchmarks/training_overhead.py -s nuchal_translucency -o demo/nuchal_translucency/workspace --epochs 3

Both do the same batches of the prepared fold 0 with the study's network, loss and optimiser; the pipeline also reads,
augments, checks and logs the losses. Epochs alternate, so that a busy machine slows both; the ratio is of medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from lib.commands import main, open_study, parser, training_arguments, training_overrides  # noqa: E402
from lib.data.batches import gather, training_batches, window_index  # noqa: E402
from lib.data.store import open_prepared  # noqa: E402
from lib.devices import choose_device, choose_kernels  # noqa: E402
from lib.optimisation import make_optimizer  # noqa: E402
from lib.progress import no_progress  # noqa: E402
from lib.training import Trainer, open_fold  # noqa: E402


def bare_epoch(trainer: Trainer, batches: list, optimizer) -> None:
    """Forward, loss, backward and step on ready tensors: nothing else."""
    trainer.network.train()
    for frames, targets in batches:
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=trainer.amp):
            outputs = trainer.network(frames)
        loss, _ = trainer.task.loss(outputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()


def seconds(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def compare() -> None:
    arguments = parser(__doc__)
    training_arguments(arguments)
    args = arguments.parse_args()
    repeats, args.epochs = args.epochs or 3, None  # here --epochs says how many are timed
    study, space, name = open_study(args, training_overrides(args))
    prepared, study = open_prepared(space, study, args.overrides)
    device = choose_device(args.device)
    choose_kernels(device)
    fold = open_fold(prepared, 0)
    trainer = Trainer(study, fold, space.fold(name, 0), device)
    order = list(range(len(fold.train)))
    batches = [(torch.from_numpy(gather(prepared.frames, window_index(batch, study.window))).float().to(device),
                torch.from_numpy(prepared.targets[batch.rows]).to(device))
               for batch in training_batches(fold.train, order, study.training.batch_size)]
    optimizer = make_optimizer(trainer.network, study.training)
    bare_epoch(trainer, batches, optimizer)  # warm up
    times = {"bare": [], "pipeline": []}
    for _ in range(repeats):
        times["bare"].append(seconds(lambda: bare_epoch(trainer, batches, optimizer)))
        times["pipeline"].append(seconds(lambda: trainer.train_epoch(no_progress)))
    bare, ours = (statistics.median(times[key]) for key in ("bare", "pipeline"))
    print(f"{len(fold.train)} samples, {study.network['name']} at {study.data.size[0]} x {study.data.size[1]}, {device}: "
          f"bare {bare:.2f} s, pipeline {ours:.2f} s per epoch, ratio {ours / bare:.3f}")


main(compare)
