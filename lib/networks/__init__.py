"""Plug point 3: which layers? Network names to builders; torch is imported only when one is built.

In a study, `network: {name: NAME, ...}`; the other keys are the builder's. A builder has the signature
`builder(name, inputs, outputs, weights_follow, **keys) -> nn.Module` whose forward maps frames to the outputs that the
task reads: {"logits": ...}, or {"presence": ..., "boxes": ...} for boxes.
weights_follow tells it to leave pretrained weights alone, because a checkpoint is about to be loaded. Three attributes
of the module are read: `layout` says what it sees, "channels" for (B, T*C, H, W) or "clip" for (B, C, T, H, W);
`multiple` (1 if it has none) what H and W must be multiples of: lib.networks.window pads to that, and crops back; and
`mirrored(name, value)`, if it has one, turns an output for a mirrored frame into that for the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from lib.imaging.geometry import scaled_size
from lib.study import Study, build, one_of, require


@dataclass(frozen=True)
class Inputs:
    """What a window holds: frames (T), channels (C), and rows and columns in pixels, after `window.scale`."""
    frames: int
    channels: int
    rows: int
    columns: int


def unet(name: str, inputs: Inputs, outputs: int, weights_follow: bool, **keys):
    from lib.networks.unet import build_unet
    return build(build_unet, keys, "network", inputs=inputs, outputs=outputs, weights_follow=weights_follow)


def deeplab(name: str, inputs: Inputs, outputs: int, weights_follow: bool, **keys):
    from lib.networks.deeplab import build_deeplab
    return build(build_deeplab, keys, "network", name=name, inputs=inputs, outputs=outputs,
                 weights_follow=weights_follow)


def mobilenet(name: str, inputs: Inputs, outputs: int, weights_follow: bool, **keys):
    from lib.networks.mobilenet import build_mobilenet
    return build(build_mobilenet, keys, "network", inputs=inputs, outputs=outputs, weights_follow=weights_follow)


def smp(name: str, inputs: Inputs, outputs: int, weights_follow: bool, **keys):
    from lib.networks.smp import build_smp
    return build_smp(name, inputs, outputs, weights_follow, **keys)


# name, or the pattern of names that share the part before the first /, to its builder
NETWORKS = {
    "unet": unet,
    "deeplabv3_resnet50": deeplab,
    "deeplabv3_resnet101": deeplab,
    "mobilenet_v2_boxes": mobilenet,
    "smp/<Architecture>/<encoder>": smp,  # any pair of segmentation_models_pytorch
}


# what a network gives besides helps for its loss, where that is not logits
LOGITS = ("logits",)
GIVES = {"mobilenet_v2_boxes": ("presence", "boxes")}


def check_network(study: Study) -> str:
    """The network's key in NETWORKS, if a builder answers to its name. Raises InputError; needs no torch."""
    name = study.network.get("name")
    require(isinstance(name, str), "network.name", repr(name), f"a name: {', '.join(NETWORKS)}")
    first, slash, _ = name.partition("/")
    patterns = {key.split("/")[0]: key for key in NETWORKS if "/" in key}
    key = patterns.get(first, name) if slash else name
    one_of(key, tuple(NETWORKS), "network.name")
    return key


def check_outputs(study: Study, task) -> None:
    """Raise InputError if the network does not say what the task reads."""
    given = GIVES.get(check_network(study), LOGITS)
    fitting = [key for key in NETWORKS if GIVES.get(key, LOGITS) == tuple(task.reads)]
    require(given == tuple(task.reads), "network.name", repr(study.network["name"]),
            f"one that gives {' and '.join(task.reads)}, because the task is {study.task['kind']}: {', '.join(fitting)}")


def make_network(study: Study, channels: int, outputs: int, weights_follow: bool = False):
    """The study's network for (B, T, C, H, W) windows, wrapped in a WindowNetwork. Raises InputError.

    weights_follow: a checkpoint is about to be loaded, so pretrained weights are neither fetched nor read.
    """
    from lib.networks.window import WindowNetwork
    builder = NETWORKS[check_network(study)]
    keys = {key: value for key, value in study.network.items() if key != "name"}
    inputs = Inputs(study.window.frames, channels, *scaled_size(study.data.size, study.window.scale))
    core = builder(study.network["name"], inputs, outputs, weights_follow, **keys)
    return WindowNetwork(core, study.data.store, study.window.scale, study.window.mirror)
