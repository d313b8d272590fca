"""Plug point 3: which layers? Network names to builders; torch is imported only when one is built.

In a study, `network: {name: NAME, ...}`; the other keys are the builder's. A builder has the signature
`builder(inputs, outputs, **keys) -> nn.Module` whose forward maps frames to {"logits": ...}, and an attribute
`layout` on the module says what it sees: "channels" for (B, T*C, H, W), "clip" for (B, C, T, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass

from lib.study import InputError, Study, require


@dataclass(frozen=True)
class Inputs:
    """What a window holds: frames (T), channels (C), rows and columns in pixels."""
    frames: int
    channels: int
    rows: int
    columns: int


def smp(*args, **keys):
    from lib.networks.smp import build_smp
    return build_smp(*args, **keys)


# name, or the first part of a name such as smp/Unet/resnet18, to its builder
NETWORKS = {
    "smp": smp,
}


def check_network(study: Study) -> str:
    """The network's name, if a builder answers to it. Raises InputError; needs no torch."""
    name = study.network.get("name")
    require(isinstance(name, str), "network.name", repr(name), "a name such as smp/Unet/resnet18")
    if name.split("/")[0] not in NETWORKS:
        raise InputError(f"network.name: unknown {name!r}; known: smp/<Architecture>/<encoder> "
                         "(any pair of segmentation_models_pytorch)")
    return name


def make_network(study: Study, channels: int, outputs: int):
    """The study's network for (B, T, C, H, W) windows, wrapped in a WindowNetwork. Raises InputError."""
    from lib.networks.window import WindowNetwork
    name = check_network(study)
    keys = {key: value for key, value in study.network.items() if key != "name"}
    inputs = Inputs(study.window.frames, channels, *study.data.size)
    core = NETWORKS[name.split("/")[0]](name, inputs, outputs, **keys)
    return WindowNetwork(core, study.data.store)
