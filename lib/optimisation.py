"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence

import torch
from torch.optim import lr_scheduler

from lib.study import InputError, Training, build, one_of

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")


def make_optimizer(network: torch.nn.Module, settings: Training) -> torch.optim.Optimizer:
    """The optimiser of `training.optimizer`, fused on CPU and CUDA where torch can. Raises InputError."""
    one_of(settings.optimizer, OPTIMIZERS, "training.optimizer")
    parameters = [p for p in network.parameters() if p.requires_grad]
    keys: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "rmsprop":  # torch has no fused one
        return torch.optim.RMSprop(parameters, momentum=settings.momentum, **keys)
    keys["fused"] = all(p.device.type in ("cpu", "cuda") for p in parameters)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=settings.momentum, nesterov=settings.momentum > 0, **keys)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer](parameters, **keys)


def warming_average(decay: float) -> Callable:
    """The rule by which torch's AveragedModel averages weights (Polyak & Juditsky 1992; exponential as in Tarvainen &
    Valpola 2017), with a decay that rises with age n, min(decay, (1 + n) / (10 + n)), as in TensorFlow's
    ExponentialMovingAverage: with a constant one the first weights linger, and with them a network that says nothing,
    because batch normalisation's statistics are averages already."""
    @torch.no_grad()
    def update(kept: Sequence[torch.Tensor], current: Sequence[torch.Tensor], age: torch.Tensor) -> None:
        if kept[0].is_floating_point():
            torch._foreach_lerp_(kept, current, 1 - min(decay, (1 + int(age)) / (10 + int(age))))
        else:  # batch normalisation counts its batches
            torch._foreach_copy_(kept, current)
    return update


@dataclass
class Schedule:
    """A torch scheduler and when it steps: after each optimiser `step`, each `epoch`, or each epoch's `score`."""
    scheduler: Any
    every: str

    def after_step(self) -> None:
        if self.every == "step":
            self.scheduler.step()

    def after_epoch(self, score: float) -> None:
        if self.every == "epoch":
            self.scheduler.step()
        elif self.every == "score" and score == score:  # without validation there is no score to wait for
            self.scheduler.step(score)

    def state(self) -> dict:
        return self.scheduler.state_dict() if self.scheduler else {}

    def load(self, state: dict) -> None:
        if self.scheduler:
            self.scheduler.load_state_dict(state)


def constant(optimizer, epochs, steps, larger_is_better) -> Schedule:
    return Schedule(None, "never")


def plateau(optimizer, epochs, steps, larger_is_better, factor: float = 0.5, patience: int = 5) -> Schedule:
    """Times `factor` when more than `patience` epochs bring no better score; constant without validation."""
    mode = "max" if larger_is_better else "min"
    return Schedule(lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor=factor, patience=patience), "score")


def cosine_restarts(optimizer, epochs, steps, larger_is_better, T_0: int = 5, T_mult: int = 2) -> Schedule:
    """SGDR (Loshchilov & Hutter 2017): cosine to 0 over T_0 epochs, then again over T_0 * T_mult, ..."""
    return Schedule(lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0, T_mult), "epoch")


def one_cycle(optimizer, epochs, steps, larger_is_better, warm_up: float = 0.3) -> Schedule:
    """One cycle (Smith & Topin 2018): up to the learning rate over `warm_up` of the run, then down to nearly 0."""
    peak = [group["lr"] for group in optimizer.param_groups]
    cycle = lr_scheduler.OneCycleLR(optimizer, peak, total_steps=epochs * steps, pct_start=warm_up, cycle_momentum=False)
    return Schedule(cycle, "step")


def poly(optimizer, epochs, steps, larger_is_better, power: float = 0.9) -> Schedule:
    """(1 - epoch / epochs) ** power, the schedule of DeepLab (Chen et al. 2018) and nnU-Net."""
    return Schedule(lr_scheduler.PolynomialLR(optimizer, epochs, power), "epoch")


SCHEDULES = {"constant": constant, "plateau": plateau, "cosine_restarts": cosine_restarts, "one_cycle": one_cycle,
             "poly": poly}


def make_schedule(optimizer, settings: Training, steps: int, larger_is_better: bool) -> Schedule:
    """The schedule of `training.schedule`; `steps` optimiser steps make an epoch. Raises InputError."""
    one_of(settings.schedule, tuple(SCHEDULES), "training.schedule")
    try:
        return build(SCHEDULES[settings.schedule], settings.schedule_options, "training.schedule_options",
                     optimizer=optimizer, epochs=settings.epochs, steps=steps, larger_is_better=larger_is_better)
    except ValueError as error:
        raise InputError(f"training.schedule_options: {error}") from None
