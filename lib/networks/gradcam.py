"""GradCAM (Selvaraju et al. 2017, arXiv:1610.02391) inside the graph, so that an ONNX file explains itself.

The map of class c is ReLU(sum over channels k of alpha[c, k] A[k]), where A is what a layer gives and alpha[c, k] the mean
over A's positions of d logit c / d A[k]. Where A goes through nothing but averaging, dropout and flattening into one linear
layer, these gradients are constants of its weights w, and no backward pass is needed: a channel of ones stays ones however
it is averaged, hence the sum over positions of the gradients is the sum over q of w[c, k, q], the weights of what is left of
channel k. Divided by the N positions of A: alpha[c, k] = sum over q of w[c, k, q] / N. A ReLU between A and a global average
lets gradients through where A > 0: times the share of these positions.
"""

from __future__ import annotations

import torch
from torch import nn

from lib.study import InputError

KEY = "network.gradcam_layer"
TAIL = "ReLU, average pooling, dropout and flattening into one linear layer"


class Explained(nn.Module):
    """Base of the class networks: "class_logits" (B, outputs) float32, and while it explains itself "cam" besides.

    cam_layers: names of the layers that have exact maps. A core sees its windows unpadded (it has no `multiple`), so that
    a map has the extent of the grid. gradcam_layer: the chosen one, or None. Raises InputError if it is not among them.
    """

    def __init__(self, gradcam_layer: str | None, cam_layers: tuple[str, ...]):
        super().__init__()
        if gradcam_layer is not None and gradcam_layer not in cam_layers:
            expected = (f"{' or '.join(cam_layers)}: what these layers give goes through nothing but {TAIL}" if cam_layers
                        else f"null, because no layer of this network goes through nothing but {TAIL}")
            raise InputError(f"{KEY}: found {gradcam_layer!r}, expected {expected}")
        self.gradcam_layer, self.cam_layers, self.explaining = gradcam_layer, cam_layers, False

    def explain(self, on: bool) -> None:
        """From now on, forward gives "cam" (on) or does not. Raises InputError if no layer was chosen."""
        if on and self.gradcam_layer is None:
            raise InputError(f"{KEY}: found none, expected {' or '.join(self.cam_layers) or 'a network that has one'}")
        self.explaining = on

    @property
    def explanation(self) -> dict[str, str]:
        """What "cam" means, while it is given."""
        return {"cam": f"GradCAM of layer {self.gradcam_layer} (Selvaraju et al. 2017), after its ReLU: a map per class (of two "
                       "classes: against and for the logit), over the extent of the window"} if self.explaining else {}

    def answer(self, logits: torch.Tensor, features: torch.Tensor | None, weight: torch.Tensor | None,
               gated: bool = False) -> dict[str, torch.Tensor]:
        """What forward returns. features: (B, K, ...) of the layer; weight: (outputs, K Q) of the linear layer."""
        answer = {"class_logits": logits.float()}  # bf16 has no more than three digits
        return {**answer, "cam": class_maps(features.float(), weight.float(), gated)} if self.explaining else answer


def class_maps(features: torch.Tensor, weight: torch.Tensor, gated: bool = False) -> torch.Tensor:
    """GradCAM of features (B, K, [t,] h, w) that a linear layer with weight (outputs, K Q) reads: (B, classes, [t,] h, w).

    One output means two classes, and its maps are [ReLU(-m), ReLU(m)]; otherwise a map for each. gated: a ReLU and a global
    average (Q = 1) follow the features.
    """
    channels, positions = features.shape[1], features.shape[2:]
    alpha = weight.unflatten(1, (channels, -1)).sum(dim=2) / positions.numel()  # (outputs, K)
    flat = features.flatten(2)
    if gated:
        alpha = alpha * (flat > 0).float().mean(dim=2).unsqueeze(1)  # (B, outputs, K)
    maps = torch.matmul(alpha, flat).unflatten(2, positions)
    return (torch.cat([-maps, maps], dim=1) if len(weight) == 1 else maps).relu()
