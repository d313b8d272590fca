"""Any network of torchvision that classes images, as `torchvision/<name>`: resnet18, densenet121, efficientnet_b0, ..."""

from __future__ import annotations

import difflib
import re

import torch
from torch import nn

from lib.networks import Inputs
from lib.networks.freezing import layers_of
from lib.networks.gradcam import Explained
from lib.networks.smp import check_size
from lib.networks.weights import load_weights, read_weights, weights_file
from lib.study import InputError

# families whose last features are averaged into one linear layer: these features; DenseNet has a ReLU between
LAST = {"ResNet": "layer4", "DenseNet": "features", "EfficientNet": "features", "MobileNetV2": "features",
        "MNASNet": "layers", "RegNet": "trunk_output", "ShuffleNetV2": "conv5", "GoogLeNet": "inception5b",
        "Inception3": "Mixed_7c"}
GATED = ("DenseNet",)
AUXILIARY = ("googlenet", "inception_v3")  # would give more than one output in training
KERNELS = (nn.Conv2d, nn.Linear)


def build_image_network(name: str, inputs: Inputs, outputs: int, weights_follow: bool, weights: str | None = None,
                        gradcam_layer: str | None = None) -> ImageNetwork:
    """`torchvision/<name>` for any number of channels and outputs.

    weights: null, random; `imagenet`, the first that torchvision had, from its cache; or the path of a state dict or of a
    checkpoint with one. The last layer stays random where it has other outputs. gradcam_layer: the last features (see LAST),
    or null. Raises InputError.
    """
    from torchvision import models

    chosen, known = name.partition("/")[2], models.list_models(module=models)
    if chosen not in known:
        close = difflib.get_close_matches(chosen, known, 1)
        raise InputError(f"network.name {name!r}: torchvision has no {chosen!r} among its networks for images"
                         f"{f' (did you mean {close[0]!r}?)' if close else ''}; its list is at "
                         "https://docs.pytorch.org/vision/stable/models.html#classification")
    keys = {"aux_logits": False, "init_weights": False} if chosen in AUXILIARY else {}
    network = models.get_model(chosen, weights=None, num_classes=outputs, **keys)
    kernels = [key for key, module in network.named_modules() if isinstance(module, KERNELS)]
    stem, head = kernels[0], kernels[-1]
    channels, first = inputs.frames * inputs.channels, network.get_submodule(stem)
    if channels != first.in_channels:
        network.set_submodule(stem, nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding,
                                              bias=first.bias is not None))
    made = ImageNetwork(network, head, gradcam_layer)
    check_size(name, network, inputs, 1)
    if weights is not None and not weights_follow:
        path = weights_file(weights, {"imagenet": next(iter(models.get_model_weights(chosen))).url})
        # as DenseNet's layers were called when its weights were published
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)", r"\1", key): value
                 for key, value in read_weights(path).items()}
        load_weights(network, state, path, stem=f"{stem}.weight", heads=(f"{head}.",), ignored=("aux", "AuxLogits."))
    return made


class ImageNetwork(Explained):
    """(B, channels, H, W) -> {"class_logits": (B, outputs)}. head: name of the last layer."""
    layout = "channels"

    def __init__(self, network: nn.Module, head: str, gradcam_layer: str | None):
        last = LAST.get(type(network).__name__)
        super().__init__(gradcam_layer, cam_layers=(last,) if last else ())
        self.network, self.head, self.gated = network, head, type(network).__name__ in GATED

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """Parts of the network, those of a list of `features` one by one."""
        parts = [part for key, child in self.network.named_children()
                 for part in (child if key in ("features", "layers") else [child])]
        return layers_of(part for part in parts if any(True for _ in part.parameters()))

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self.explaining:
            return self.answer(self.network(frames), None, None)
        seen = []  # a copy, because what follows may work in place
        layer = self.network.get_submodule(self.gradcam_layer)
        hook = layer.register_forward_hook(lambda module, given, output: seen.append(output.clone()))
        logits = self.network(frames)
        hook.remove()
        return self.answer(logits, seen[0], self.network.get_submodule(self.head).weight, self.gated)
