"""MobileNetV2 (Sandler et al. 2018) as torchvision builds it, with a head that finds one box per structure."""

from __future__ import annotations


import torch
import torch.nn.functional as F
from torch import nn

from lib.networks import Inputs
from lib.networks.weights import load_weights, read_weights, weights_file
from lib.networks.window import mirrored_maps
from lib.study import one_of, require

LEVELS = {4: 3, 8: 6, 16: 13, 32: 17}  # stride of a feature map -> the last of torchvision's blocks that has it
HEADS = ("heatmap", "regression")
STEM = "0.0.weight"
SIDE = -1.7  # logit of a box's side before anything is learnt: 0.15 of the frame


def build_mobilenet(inputs: Inputs, outputs: int, weights_follow: bool, head: str = "heatmap", width: int = 64,
                    stride: int = 4, weights: str | None = None) -> BoxNetwork:
    """`mobilenet_v2_boxes`. head: heatmap | regression. width: channels of the head. stride: of the heat maps, in
    pixels (4, 8, 16 or 32).

    weights: of the backbone; null, random; `imagenet`, from torchvision's cache; or the path of a state dict of a
    MobileNetV2, or of a checkpoint with one. Raises InputError.
    """
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    one_of(head, HEADS, "network.head")
    one_of(str(stride), [str(level) for level in LEVELS], "network.stride")
    require(width >= 1, "network.width", width, "at least 1")
    require(head != "heatmap" or inputs.rows % stride == inputs.columns % stride == 0, "data.size times window.scale",
            [inputs.rows, inputs.columns], f"multiples of {stride} (network.stride), which the cells of a heat map are")
    features = mobilenet_v2(weights=None).features[:LEVELS[32] + 1]  # the last layer only prepares for ImageNet's classes
    channels, first = inputs.frames * inputs.channels, features[0][0]
    if channels != first.in_channels:
        features[0][0] = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
        nn.init.kaiming_normal_(features[0][0].weight, mode="fan_out")  # as in torchvision
    if weights is not None and not weights_follow:
        path = weights_file(weights, {"imagenet": MobileNet_V2_Weights.IMAGENET1K_V1.url})
        state = {key.removeprefix("features."): value for key, value in read_weights(path).items()}
        load_weights(features, state, path, stem=STEM, ignored=("classifier.", "head.", f"{LEVELS[32] + 1}."))
    made = (HeatmapHead(outputs, width, stride) if head == "heatmap"
            else RegressionHead(outputs, width, (inputs.rows, inputs.columns)))
    return BoxNetwork(features, made)


class BoxNetwork(nn.Module):
    """(B, channels, H, W) -> {"presence": logits (B, K), "boxes": (B, K, 4), ...} of K structures.

    A box is centre x, centre y, width and height, each a share (0..1) of the frame's columns or rows.
    """
    layout = "channels"

    def __init__(self, features: nn.Sequential, head: nn.Module):
        super().__init__()
        self.features, self.head = features, head

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return (*self.features, self.head)

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = {}
        for index, block in enumerate(self.features):
            frames = block(frames)
            maps |= {stride: frames for stride, last in LEVELS.items() if last == index}
        return self.head(maps)

    @staticmethod
    def mirrored(name: str, value: torch.Tensor) -> torch.Tensor:
        """What the network says of a mirror image, as it would be said of the image itself."""
        if name == "boxes":
            x, *others = value.unbind(-1)
            return torch.stack([1 - x, *others], dim=-1)
        return mirrored_maps(name, value)


class HeatmapHead(nn.Module):
    """A heat map per structure: its softmax is where the structure may be, the mean place under it the centre (Nibali et
    al. 2018, arXiv:1801.07372); size and presence are read from the features under it.

    Features of all strides are merged from coarse to fine (Lin et al. 2017, arXiv:1612.03144). "heat" holds the logits
    of the maps, (B, K, H / stride, W / stride), for the loss.
    """

    def __init__(self, outputs: int, width: int, stride: int):
        super().__init__()
        channels = {4: 24, 8: 32, 16: 96, 32: 320}
        self.strides = [level for level in sorted(channels, reverse=True) if level >= stride]
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(channels[level], width, 1, bias=False), nn.BatchNorm2d(width))
                                     for level in self.strides)
        self.merge = nn.ModuleList(separable(width) for _ in self.strides)
        self.heat = nn.Conv2d(width, outputs, 1)
        self.read = nn.Parameter(torch.randn(outputs, width, 3) * 0.01)  # per structure: features to presence, width, height
        self.bias = nn.Parameter(torch.tensor([0.0, SIDE, SIDE]).repeat(outputs, 1))

    def forward(self, maps: dict[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        merged = None
        for level, lateral, merge in zip(self.strides, self.lateral, self.merge):
            here = lateral(maps[level])
            if merged is not None:
                here = here + F.interpolate(merged, size=here.shape[-2:], mode="bilinear", align_corners=False)
            merged = merge(here)
        heat = self.heat(merged).float()  # bf16 knows places to half a pixel only
        share = heat.flatten(2).softmax(-1)  # (B, K, cells)
        under = (share @ merged.flatten(2).transpose(1, 2)).float()  # (B, K, width)
        read = (under.unsqueeze(-1) * self.read).sum(2) + self.bias
        share = share.unflatten(2, heat.shape[-2:])
        x, y = (share.sum(2) * places(share.shape[3], heat)).sum(-1), (share.sum(3) * places(share.shape[2], heat)).sum(-1)
        sides = read[..., 1:].sigmoid()
        return {"presence": read[..., 0], "boxes": torch.cat([torch.stack([x, y], dim=-1), sides], dim=-1), "heat": heat}


class RegressionHead(nn.Module):
    """Presence and box of every structure as a linear function of the coarsest features, each place with weights of
    its own."""

    def __init__(self, outputs: int, width: int, size: tuple[int, int]):
        super().__init__()
        rows, columns = (-(-n // 32) for n in size)
        self.squeeze = nn.Sequential(nn.Conv2d(320, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(inplace=True))
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(width * rows * columns, outputs * 5)

    def forward(self, maps: dict[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        read = self.linear(self.dropout(self.squeeze(maps[32]).flatten(1))).unflatten(1, (-1, 5))
        return {"presence": read[..., 0], "boxes": read[..., 1:].sigmoid()}


def separable(width: int) -> nn.Sequential:
    """A convolution of each channel, then one across channels."""
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width),
                         nn.ReLU6(inplace=True), nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width),
                         nn.ReLU6(inplace=True))


def places(count: int, like: torch.Tensor) -> torch.Tensor:
    """Centres of the `count` cells that divide a side of the frame, as shares of it."""
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count
