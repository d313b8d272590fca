"""DeepLabV3 (Chen et al. 2017, arXiv:1706.05587) as torchvision builds it, for any number of channels and outputs."""

from __future__ import annotations


import torch
from torch import nn

from lib.networks import Inputs
from lib.networks.freezing import layers_of
from lib.networks.weights import load_weights, read_weights, weights_file

STEM = "backbone.conv1.weight"
HEAD = "classifier."


class DeepLab(nn.Module):
    """(B, channels, H, W) -> {"logits": (B, outputs, H, W)}, for any H and W."""
    layout = "channels"

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return layers_of([*self.network.backbone.children(), self.network.classifier])

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.network(frames)["out"]}


def build_deeplab(name: str, inputs: Inputs, outputs: int, weights_follow: bool, weights: str | None = None) -> DeepLab:
    """`deeplabv3_resnet50` and `deeplabv3_resnet101`, without the auxiliary head.

    weights: null, random; `imagenet`, the backbone's, or `coco`, the whole network's, from torchvision's cache; or
    the path of a state dict (of the whole network, or of its ResNet) or of a checkpoint with one. The classifier's
    last layer stays random where it has other outputs. Raises InputError.
    """
    from torchvision.models import segmentation

    network = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=outputs, aux_loss=False)
    channels, first = inputs.frames * inputs.channels, network.backbone.conv1
    if channels != first.in_channels:
        network.backbone.conv1 = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding,
                                           bias=False)
        nn.init.kaiming_normal_(network.backbone.conv1.weight, mode="fan_out", nonlinearity="relu")  # as in torchvision
    if weights is not None and not weights_follow:
        path = weights_file(weights, published(name))
        state = read_weights(path)
        whole = any(key.startswith(HEAD) for key in state)
        if not any(key.startswith("backbone.") for key in state):
            state = {f"backbone.{key}": value for key, value in state.items()}
        load_weights(network, state, path, stem=STEM, heads=(HEAD,), optional=() if whole else (HEAD,),
                     ignored=("aux_classifier.", "backbone.fc."))
    return DeepLab(network)


def published(name: str) -> dict[str, str]:
    """torchvision's own first ImageNet weights, on which its COCO weights were trained as well."""
    from torchvision.models import get_model_weights

    return {"imagenet": get_model_weights(name.removeprefix("deeplabv3_"))["IMAGENET1K_V1"].url,
            "coco": get_model_weights(name)["COCO_WITH_VOC_LABELS_V1"].url}
