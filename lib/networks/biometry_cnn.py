"""The fetal biometry network: two convolutions, each halved by max-pooling, and one linear layer to the classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lib.networks import Inputs
from lib.networks.gradcam import Explained
from lib.networks.weights import load_weights, read_weights
from lib.study import require

WIDTHS = (12, 24)  # channels of the two convolutions


def build_biometry(inputs: Inputs, outputs: int, weights_follow: bool, dropout: float = 0.2, weights: str | None = None,
                   gradcam_layer: str | None = None) -> BiometryNetwork:
    """`biometry_cnn`, for any number of channels, rows and columns (at least 4) and outputs.

    dropout: share of the features that are dropped before the linear layer. weights: path of a state dict of such a network,
    or of a checkpoint; the linear layer stays random where its shape differs (another size of the frames or other classes).
    gradcam_layer: pool2, or null. Raises InputError.
    """
    require(0 <= dropout < 1, "network.dropout", dropout, "0 <= dropout < 1")
    require(min(inputs.rows, inputs.columns) >= 4, "data.size times window.scale", [inputs.rows, inputs.columns],
            "at least 4 x 4, which max-pooling halves twice")
    network = BiometryNetwork(inputs, outputs, dropout, gradcam_layer)
    if weights is not None and not weights_follow:
        # a linear layer is `fc` in many files
        state = {f"linear.{key[3:]}" if key.startswith("fc.") else key: value
                 for key, value in read_weights(Path(weights)).items()}
        load_weights(network, state, weights, stem="conv1.weight", heads=("linear.",))
    return network


class BiometryNetwork(Explained):
    """(B, channels, H, W) -> {"class_logits": (B, outputs)}. Max-pooling leaves out an odd last row or column."""
    layout = "channels"

    def __init__(self, inputs: Inputs, outputs: int, dropout: float, gradcam_layer: str | None):
        super().__init__(gradcam_layer, cam_layers=("pool2",))
        first, second = WIDTHS
        self.conv1 = nn.Conv2d(inputs.frames * inputs.channels, first, 3, padding=1)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.pool2 = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(second * (inputs.rows // 4) * (inputs.columns // 4), outputs)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return self.conv1, self.conv2, self.linear

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.pool1(self.conv1(frames).relu())
        features = self.pool2(self.conv2(features).relu())
        logits = self.linear(self.dropout(features.flatten(1)))
        return self.answer(logits, features, self.linear.weight)
