"""The only training loop: any task, any network, one fold; it can be killed at any moment and goes on."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from lib.checkpoints import check_best, load_checkpoint, save_checkpoint
from lib.data.augmentation import augment, check_augmentation
from lib.data.batches import balanced_order, epoch_order, gather, random_windows, read_ahead, training_batches, window_index
from lib.data.store import Prepared, Samples
from lib.devices import has_bf16, hash_seed, host_buffer
from lib.networks import check_outputs, make_network
from lib.networks.freezing import check_layers, set_trainable
from lib.optimisation import make_optimizer, make_schedule, warming_average
from lib.packages import versions
from lib.progress import no_progress
from lib.reporting.curves import draw_learning_curves
from lib.reporting.style import with_pdf
from lib.reporting.worksheets import write_worksheet
from lib.selection import Selection
from lib.study import InputError, Study, without_secrets
from lib.tasks import make_task
from lib.validation import Validation
from lib.workspace import write_table

PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "numpy")  # of which a checkpoint tells the version
AHEAD = 1  # batches read in advance
SCAN = 256  # targets looked at in one go
DEBUG_BATCHES = 4


@dataclass
class Fold:
    """The patients of one fold, ready to train on."""
    index: int
    prepared: Prepared
    train: Samples
    validation: list  # of (CaseRecord, Samples)


@dataclass
class Best:
    epoch: int
    metric: str
    score: float
    path: Path
    already_finished: bool = False

    def __str__(self) -> str:
        score = f"{self.metric} {self.score:.4f}" if math.isfinite(self.score) else self.metric
        return f"epoch {self.epoch + 1}, {score}"


def open_fold(prepared: Prepared, index: int) -> Fold:
    """Raises InputError if the fold does not exist or has nobody to train on."""
    train = prepared.samples_of(prepared.cases_of(index, "train"))
    if not len(train):
        raise InputError(f"fold {index} has no training patients: prepare with more patients, or a smaller -v")
    validation = [(case, prepared.samples_of([case])) for case in prepared.cases_of(index, "validation")]
    return Fold(index, prepared, train, validation)


class Trainer:
    """One fold being trained. `fit` runs it; everything that changes lives here and goes into last.pt."""

    def __init__(self, study: Study, fold: Fold, folder: Path, device: torch.device,
                 weights_follow: bool = False):
        self.study, self.fold, self.folder, self.device = study, fold, folder, device
        self.settings, self.tracker, self.log = study.training, None, print
        self.wants_pictures, self.pictures = False, {}  # of the last validation, for the tracker
        self.task = make_task(study)
        check_outputs(study, self.task)
        torch.manual_seed(self.settings.seed)
        self.network = make_network(study, fold.prepared.channels, self.task.outputs, weights_follow).to(device)
        for layers in self.settings.unfreezing.values():
            check_layers(self.network.core, layers)
        check_augmentation(study.augmentation, self.task, study.window, study.data.store)
        self.amp = self.settings.amp and has_bf16(device, self.network.layout)
        self.selection = Selection(self.settings, self.task, fold.index, bool(fold.validation))
        self.validation = Validation(study, self.task, fold.prepared, fold.validation, device, self.amp)
        if fold.validation:
            targets = (fold.prepared.targets[case.samples] for case, _ in fold.validation)  # read only if they are asked for
            self.task.check_selection(self.selection.select.partition("/")[0], targets)
        self.average = None
        if self.settings.average:
            self.average = AveragedModel(self.network, multi_avg_fn=warming_average(self.settings.average), use_buffers=True)
        self.optimizer = make_optimizer(self.network, self.settings)
        self.batches_per_epoch = math.ceil(len(fold.train) / self.settings.batch_size)
        steps = math.ceil(self.batches_per_epoch / self.settings.accumulate)
        self.schedule = make_schedule(self.optimizer, self.settings, steps, self.selection.larger_is_better)
        self.epoch, self.history, self.finished, self.calibration = 0, [], False, {}
        self.ahead: tuple[int, float] | None = None  # epoch and score of a best.pt that last.pt does not know of yet
        self._buffers: list[np.ndarray] = []
        self.packages = versions(PACKAGES)  # looked up once, told by every checkpoint

    @cached_property
    def groups(self) -> np.ndarray | None:
        """bool or int (S,): the balanced sampler draws as many training samples of each value; targets are read once, when
        the first epoch needs it."""
        if self.settings.sampler != "balanced":
            return None
        rows, targets = self.fold.train.rows, self.fold.prepared.targets
        return self.task.groups(np.concatenate([self.task.present(targets[rows[first:first + SCAN]])
                                                for first in range(0, len(rows), SCAN)]))

    @property
    def kept(self) -> torch.nn.Module:
        """The network that is validated and kept: the moving average of the weights where there is one, else the trained
        one."""
        return self.average.module if self.average else self.network

    # --- state ---------------------------------------------------------------------------------------------------

    def identity(self) -> dict:
        """What every checkpoint says of itself; file names are never asked."""
        prepared = self.fold.prepared
        return {"study": without_secrets(self.study.to_dict()), "fold": self.fold.index, "fingerprint": prepared.fingerprint,
                "channels": prepared.channels, "metric": self.selection.metric,
                "test_patients": prepared.test_hash(self.fold.index), "packages": self.packages, "amp": self.amp}

    def save_kept(self, name: str, epoch: int, score: float) -> None:
        """The network that is kept, as script 3 takes it."""
        save_checkpoint(self.folder / name, {
            **self.identity(), "epoch": epoch, "score": score, "calibration": self.calibration,
            "finished": self.finished, "network": self.kept.state_dict()})

    def save_last(self) -> None:
        """Data order, augmentation and dropout are seeded by (seed, fold, epoch), so the epoch is their state."""
        save_checkpoint(self.folder / "last.pt", {
            **self.identity(), "epoch": self.epoch, "history": self.history, "best_epoch": self.selection.epoch,
            "best_score": self.selection.score, "best_loss": self.selection.loss, "improved": self.selection.improved,
            "finished": self.finished, "tracker_id": self.tracker.id,
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "schedule": self.schedule.state(), "rng": torch.get_rng_state()})

    def resume(self, state: dict) -> None:
        """state: of last.pt, as runs.last_state gives it."""
        self.network.load_state_dict(state["network"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load(state["schedule"])
        torch.set_rng_state(state["rng"])
        self.epoch, self.history, self.finished = state["epoch"], state["history"], state["finished"]
        self.selection.epoch, self.selection.score = state["best_epoch"], state["best_score"]
        self.selection.loss = state.get("best_loss", math.inf)  # older files know neither
        self.selection.improved = state.get("improved", state["best_epoch"])
        self.ahead = state["ahead"]

    # --- one epoch -----------------------------------------------------------------------------------------------

    def train_epoch(self, progress) -> dict[str, float]:
        """Mean training loss and its parts over one epoch. Raises InputError on a loss that is not finite."""
        seed = (self.settings.seed, self.fold.index, self.epoch)
        torch.manual_seed(hash_seed(seed))
        generator = torch.Generator().manual_seed(hash_seed((*seed, 1)))
        samples, settings = random_windows(self.fold.train, self.study.window, (*seed, 2)), self.settings
        order = epoch_order(len(samples), seed) if self.groups is None else balanced_order(self.groups, seed)
        plan = training_batches(samples, order, settings.batch_size)
        self.network.train()
        learning = set_trainable(self.network.core, settings.unfrozen_at(self.epoch))
        if self.epoch in settings.unfreezing:
            self.log(f"from epoch {self.epoch + 1}: {settings.unfrozen_at(self.epoch)} of {len(self.network.core.layers)} layers "
                     f"learn, {learning:,} parameters")
        sums, count = {}, 0
        ahead = read_ahead(plan, self._load, AHEAD)
        shown = progress(ahead, self.batches_per_epoch, self._headline, lambda: self._status(sums, count), "batch")
        for number, (batch, frames, targets) in enumerate(shown):
            frames, targets = augment(self.study.augmentation, self.task, self._frames(frames),
                                      self._targets(targets), self.study.data.store, generator)
            loss, parts = self._loss(frames, targets)
            self._check_finite(loss, parts, batch)
            first = number // settings.accumulate * settings.accumulate
            (loss / min(settings.accumulate, self.batches_per_epoch - first)).backward()
            if (number + 1) % settings.accumulate == 0 or number + 1 == self.batches_per_epoch:
                self._step()
            for name, value in {"loss": loss, **parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(batch)
            count += len(batch)
        return {f"train_{name}": value / count for name, value in sums.items()}

    # --- the run -------------------------------------------------------------------------------------------------

    def fit(self, progress) -> Best:
        """Train to the last epoch or until `patience` runs out, keep the best, calibrate it."""
        settings = self.settings
        while self.epoch < settings.epochs and not self.selection.out_of_patience(self.epoch):
            started = time.perf_counter()
            rate = self.optimizer.param_groups[0]["lr"]
            row = {"epoch": self.epoch, "learning_rate": rate, **self.train_epoch(progress)}
            if self.fold.validation:
                row |= self.validation.scores(self.kept, self.pictures if self.wants_pictures else None, progress)
            score = self.selection.score_of(row)
            self.schedule.after_epoch(score)
            self.epoch += 1
            self.history.append(row)
            if self.selection.take(row["epoch"], score, row.get("validation_loss", math.inf)):
                self.save_kept("best.pt", row["epoch"], score)
            elif self.ahead:  # on a GPU the repeated epoch may turn out worse than the one that is kept
                self.selection.adopt(*self.ahead)
            self.ahead = None
            if settings.checkpoint_every and self.epoch % settings.checkpoint_every == 0:
                self.save_kept(f"epoch{self.epoch:03d}.pt", row["epoch"], score)
            self.save_last()
            self.write_metrics()
            self._report(row, score, time.perf_counter() - started)
        return self._finish(progress)

    def _finish(self, progress) -> Best:
        self.fold.prepared.check_unchanged()
        best = load_checkpoint(self.folder / "best.pt")
        check_best(self.folder / "best.pt", best, {**self.identity(), "best_epoch": self.selection.epoch,
                                                  "best_score": self.selection.score}, "--no-resume")
        self.kept.load_state_dict(best["network"])
        self.write_metrics()  # a kill may have come before the last row
        if self.fold.validation:
            self.calibration = self.validation.calibrate(self.kept, progress)
            chosen = ", ".join(f"{key} {value}" for key, value in self.calibration.items() if key != "cases" and value != {})
            if chosen:
                self.log(f"from {self.calibration['cases']} validation cases: {chosen}")
            if self.study.report.validation_pictures:
                self.validation.draw(self.kept, self.task.with_calibration(self.calibration), self.folder / "validation")
        else:
            self.log("WARNING: no validation patients, so the LAST epoch is kept and thresholds stay at their defaults")
        if self.selection.nothing_learnt:
            self.log(f"WARNING: {self.selection.column} was never above 0: this model has learned nothing. Train longer, or "
                     "look at the data (prepared/figures) and the learning rate")
        with with_pdf(self.study.report.pdf):
            draw_learning_curves(self.folder / "learning_curves.png", self.history, self.selection.column, self.selection.epoch)
        self.finished = True
        self.save_kept("best.pt", self.selection.epoch, self.selection.score)
        self.tracker.summary({"best_epoch": self.selection.epoch, f"best_{best['metric']}": self.selection.score})
        last = load_checkpoint(self.folder / "last.pt")
        save_checkpoint(self.folder / "last.pt", {**last, "finished": True})
        return Best(self.selection.epoch, best["metric"], self.selection.score, self.folder / "best.pt")

    def debug(self) -> None:
        """A few batches with every check on; writes nothing. Raises InputError or the failing check's own error."""
        with torch.autograd.set_detect_anomaly(True):
            rows = min(len(self.fold.train), DEBUG_BATCHES * self.settings.batch_size)
            self.groups = None if self.groups is None else self.groups[:rows]  # of all, before they are cut
            self.fold.train = self.fold.train.take(slice(0, rows))
            self.batches_per_epoch = math.ceil(rows / self.settings.batch_size)
            losses = self.train_epoch(no_progress)
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise InputError(f"parameter {name} is not finite after {self.batches_per_epoch} batches")
        self.log(f"{self.batches_per_epoch} training batches: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
        self.validation.cases = self.validation.cases[:1]
        if self.validation.cases:
            row = self.validation.scores(self.kept)
            self.selection.column_in(row)  # one case may have no value of it, such as a ROC AUC
            self.log("1 validation case: " + ", ".join(f"{k} {v:.4f}" for k, v in row.items()
                                                       if "/" not in k or k.endswith("/all")))

    # --- details -------------------------------------------------------------------------------------------------

    def _load(self, batch: Samples):
        """Called by the reading thread: windows into the next of three reused buffers (in use, waiting, filling)."""
        index = window_index(batch, self.study.window)
        if not self._buffers:
            shape = (self.settings.batch_size, index.shape[1], *self.fold.prepared.frames.shape[1:])
            self._buffers = [host_buffer(shape, self.fold.prepared.frames.dtype, self.device) for _ in range(AHEAD + 2)]
        buffer = self._buffers.pop(0)
        self._buffers.append(buffer)
        frames = gather(self.fold.prepared.frames, index, buffer[:len(batch)])
        return batch, frames, self.fold.prepared.targets[batch.rows]

    def _frames(self, frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames).to(self.device, non_blocking=True).float()

    def _targets(self, targets: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(targets).to(self.device)

    def _headline(self) -> str:
        return f"epoch {self.epoch + 1}/{self.settings.epochs}"

    def _status(self, sums: dict[str, float], count: int) -> str:
        """Of an epoch under way: its mean loss so far, and the best score of those before it."""
        loss = f"loss {sums['loss'] / count:.4f}" if count else "loss -"
        known = self.fold.validation and math.isfinite(self.selection.score)
        return f"{loss}, best {self.selection.column} {self.selection.score:.4f}" if known else loss

    def _loss(self, frames: torch.Tensor, targets: torch.Tensor):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            outputs = self.network(frames)
        return self.task.loss(outputs, targets)

    def _check_finite(self, loss: torch.Tensor, parts: dict, batch: Samples) -> None:
        if math.isfinite(float(loss.detach())):
            return
        cases = sorted({case.case for case in self.fold.prepared.cases
                        if ((batch.rows >= case.samples.start) & (batch.rows < case.samples.stop)).any()})
        bad = ", ".join(name for name, value in parts.items() if not math.isfinite(float(value.detach())))
        kept = f"; the last whole epoch is kept in {self.folder / 'last.pt'}" if self.epoch else ""
        raise InputError(f"the loss is not finite ({bad or 'total'}) in epoch {self.epoch + 1}; the batch holds "
                         f"{', '.join(cases)}. Look at these cases, or lower the learning rate "
                         f"({self.settings.learning_rate}){kept}")

    def _step(self) -> None:
        if self.settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update_parameters(self.network)
        self.schedule.after_step()

    def _report(self, row: dict, score: float, seconds: float) -> None:
        self.tracker.log(row["epoch"], {k: v for k, v in row.items() if k != "epoch"})
        star = " *" if self.selection.epoch == row["epoch"] else ""
        chosen = f"  {self.selection.column} {score:.4f}{star}" if self.fold.validation else ""
        self.log(f"epoch {row['epoch'] + 1}/{self.settings.epochs}  loss {row['train_loss']:.4f}{chosen}"
                 f"  lr {row['learning_rate']:.2e}  {seconds:.1f} s")
        if star and self.pictures:
            self.tracker.pictures(row["epoch"], self.pictures)

    def write_metrics(self) -> None:
        """metrics.csv, and the same as a worksheet."""
        write_table(self.folder / "metrics.csv", list(dict.fromkeys(c for row in self.history for c in row)), self.history)
        write_worksheet(self.folder / "metrics.xlsx", [self.validation.worksheet_row(row) for row in self.history],
                        "validation by epoch")
