"""lib.networks.gradcam: equal to GradCAM by backward passes, through windows and ONNX files, or refused."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lib.conversion import OPSET, compare, quiet, restore_network
from lib.networks import make_network
from lib.networks.gradcam import class_maps
from lib.networks.window import WindowNetwork, mirrored_maps
from lib.study import InputError, load_study

BIOMETRY = {"name": "biometry_cnn", "gradcam_layer": "pool2"}
VIDEO = {"name": "r2plus1d_18", "gradcam_layer": "layer4"}


def study_with(network: dict, size=(32, 32), frames=1, scale=1.0, mirror=False):
    study = load_study("lumbar_spine", [f"data.size=[{size[0]}, {size[1]}]", f"window.frames={frames}", f"window.scale={scale}",
                                        f"window.mirror={str(mirror).lower()}"])
    return dataclasses.replace(study, network=network)


def explained(network: dict, outputs=2, channels=1, **window) -> WindowNetwork:
    """A network whose batch normalisations have seen something, in evaluation mode, explaining itself."""
    torch.manual_seed(0)
    made = make_network(study_with(network, **window), channels, outputs)
    for module in made.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    made.core.explain(True)
    return made.eval()


def grey_levels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).float()


def by_backward_passes(network: WindowNetwork, frames: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """GradCAM as published: for each logit, the gradients of the layer's output, averaged, weigh its channels."""
    outputs = []
    # a copy goes on, so that what follows in place does not change the output that is explained
    hook = layer.register_forward_hook(lambda module, given, output: outputs.append(output) or output.clone())
    network.core.explain(False)
    logits = network(frames)["class_logits"]
    network.core.explain(True)
    hook.remove()
    maps = []
    for logit in logits.unbind(1):
        gradient, = torch.autograd.grad(logit.sum(), outputs[0], retain_graph=True)
        alpha = gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
        maps.append((alpha * outputs[0]).sum(dim=1))
    maps = torch.stack(maps, dim=1).detach()
    return (torch.cat([-maps, maps], dim=1) if maps.shape[1] == 1 else maps).relu()


def close(found, expected: torch.Tensor) -> bool:
    found, largest = torch.as_tensor(found), float(expected.abs().max())
    assert found.shape == expected.shape and largest > 0
    return float((found - expected).abs().max()) <= 1e-4 * largest


# --- the maps --------------------------------------------------------------------------------------------------------

FEATURES = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).view(1, 2, 1, 2)  # two channels of two positions


def test_maps_by_hand_of_a_flattened_layer():
    """Class a: the mean weights are 2 and -1, so 2 x (1 2) - (3 -1) = (-1 5); class b: 0 and 1, so (3 -1)."""
    weight = torch.tensor([[1.0, 3.0, -1.0, -1.0], [5.0, -5.0, 2.0, 0.0]])
    assert class_maps(FEATURES, weight).tolist() == [[[[0, 5]], [[3, 0]]]]
    assert class_maps(FEATURES, weight[:1]).tolist() == [[[[1, 0]], [[0, 5]]]]  # one logit: against it, and for it


def test_maps_by_hand_of_a_globally_averaged_layer():
    """Two positions halve the weights 2 and -1: (1 2) - (3 -1) / 2 = (-0.5 2.5). A ReLU between lets both gradients of the
    first channel through, and one of two of the second: (1 2) - (3 -1) / 4 = (0.25 2.25)."""
    weight = torch.tensor([[2.0, -1.0], [0.0, 0.0]])
    assert class_maps(FEATURES, weight)[0, 0].tolist() == [[0, 2.5]]
    assert class_maps(FEATURES, weight, gated=True)[0, 0].tolist() == [[0.25, 2.25]]


@pytest.mark.parametrize("outputs", [1, 2, 8])
@pytest.mark.parametrize("size, scale, frames", [((37, 51), 1.0, 1), ((32, 40), 0.5, 3)])
def test_the_biometry_network_explains_itself(outputs, size, scale, frames):
    network = explained(BIOMETRY, outputs, size=size, scale=scale, frames=frames)
    windows = grey_levels(2, frames, 1, *size)
    with torch.no_grad():
        found = network(windows)
    assert found["cam"].shape == (2, max(outputs, 2), int(size[0] * scale) // 4, int(size[1] * scale) // 4)
    assert found["cam"].dtype == torch.float32 and close(found["cam"], by_backward_passes(network, windows, network.core.pool2))


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_video_network_explains_itself(outputs):
    """16 frames of 40 x 24: two places in time, 3 rows, 2 columns."""
    network, windows = explained(VIDEO, outputs, size=(40, 24), frames=16), grey_levels(2, 16, 1, 40, 24)
    with torch.no_grad():
        found = network(windows)
    assert found["cam"].shape == (2, max(outputs, 2), 2, 3, 2)
    assert close(found["cam"], by_backward_passes(network, windows, network.core.network.layer4))


@pytest.mark.parametrize("name, layer", [("resnet18", "layer4"), ("densenet121", "features"), ("efficientnet_b0", "features"),
                                         ("mobilenet_v2", "features"), ("shufflenet_v2_x0_5", "conv5"),
                                         ("mnasnet0_5", "layers"), ("regnet_y_400mf", "trunk_output")])
def test_image_networks_explain_themselves(name, layer):
    """DenseNet has a ReLU, in place, after its features."""
    network = explained({"name": f"torchvision/{name}", "gradcam_layer": layer}, 3, size=(72, 64))
    windows = grey_levels(2, 1, 1, 72, 64)
    with torch.no_grad():
        found = network(windows)["cam"]
    assert close(found, by_backward_passes(network, windows, network.core.network.get_submodule(layer)))


def test_a_network_is_silent_unless_asked():
    """Training and validation want the logits alone; a network with a layer gives the same ones as without."""
    network, frames = explained(BIOMETRY), grey_levels(2, 1, 1, 32, 32)
    with torch.no_grad():
        asked = network(frames)
        network.core.explain(False)
        silent = network(frames)
    assert set(asked) == {"class_logits", "cam"} and set(silent) == {"class_logits"}
    assert torch.equal(asked["class_logits"], silent["class_logits"])


# --- the window ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size, scale", [((41, 63), 1.0), ((82, 126), 0.5), ((41, 63), 2.0)])
def test_a_map_lies_where_the_object_is(size, scale):
    """Convolutions that copy and a linear layer of ones: the map is the image in coarse. The centre of a bright square at
    1/4 of the rows and 2/3 of the columns is found there, as shares of the grid."""
    network = explained(BIOMETRY, 1, size=size, scale=scale)
    core = network.core
    for parameter in core.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        core.conv1.weight[0, 0, 1, 1] = core.conv2.weight[0, 0, 1, 1] = 1
        core.linear.weight.fill_(1)
        frames = torch.full((1, 1, 1, *size), 127.5)
        row, column = size[0] // 4, size[1] * 2 // 3
        frames[..., row - 2:row + 3, column - 2:column + 3] = 255
        against, favour = network(frames)["cam"][0]
    places = torch.nonzero(favour > favour.max() / 2).float() + 0.5
    found = places.mean(dim=0) / torch.tensor(favour.shape)
    assert against.max() == 0
    assert found.tolist() == pytest.approx([(row + 0.5) / size[0], (column + 0.5) / size[1]], abs=0.06)


@pytest.mark.parametrize("network, frames", [(BIOMETRY, 1), (VIDEO, 8)])
def test_maps_of_a_window_and_of_its_mirror_image_are_averaged(network, frames):
    plain = explained(network, 1, size=(24, 40), frames=frames)
    both = WindowNetwork(plain.core, "uint8", mirror=True).eval()
    windows = grey_levels(1, frames, 1, 24, 40)
    with torch.no_grad():
        here, there, mean = (made(seen) for made, seen in ((plain, windows), (plain, windows.flip(-1)), (both, windows)))
    assert close(mean["cam"], (here["cam"] + there["cam"].flip(-1)) / 2)
    assert close(mean["class_logits"], (here["class_logits"] + there["class_logits"]) / 2)
    assert not torch.allclose(there["cam"], there["cam"].flip(-1))  # or the test would not see the flip


def test_mirrored_maps_of_clips():
    value = torch.arange(6.0).view(1, 1, 1, 2, 3)
    assert mirrored_maps("cam", value).tolist() == [[[[[2, 1, 0], [5, 4, 3]]]]]
    assert torch.equal(mirrored_maps("class_logits", value.view(2, 3)), value.view(2, 3))


# --- ONNX ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("network, outputs, channels, window", [
    (BIOMETRY, 1, 1, {"size": (37, 51), "mirror": True}), (BIOMETRY, 3, 3, {"size": (36, 44), "scale": 0.5}),
    (VIDEO, 1, 1, {"size": (32, 40), "frames": 8}),
    ({"name": "torchvision/resnet18", "gradcam_layer": "layer4"}, 3, 1, {"size": (35, 61)})])
def test_an_onnx_file_explains_itself(network, outputs, channels, window, tmp_path):
    """Exported as script 3 does, for any batch; logits and maps are the network's, and the maps those of backward passes."""
    import onnxruntime

    made = explained(network, outputs, channels, **window)
    shape = (window.get("frames", 1), channels, *window["size"])
    path, names = tmp_path / "network.onnx", ["class_logits", "cam"]
    with quiet():
        torch.onnx.export(made, (torch.zeros(2, *shape),), path, dynamo=True, opset_version=OPSET, external_data=False,
                          input_names=["frames"], output_names=names,
                          dynamic_shapes={"frames": {0: torch.export.Dim("batch")}}, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    path.unlink()
    for batch in (1, 3):
        frames = grey_levels(batch, *shape, seed=batch)
        found = dict(zip(names, session.run(names, {"frames": frames.numpy()})))
        with torch.no_grad():
            expected = made(frames)
        assert all(close(found[name], expected[name]) for name in names)
    if not made.mirror:
        layer = made.core.pool2 if network is BIOMETRY else made.core.network.layer4
        assert close(found["cam"], by_backward_passes(made, frames, layer))


def test_script_3_asks_for_maps_where_the_study_names_a_layer():
    task, frames = SimpleNamespace(outputs=2), grey_levels(1, 1, 1, 32, 32)
    for network in (BIOMETRY, {"name": "biometry_cnn"}):
        study = study_with(network)
        state = make_network(study, 1, 2).state_dict()
        with torch.no_grad():
            restored = restore_network(study, {"channels": 1, "network": state}, task)
            given = restored(frames)
        assert ("cam" in given) == ("cam" in restored.explanation) == (network is BIOMETRY)
        assert network is not BIOMETRY or "pool2" in restored.explanation["cam"]


@pytest.mark.parametrize("error, passed", [(1e-8, "yes"), (1e-4, "no"), (np.nan, "no")])
def test_parity_compares_maps_by_their_own_size(error, passed):
    """Maps of 0.01: an error of 0.0001 is 1 per cent of them, though it would be nothing in a logit."""
    task = SimpleNamespace(reads={"class_logits": ""}, decode=lambda outputs, case: None, score=lambda *args, **keys: {("all", "accuracy"): 1.0})
    expected = {"class_logits": np.ones((1, 2), np.float32), "cam": np.full((1, 2, 3, 3), 0.01, np.float32)}
    found = {**expected, "cam": expected["cam"] + np.float32(error)}
    row = compare(expected, found, task, None, None, "accuracy/all")
    assert row["passed"] == passed and (row["output"] == "cam" or passed == "yes")


# --- what cannot be --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("network, text", [
    ({**BIOMETRY, "gradcam_layer": "conv2"}, "network.gradcam_layer: found 'conv2', expected pool2: .* into one linear layer"),
    ({**VIDEO, "gradcam_layer": "layer3"}, "network.gradcam_layer: found 'layer3', expected layer4: "),
    ({"name": "torchvision/resnet18", "gradcam_layer": "layer3"}, "found 'layer3', expected layer4"),
    ({"name": "torchvision/vgg11", "gradcam_layer": "features"}, "found 'features', expected null, because no layer"),
    ({"name": "unet", "gradcam_layer": "head"}, "unknown key network.gradcam_layer")])
def test_layers_without_exact_maps_are_refused(network, text):
    with torch.device("meta"), pytest.raises(InputError, match=text):
        make_network(study_with(network), 1, 2)


def test_a_network_without_a_layer_cannot_explain_itself():
    with pytest.raises(InputError, match="network.gradcam_layer: found none, expected pool2"):
        make_network(study_with({"name": "biometry_cnn"}), 1, 2).core.explain(True)
