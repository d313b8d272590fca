"""The only training loop: any task, any network, one fold; it can be killed at any moment and goes on."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.checkpoints import load_checkpoint, save_checkpoint
from lib.data.augmentation import augment
from lib.data.batches import balanced_order, epoch_order, gather, read_ahead, training_batches, window_index
from lib.data.store import Prepared, Samples
from lib.devices import has_bf16, hash_seed, host_buffer
from lib.networks import make_network
from lib.networks.window import SCALES
from lib.optimisation import make_optimizer, make_schedule
from lib.prediction import predict_cases, torch_run
from lib.progress import no_progress
from lib.study import InputError, Study, one_of
from lib.tasks import make_task
from lib.workspace import write_table

AHEAD = 1  # batches read in advance
SCAN = 256  # targets looked at in one go
DEBUG_BATCHES = 4
NO_VALIDATION = "last epoch (no validation patients)"
PICTURES = 3  # validation cases that a tracker is shown at each better epoch


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
        torch.manual_seed(self.settings.seed)
        self.network = make_network(study, fold.prepared.channels, self.task.outputs, weights_follow).to(device)
        self.amp = self.settings.amp and has_bf16(device)
        self.larger_is_better = self._direction()
        self.optimizer = make_optimizer(self.network, self.settings)
        self.batches_per_epoch = math.ceil(len(fold.train) / self.settings.batch_size)
        steps = math.ceil(self.batches_per_epoch / self.settings.accumulate)
        self.schedule = make_schedule(self.optimizer, self.settings, steps, self.larger_is_better)
        self.epoch, self.history, self.finished = 0, [], False
        self.best_epoch, self.best_score, self.calibration = -1, -math.inf, {}
        self.spread = SCALES[study.data.store][1]
        self.present = self._foreground() if self.settings.sampler == "balanced" else None
        self._buffers: list[np.ndarray] = []

    # --- state ---------------------------------------------------------------------------------------------------

    def identity(self) -> dict:
        """What every checkpoint says of itself; file names are never asked."""
        prepared = self.fold.prepared
        return {"study": self.study.to_dict(), "fold": self.fold.index, "fingerprint": prepared.fingerprint,
                "channels": prepared.channels, "metric": self.select_column if self.fold.validation else NO_VALIDATION,
                "test_patients": prepared.test_hash(self.fold.index)}

    def save_best(self) -> None:
        save_checkpoint(self.folder / "best.pt", {
            **self.identity(), "epoch": self.best_epoch, "score": self.best_score, "calibration": self.calibration,
            "finished": self.finished, "network": self.network.state_dict()})

    def save_last(self) -> None:
        """Data order, augmentation and dropout are seeded by (seed, fold, epoch), so the epoch is their state."""
        save_checkpoint(self.folder / "last.pt", {
            **self.identity(), "epoch": self.epoch, "history": self.history, "best_epoch": self.best_epoch,
            "best_score": self.best_score, "finished": self.finished, "tracker_id": self.tracker.id,
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(), "rng": torch.get_rng_state()})

    def resume(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load(state["schedule"])
        torch.set_rng_state(state["rng"])
        self.epoch, self.history, self.finished = state["epoch"], state["history"], state["finished"]
        self.best_epoch, self.best_score = state["best_epoch"], state["best_score"]

    # --- one epoch -----------------------------------------------------------------------------------------------

    def train_epoch(self, progress) -> dict[str, float]:
        """Mean training loss and its parts over one epoch. Raises InputError on a loss that is not finite."""
        seed = (self.settings.seed, self.fold.index, self.epoch)
        torch.manual_seed(hash_seed(seed))
        generator = torch.Generator().manual_seed(hash_seed((*seed, 1)))
        samples, settings = self.fold.train, self.settings
        order = epoch_order(len(samples), seed) if self.present is None else balanced_order(self.present, seed)
        plan = training_batches(samples, order, settings.batch_size)
        self.network.train()
        sums, count = {}, 0
        ahead = read_ahead(plan, self._load, AHEAD)
        for number, (batch, frames, targets) in enumerate(progress(ahead, self.batches_per_epoch, self._headline)):
            frames, targets = augment(self.study.augmentation, self.task, self._frames(frames),
                                      self._targets(targets), self.spread, generator)
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

    def validate(self) -> dict[str, float]:
        """Mean loss, and the mean over cases of every native-grid score; never augmented."""
        losses, scores, evidence, task = {}, {}, [], self.task
        for number, (case, outputs, truth) in enumerate(self.validation_outputs(losses)):
            prediction = task.decode(outputs, case)
            for key, value in task.score(prediction, truth, case, distances=False).items():
                scores.setdefault(key, []).append(value)
            evidence.append(task.evidence(prediction, truth, case))
            if number < PICTURES and self.wants_pictures:
                # captions count; names of patients stay here
                frames = self.fold.prepared.frames[case.samples]
                self.pictures[f"validation case {number + 1}"] = task.picture(frames, prediction, truth, case)
        row = {f"validation_{name}": total / count for name, (total, count) in losses.items()}
        row |= {f"{metric}/{cls}": mean(values) for (cls, metric), values in scores.items()
                if not metric.endswith("_true")}
        return row | {f"{metric}/{cls}": value for (cls, metric), value in task.score_set(evidence).items()}

    def validation_outputs(self, losses: dict | None = None):
        """(case, outputs, native truth) of each validation case; sums of losses go into `losses`."""
        run = torch_run(self.network, self.device, self.amp)
        prepared = self.fold.prepared
        for case, outputs in predict_cases(run, prepared.frames, self.fold.validation, self.study.window,
                                           self.settings.batch_size * 2):
            if losses is not None:
                targets = torch.from_numpy(np.array(prepared.targets[case.samples]))
                loss, parts = self.task.loss({k: torch.from_numpy(v) for k, v in outputs.items()}, targets)
                for name, value in {"loss": loss, **parts}.items():
                    total, count = losses.get(name, (0.0, 0))
                    losses[name] = (total + float(value), count + 1)
            yield case, outputs, prepared.truth(case)

    # --- the run -------------------------------------------------------------------------------------------------

    def _direction(self) -> bool:
        """Whether a larger selection score is better. Raises InputError for what cannot be selected on."""
        metric, _, name = self.settings.select.partition("/")
        known = {"loss": False, **self.task.selectable}
        one_of(metric, tuple(known), "training.select")
        if metric != "loss":
            one_of(name or "all", self.task.selectable_classes(metric), f"training.select, class of {metric}")
        return known[metric]

    @property
    def select_column(self) -> str:
        select = self.settings.select
        return "validation_loss" if select == "loss" else select if "/" in select else f"{select}/all"

    def fit(self, progress) -> Best:
        """Train to the last epoch or until `patience` runs out, keep the best, calibrate it."""
        settings = self.settings
        while self.epoch < settings.epochs and not self._out_of_patience():
            started = time.perf_counter()
            rate = self.optimizer.param_groups[0]["lr"]
            row = {"epoch": self.epoch, "learning_rate": rate, **self.train_epoch(progress)}
            if self.fold.validation:
                row |= self.validate()
            score = self._selection_score(row)
            self.schedule.after_epoch(score)
            self.epoch += 1
            self.history.append(row)
            if not self.fold.validation or self._better(score):
                self.best_epoch, self.best_score = row["epoch"], score
                self.save_best()
            self.save_last()
            write_metrics(self.folder / "metrics.csv", self.history)
            self._report(row, score, time.perf_counter() - started)
        return self._finish()

    def _finish(self) -> Best:
        self.fold.prepared.check_unchanged()
        best = load_checkpoint(self.folder / "best.pt")
        foreign = [key for key, value in self.identity().items() if key in ("fold", "fingerprint") and best[key] != value]
        if foreign:
            raise InputError(f"{self.folder / 'best.pt'} was made for another {foreign[0]}: train the fold anew with "
                             "--no-resume")
        self.network.load_state_dict(best["network"])
        self.best_epoch, self.best_score = best["epoch"], best["score"]
        write_metrics(self.folder / "metrics.csv", self.history)  # a kill may have come before the last row
        if self.fold.validation:
            self.calibration = self.task.calibrate(lambda: ((self.task.decode(outputs, case), truth, case)
                                                            for case, outputs, truth in self.validation_outputs()))
            self.log(f"thresholds from validation: {self.calibration}")
        else:
            self.log("WARNING: no validation patients, so the LAST epoch is kept and thresholds stay at their defaults")
        self.finished = True
        self.save_best()
        self.tracker.summary({"best_epoch": self.best_epoch, f"best_{best['metric']}": self.best_score})
        last = load_checkpoint(self.folder / "last.pt")
        save_checkpoint(self.folder / "last.pt", {**last, "finished": True})
        return Best(self.best_epoch, best["metric"], self.best_score, self.folder / "best.pt")

    def debug(self) -> None:
        """A few batches with every check on; writes nothing. Raises InputError or the failing check's own error."""
        with torch.autograd.set_detect_anomaly(True):
            rows = min(len(self.fold.train), DEBUG_BATCHES * self.settings.batch_size)
            self.fold.train = self.fold.train.take(slice(0, rows))
            self.present = None if self.present is None else self.present[:rows]
            self.batches_per_epoch = math.ceil(rows / self.settings.batch_size)
            losses = self.train_epoch(no_progress)
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise InputError(f"parameter {name} is not finite after {self.batches_per_epoch} batches")
        self.log(f"{self.batches_per_epoch} training batches: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
        self.fold.validation = self.fold.validation[:1]
        if self.fold.validation:
            row = self.validate()
            self._selection_score(row)
            self.log("1 validation case: " + ", ".join(f"{k} {v:.4f}" for k, v in row.items()))

    # --- details -------------------------------------------------------------------------------------------------

    def _foreground(self) -> np.ndarray:
        """bool (S,): which training samples hold what the balanced sampler looks for; targets are read once."""
        rows, targets = self.fold.train.rows, self.fold.prepared.targets
        return np.concatenate([self.task.foreground(targets[rows[first:first + SCAN]])
                               for first in range(0, len(rows), SCAN)])

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
        best = f", best {self.best_score:.4f}" if math.isfinite(self.best_score) else ""
        return f"epoch {self.epoch + 1}/{self.settings.epochs}{best}"

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
        self.schedule.after_step()

    def _selection_score(self, row: dict) -> float:
        if not self.fold.validation:
            return math.nan
        if self.select_column not in row:
            metric = self.settings.select.split("/")[0]
            known = sorted(column for column in row if column.split("/")[0] == metric)
            raise InputError(f"training.select: validation has no {self.select_column!r}; known: {', '.join(known)}")
        score = row[self.select_column]
        if math.isnan(score) and self.select_column.split("/")[0] in ("dice", "iou", "recall"):
            raise InputError(f"no validation case of fold {self.fold.index} has what training.select={self.settings.select} "
                             "scores, so no epoch can be chosen: select another metric or class, or prepare with another "
                             "data.folds.seed or a larger -v")
        if math.isnan(score):  # not defined in this epoch
            return -math.inf if self.larger_is_better else math.inf
        return score

    def _better(self, score: float) -> bool:
        if self.best_epoch < 0:
            return True
        return score > self.best_score if self.larger_is_better else score < self.best_score

    def _out_of_patience(self) -> bool:
        waited = self.epoch - 1 - self.best_epoch
        return bool(self.settings.patience and self.fold.validation and self.epoch and waited >= self.settings.patience)

    def _report(self, row: dict, score: float, seconds: float) -> None:
        self.tracker.log(row["epoch"], {k: v for k, v in row.items() if k != "epoch"})
        star = " *" if self.best_epoch == row["epoch"] else ""
        chosen = f"  {self.select_column} {score:.4f}{star}" if self.fold.validation else ""
        self.log(f"epoch {row['epoch'] + 1}/{self.settings.epochs}  loss {row['train_loss']:.4f}{chosen}"
                 f"  lr {row['learning_rate']:.2e}  {seconds:.1f} s")
        if star and self.pictures:
            self.tracker.pictures(row["epoch"], self.pictures)


def mean(values: list[float]) -> float:
    """Mean of the values that are defined; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def write_metrics(path: Path, history: list[dict]) -> None:
    columns = list(dict.fromkeys(column for row in history for column in row))
    write_table(path, columns, history)
