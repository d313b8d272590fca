"""Which layers learn: those near the head, while the others keep their weights and their statistics."""

from __future__ import annotations

from typing import Iterable

from torch import nn

from lib.study import InputError

KEY = "training.unfrozen_layers"
LEARNING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)  # what makes a part a layer of its own


def check_layers(core: nn.Module, count: int) -> None:
    """Raise InputError unless `count` layers of the core can learn while the others do not."""
    known = len(getattr(core, "layers", ()))
    if not known:
        raise InputError(f"{KEY}: found {count}, expected null, because this network does not say what its layers are")
    if not 1 <= count <= known:
        raise InputError(f"{KEY}: found {count}, expected 1 (the head) to {known}: this network has {known} layers")


def set_trainable(core: nn.Module, count: int | None) -> int:
    """Let the last `count` of `core.layers` learn (1: the head; None: all), and no others; returns how many parameters that
    is. Call it after each `network.train()`.

    Frozen layers are in evaluation mode: batch normalisation uses the statistics that it has and leaves them alone, and
    nothing is dropped. They have no gradients, so that optimisers pass them by, weight decay and momentum included. What is
    in no layer (pooling, dropout before the head) stays in the core's mode. Raises InputError as check_layers.
    """
    if count is not None:
        check_layers(core, count)
    layers = getattr(core, "layers", ())
    whole = count is None or count == len(layers)
    core.requires_grad_(whole)
    for number, layer in enumerate(reversed(layers), start=1):
        learns = whole or number <= count
        layer.requires_grad_(learns)
        layer.train(learns and core.training)
    for parameter in core.parameters():
        if not parameter.requires_grad:
            parameter.grad = None  # of before it was frozen
    return sum(parameter.numel() for parameter in core.parameters() if parameter.requires_grad)


def layers_of(parts: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """Parts of a network, from input to head, as its layers: a part that has no convolution and no linear layer, such as a
    normalisation, belongs to the one before it."""
    groups: list[list[nn.Module]] = []
    for part in parts:
        if groups and not any(isinstance(module, LEARNING) for module in part.modules()):
            groups[-1].append(part)
        else:
            groups.append([part])
    return tuple(group[0] if len(group) == 1 else nn.ModuleList(group) for group in groups)
