"""Plug point 3: which layers? Network names to builders; torch is imported only when one is built.

In a study, `network: {name: NAME, ...}`; the other keys are the builder's. A builder has the signature
`builder(name, inputs, outputs, weights_follow, **keys) -> nn.Module` whose forward maps frames to the outputs that the
task reads: {"logits": maps}, {"presence": ..., "boxes": ...} for boxes, or {"class_logits": (B, outputs)} for classes.
weights_follow tells it to leave pretrained weights alone, because a checkpoint is about to be loaded. These attributes
of the module are read: `layout` says what it sees, "channels" for (B, T*C, H, W) or "clip" for (B, C, T, H, W);
`multiple` (1 if it has none) what H and W must be multiples of: lib.networks.window pads to that, and crops back;
`mirrored(name, value)`, if it has one, turns an output for a mirrored frame into that for the frame; and `layers`, a tuple
of modules from the input to the head that hold all parameters, lets lib.networks.freezing freeze the first of them.

A class network can explain itself (lib.networks.gradcam): `cam_layers` names the layers that have exact GradCAM maps, the
key `gradcam_layer` chooses one, and after `explain(True)`, as in ONNX files, forward gives "cam" besides: (B, classes, h, w),
or (B, classes, t, h, w) for clips, float32 >= 0, over the extent of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from lib.imaging.geometry import scaled_size
from lib.study import Study, build, one_of, require


# How values are stored -> (offset, spread): (value - offset) / spread is what a network sees, of about zero mean and unit
# spread. float16 frames are z-scores already.
SCALES = {"float16": (0.0, 1.0), "uint8": (127.5, 63.75)}


def as_pretrained(weights: str | None, mean: Sequence | None, std: Sequence | None, store: str, channels: int) -> bool:
    """Whether, by these keys of a network and this data, it sees frames by the mean and spread of its pretrained weights,
    instead of by SCALES: of `kinetics`, which is the only one that asks for that."""
    return weights == "kinetics" and mean is None and std is None and store == "uint8" and channels in (1, 3)


@dataclass(frozen=True)
class Inputs:
    """What a window holds: frames (T), channels (C), and rows and columns in pixels, after `window.scale`; and how its values
    are stored (a key of SCALES)."""
    frames: int
    channels: int
    rows: int
    columns: int
    store: str


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


def biometry_cnn(name: str, inputs: Inputs, outputs: int, weights_follow: bool, **keys):
    from lib.networks.biometry_cnn import build_biometry
    return build(build_biometry, keys, "network", inputs=inputs, outputs=outputs, weights_follow=weights_follow)


def r2plus1d(name: str, inputs: Inputs, outputs: int, weights_follow: bool, **keys):
    from lib.networks.r2plus1d import build_r2plus1d
    return build(build_r2plus1d, keys, "network", inputs=inputs, outputs=outputs, weights_follow=weights_follow)


def torchvision(name: str, inputs: Inputs, outputs: int, weights_follow: bool, **keys):
    from lib.networks.image_classes import build_image_network
    return build(build_image_network, keys, "network", name=name, inputs=inputs, outputs=outputs,
                 weights_follow=weights_follow)


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
    "biometry_cnn": biometry_cnn,
    "r2plus1d_18": r2plus1d,
    "torchvision/<name>": torchvision,  # any of its networks that class images
}


# what a network gives besides helps for its loss, where that is not logits
LOGITS, CLASSES = ("logits",), ("class_logits",)
GIVES = {"mobilenet_v2_boxes": ("presence", "boxes"), "biometry_cnn": CLASSES, "r2plus1d_18": CLASSES,
         "torchvision/<name>": CLASSES}


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
    inputs = Inputs(study.window.frames, channels, *scaled_size(study.data.size, study.window.scale),
                    study.data.store)
    core = builder(study.network["name"], inputs, outputs, weights_follow, **keys)
    return WindowNetwork(core, study.data.store, study.window.scale, study.window.mirror)
