"""Any architecture and encoder of segmentation_models_pytorch, as `smp/<Architecture>/<encoder>`."""

from __future__ import annotations

import difflib
import inspect

from torch import nn

from lib.networks import Inputs
from lib.study import InputError


class NamedLogits(nn.Module):
    """Gives a plain segmentation network's output its name."""
    layout = "channels"

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, frames):
        return {"logits": self.network(frames)}


def build_smp(name: str, inputs: Inputs, outputs: int, **keys) -> NamedLogits:
    """`smp/Unet/resnet18` with the keys of that architecture's constructor (encoder_weights: null by default,
    so that nothing is downloaded; `imagenet` fetches weights once). Raises InputError."""
    import segmentation_models_pytorch as library

    architectures = {cls.__name__: cls for cls in library.MODEL_ARCHITECTURES_MAPPING.values()}
    parts = name.split("/", 2)
    if len(parts) != 3 or parts[1] not in architectures:
        raise InputError(f"network.name {name!r}: expected smp/<Architecture>/<encoder> with an architecture of "
                         f"{', '.join(architectures)}")
    architecture = architectures[parts[1]]
    known = [p for p in inspect.signature(architecture).parameters if p not in ("encoder_name", "in_channels", "classes")]
    for key in keys:
        if key not in known or key == "kwargs":  # the library would swallow a misspelt key
            close = difflib.get_close_matches(key, known, 1)
            raise InputError(f"network.{key}: unknown key{f' (did you mean {close[0]}?)' if close else ''}; "
                             f"{parts[1]} knows: {', '.join(k for k in known if k != 'kwargs')}")
    keys = {"encoder_weights": None, **keys}
    try:
        network = architecture(encoder_name=parts[2], in_channels=inputs.frames * inputs.channels, classes=outputs, **keys)
    except KeyError:
        raise InputError(f"network.name: segmentation_models_pytorch has no encoder {parts[2]!r}; its list is at "
                         "https://smp.readthedocs.io/en/latest/encoders.html") from None
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise InputError(f"network {name} with {keys}: {' '.join(str(error).split())[:300]}") from None
    step = getattr(network.encoder, "output_stride", 32)
    for size in (inputs.rows, inputs.columns):
        if size % step:
            raise InputError(f"data.size {inputs.rows} x {inputs.columns}: {name} needs multiples of {step}")
    return NamedLogits(network)
