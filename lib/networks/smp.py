"""Any architecture and encoder of segmentation_models_pytorch, as `smp/<Architecture>/<encoder>`."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path

import torch
from torch import nn

from lib.networks import Inputs
from lib.networks.freezing import layers_of
from lib.networks.weights import load_weights, read_weights
from lib.study import InputError


class NamedLogits(nn.Module):
    """Gives a plain segmentation network's output its name."""
    layout = "channels"

    def __init__(self, network: nn.Module, multiple: int):
        super().__init__()
        self.network = network
        self.multiple = multiple

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The encoder, the decoder and the head."""
        return layers_of(part for part in self.network.children() if any(True for _ in part.parameters()))

    def forward(self, frames):
        return {"logits": self.network(frames)}


# arguments of the library that are ours to give, or that would add outputs which no task reads
TAKEN = ("encoder_name", "in_channels", "classes", "aux_params")


def build_smp(name: str, inputs: Inputs, outputs: int, weights_follow: bool, weights: str | None = None,
              **keys) -> NamedLogits:
    """`smp/Unet/resnet18` with the keys of that architecture's constructor (encoder_weights: null by default,
    so that nothing is downloaded; `imagenet` fetches weights once). weights: of all of it, the path of a state dict or of a
    checkpoint with one; the head stays random where it has other outputs. Raises InputError."""
    import segmentation_models_pytorch as library

    architectures = {cls.__name__: cls for cls in library.MODEL_ARCHITECTURES_MAPPING.values()}
    parts = name.split("/", 2)
    if len(parts) != 3 or parts[1] not in architectures:
        raise InputError(f"network.name {name!r}: expected smp/<Architecture>/<encoder> with an architecture of "
                         f"{', '.join(architectures)}")
    architecture = architectures[parts[1]]
    known = [p for p in inspect.signature(architecture).parameters if p not in TAKEN]
    for key in keys:
        if key not in known or key == "kwargs":  # the library would swallow a misspelt key
            close = difflib.get_close_matches(key, known, 1)
            raise InputError(f"network.{key}: unknown key{f' (did you mean {close[0]}?)' if close else ''}; "
                             f"{parts[1]} knows: weights, {', '.join(k for k in known if k != 'kwargs')}")
    keys = {"encoder_weights": None, **keys}
    if weights_follow:
        keys["encoder_weights"] = None
    try:
        network = architecture(encoder_name=parts[2], in_channels=inputs.frames * inputs.channels, classes=outputs,
                               **keys)
    except KeyError as error:
        if "pretrained weights" in str(error):
            raise InputError(f"network.encoder_weights: {error.args[0]}") from None
        raise InputError(f"network.name: segmentation_models_pytorch has no encoder {parts[2]!r}; its list is at "
                         "https://smp.readthedocs.io/en/latest/encoders.html") from None
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise InputError(f"network {name} with {keys}: {' '.join(str(error).split())[:300]}") from None
    multiple = getattr(network.encoder, "output_stride", 32)
    check_size(name, network, inputs, multiple)
    if weights is not None and not weights_follow:
        names = [key for key, value in network.state_dict().items() if value.ndim == 4]
        load_weights(network, read_weights(Path(weights)), weights, stem=names[0], heads=("segmentation_head.",))
    return NamedLogits(network, multiple)


def check_size(name: str, network: nn.Module, inputs: Inputs, multiple: int) -> None:
    """One empty window through the network: some need a least or a fixed size, and say so only then."""
    rows, columns = (-(-size // multiple) * multiple for size in (inputs.rows, inputs.columns))
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, inputs.frames * inputs.channels, rows, columns))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(f"network {name} cannot take frames of {rows} x {columns}: change data.size, window.scale or "
                         f"the network's keys ({' '.join(str(error).split())[:200]})") from None
    network.train()
