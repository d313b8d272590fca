"""Plug point 3: which layers? Network names to builders; torch is imported only when one is built.

In a study, `network: {name: NAME, ...}`; the other keys are the builder's. A builder has the signature
`builder(name, inputs, outputs, **keys) -> nn.Module` whose forward maps frames to {"logits": ...}, and an attribute
`layout` on the module says what it sees: "channels" for (B, T*C, H, W), "clip" for (B, C, T, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass

from lib.study import InputError, Study, build, require


@dataclass(frozen=True)
class Inputs:
    """What a window holds: frames (T), channels (C), rows and columns in pixels."""
    frames: int
    channels: int
    rows: int
    columns: int


def unet(name: str, inputs: Inputs, outputs: int, **keys):
    from lib.networks.unet import build_unet
    return build(build_unet, keys, "network", inputs=inputs, outputs=outputs)


def smp(name: str, inputs: Inputs, outputs: int, **keys):
    from lib.networks.smp import build_smp
    return build_smp(name, inputs, outputs, **keys)


# name, or the first part of a name such as smp/Unet/resnet18, to its builder
NETWORKS = {
    "unet": unet,
    "smp": smp,
}


def check_network(study: Study) -> str:
    """The network's name, if a builder answers to it. Raises InputError; needs no torch."""
    name = study.network.get("name")
    require(isinstance(name, str), "network.name", repr(name), "a name such as smp/Unet/resnet18")
    if name.split("/")[0] not in NETWORKS:
        raise InputError(f"network.name: unknown {name!r}; known: unet, smp/<Architecture>/<encoder> "
                         "(any pair of segmentation_models_pytorch)")
    return name


def make_network(study: Study, channels: int, outputs: int, weights_follow: bool = False):
    """The study's network for (B, T, C, H, W) windows, wrapped in a WindowNetwork. Raises InputError.

    weights_follow: a checkpoint is about to be loaded, so pretrained weights are not fetched.
    """
    from lib.networks.window import WindowNetwork
    name = check_network(study)
    keys = {key: value for key, value in study.network.items() if key != "name"}
    if weights_follow and "encoder_weights" in keys:
        keys["encoder_weights"] = None
    inputs = Inputs(study.window.frames, channels, *study.data.size)
    core = NETWORKS[name.split("/")[0]](name, inputs, outputs, **keys)
    return WindowNetwork(core, study.data.store)
