"""Class networks: the layers of the biometry network by hand, R(2+1)D and torchvision's against torchvision's own."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from torchvision.models import densenet121, resnet18
from torchvision.models.video import r2plus1d_18

from lib.networks import check_outputs, make_network
from lib.networks.r2plus1d import own_names
from lib.networks.weights import fit_stem
from lib.study import InputError, load_study

BIOMETRY, VIDEO, KINETICS = "biometry_cnn", "r2plus1d_18", "r2plus1d_18-91a641e6.pth"


def made(name=BIOMETRY, channels=1, outputs=8, size=(32, 48), frames=1, scale=1.0, follow=False, **keys):
    """A study's whole network, in evaluation mode."""
    study = load_study("lumbar_spine", [f"data.size=[{size[0]}, {size[1]}]", f"window.frames={frames}", f"window.scale={scale}"])
    assert study.data.store == "uint8"
    study = dataclasses.replace(study, network={"name": name, **keys})
    return make_network(study, channels, outputs, follow).eval()


def grey_levels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float()


# --- biometry_cnn ----------------------------------------------------------------------------------------------------

def test_the_biometry_network_is_that_of_its_description():
    """Every layer, by torch's functions, from the names of the state dict."""
    network, frames = made(size=(37, 51), outputs=5), grey_levels(3, 1, 1, 37, 51)
    state = network.core.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "conv1.weight": (12, 1, 3, 3), "conv1.bias": (12,), "conv2.weight": (24, 12, 3, 3), "conv2.bias": (24,),
        "linear.weight": (5, 24 * 9 * 12), "linear.bias": (5,)}  # 37 -> 18 -> 9 rows, 51 -> 25 -> 12 columns
    seen = (frames[:, 0] - 127.5) / 63.75
    for layer in ("conv1", "conv2"):
        seen = functional.conv2d(seen, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=1)
        seen = functional.max_pool2d(functional.relu(seen), 2)
    expected = functional.linear(seen.flatten(1), state["linear.weight"], state["linear.bias"])
    with torch.no_grad():
        assert torch.allclose(network(frames)["class_logits"], expected, atol=1e-5)


@pytest.mark.parametrize("size, scale, frames, channels, outputs, cells", [
    ((128, 160), 1.0, 1, 1, 8, 32 * 40), ((64, 64), 0.5, 3, 2, 1, 8 * 8), ((8, 9), 1.0, 1, 3, 2, 2 * 2)])
def test_parameters_of_the_biometry_network(size, scale, frames, channels, outputs, cells):
    network = made(size=size, scale=scale, frames=frames, channels=channels, outputs=outputs)
    expected = 12 * (9 * frames * channels + 1) + 24 * (9 * 12 + 1) + outputs * (24 * cells + 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    with torch.no_grad():
        outputs_seen = network(grey_levels(2, frames, channels, *size))
    assert {name: tuple(value.shape) for name, value in outputs_seen.items()} == {"class_logits": (2, outputs)}


def test_a_fifth_of_the_features_is_dropped_in_training_only():
    network, frames = made(size=(64, 64)), grey_levels(2, 1, 1, 64, 64)
    dropped = []
    network.core.dropout.register_forward_hook(lambda module, given, output: dropped.append((output == 0)[given[0] != 0]))
    network.train()(frames)
    assert float(dropped[0].float().mean()) == pytest.approx(0.2, abs=0.03)
    assert torch.equal(network.eval()(frames)["class_logits"], network(frames)["class_logits"]) and not dropped[1].any()
    assert made(dropout=0.0).core.dropout.p == 0


def test_a_file_of_the_seed_s_biometry_network(tmp_path, capsys):
    """Its linear layer is called fc there; for other classes it stays random, and this is said."""
    torch.manual_seed(0)
    state = {name.replace("linear.", "fc."): value for name, value in made(outputs=8).core.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "biometry.pt")
    capsys.readouterr()
    found = made(outputs=8, weights=str(tmp_path / "biometry.pt")).core
    assert torch.equal(found.linear.weight, state["fc.weight"]) and torch.equal(found.conv2.weight, state["conv2.weight"])
    assert capsys.readouterr().out == ""
    other = made(outputs=3, weights=str(tmp_path / "biometry.pt")).core
    assert torch.equal(other.conv1.weight, state["conv1.weight"]) and other.linear.weight.shape[0] == 3
    assert "biometry.pt has no linear that fits: random there" in capsys.readouterr().out


# --- r2plus1d_18 -----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    """torchvision's network with 400 classes and statistics that are not those of new layers; its file in a hub folder."""
    torch.manual_seed(1)
    network = r2plus1d_18(weights=None).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    home = tmp_path_factory.mktemp("hub")
    (home / "hub/checkpoints").mkdir(parents=True)
    torch.save(state, home / "hub/checkpoints" / KINETICS)
    yield network, home
    (home / "hub/checkpoints" / KINETICS).unlink()


def scores(network: torch.nn.Module, clips: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        outputs = network(clips)
    return outputs["class_logits"] if isinstance(outputs, dict) else outputs


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max())


def test_the_video_network_is_torchvision_s(kinetics):
    """Frames become the third dimension, three channels the second; grey clips give what their RGB copies give."""
    path = str(kinetics[1] / "hub/checkpoints" / KINETICS)
    clips = grey_levels(2, 5, 3, 24, 40)
    scaled = ((clips - 127.5) / 63.75).transpose(1, 2)
    found = made(VIDEO, 3, 400, (24, 40), 5, weights=path)
    assert close(scores(found, clips), scores(kinetics[0], scaled))
    assert all(torch.equal(value, kinetics[0].state_dict()[name.removeprefix("core.network.")])
               for name, value in found.state_dict().items())
    grey = made(VIDEO, 1, 400, (24, 40), 5, weights=path)
    assert grey.core.network.stem[0].in_channels == 1
    assert close(scores(grey, clips[:, :, :1]), scores(kinetics[0], scaled[:, :1].expand(-1, 3, -1, -1, -1)))


def test_kinetics_weights_see_what_they_were_trained_with(kinetics, monkeypatch, capsys):
    """torchvision's mean and spread of Kinetics; one grey channel as three equal ones; another head stays random."""
    monkeypatch.setenv("TORCH_HOME", str(kinetics[1]))
    clips = grey_levels(2, 5, 1, 24, 40)
    network = made(VIDEO, 1, 1, (24, 40), 5, weights="kinetics")
    assert "has no fc that fits: random there" in capsys.readouterr().out
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in
                 ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)))
    network.core.network.fc = kinetics[0].fc
    expected = scores(kinetics[0], (clips.transpose(1, 2).expand(-1, 3, -1, -1, -1) / 255 - mean) / std)
    assert close(scores(network, clips), expected)


def test_weights_of_a_certain_mean_and_spread(kinetics):
    """As the seed's echo model was trained. Each channel has its own; one number is for all."""
    path, clips = str(kinetics[1] / "hub/checkpoints" / KINETICS), grey_levels(1, 2, 3, 16, 16)
    mean, std = [29.110628, 28.076836, 29.096405], [47.989223, 46.456997, 47.20083]
    network = made(VIDEO, 3, 400, (16, 16), 2, weights=path, mean=mean, std=std)
    seen = (clips.transpose(1, 2) - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(3, 1, 1, 1)
    assert close(scores(network, clips), scores(kinetics[0], seen))
    assert not [name for name in network.state_dict() if "levels" in name]
    one = made(VIDEO, 2, 1, (16, 16), 2, mean=[30], std=[60])
    assert torch.allclose(one.core.levels(torch.full((1, 2, 1, 1, 1), 1.0)), torch.tensor((127.5 + 63.75 - 30) / 60))


@pytest.mark.parametrize("size, frames", [((17, 33), 1), ((16, 16), 3)])
def test_clips_of_any_size(size, frames):
    network = made(VIDEO, 2, 3, size, frames)
    assert scores(network, grey_levels(1, frames, 2, *size)).shape == (1, 3)


def test_video_weights_are_asked_for_and_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"{KINETICS} is not in .* nothing is downloaded"):
        made(VIDEO, weights="kinetics")
    with torch.device("meta"):
        follow = made(VIDEO, follow=True, weights="kinetics")  # not looked for, and the stem has three channels all the same
    assert follow.core.network.stem[0].in_channels == 3 and not list(tmp_path.iterdir())


def test_names_in_files_of_other_programs():
    stem, kernel, bias = torch.zeros(45, 3, 1, 7, 7), torch.zeros(1, 512), torch.zeros(1)
    plain = {"stem.0.weight": stem, "fc.weight": kernel, "fc.bias": bias}
    assert own_names(plain).keys() == plain.keys()
    inside = {f"backbone.{name}": value for name, value in plain.items()} | {"view.weight": kernel}
    assert own_names(inside).keys() == plain.keys()
    after_dropout = own_names({"stem.0.weight": stem, "fc.1.weight": kernel, "fc.1.bias": bias})
    assert after_dropout["fc.weight"] is kernel and after_dropout.keys() == plain.keys()
    several = own_names({"stem.0.weight": stem, "fc.1.weight": kernel, "fc.1.bias": bias, "fc.4.weight": kernel})
    assert several.keys() == {"stem.0.weight"}
    unknown = {"conv.weight": stem}
    assert own_names(unknown) == unknown


def test_stems_of_clips_by_hand():
    kernel = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1, 1)
    assert fit_stem(kernel, 1).flatten().tolist() == [6] and fit_stem(kernel, 1).ndim == 5
    assert fit_stem(kernel, 2).flatten().tolist() == [1.5, 3]


# --- torchvision/<name> ----------------------------------------------------------------------------------------------

def test_an_image_network_is_torchvision_s(tmp_path, capsys):
    """For an RGB image, and for a grey one what its RGB copy gives; files are those of torchvision."""
    torch.manual_seed(0)
    own, image = resnet18(weights=None, num_classes=3).eval(), grey_levels(2, 1, 1, 33, 47)
    torch.save(own.state_dict(), tmp_path / "resnet.pt")
    rgb, grey = (made("torchvision/resnet18", channels, 3, (33, 47), weights=str(tmp_path / "resnet.pt")) for channels in (3, 1))
    expected = scores(own, (image[:, 0].expand(-1, 3, -1, -1) - 127.5) / 63.75)
    assert close(scores(rgb, image.expand(-1, -1, 3, -1, -1)), expected) and close(scores(grey, image), expected)
    assert capsys.readouterr().out == ""
    made("torchvision/resnet18", 5, 2, (33, 47), weights=str(tmp_path / "resnet.pt"))
    assert "has no fc that fits" in capsys.readouterr().out


def test_old_names_of_a_densenet(tmp_path, monkeypatch):
    """torchvision's own file calls denselayer1.norm1 denselayer1.norm.1, as it did when it was published."""
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    own = densenet121(weights=None).state_dict()
    old = {name.replace(".norm1.", ".norm.1.").replace(".norm2.", ".norm.2.").replace(".conv1.", ".conv.1.")
           .replace(".conv2.", ".conv.2."): value for name, value in own.items()}
    assert len(old) == len(own) and not set(old) >= set(own)
    torch.save(old, tmp_path / "hub/checkpoints/densenet121-a639ec97.pth")
    found = made("torchvision/densenet121", 3, 2, weights="imagenet").core.network.state_dict()
    assert all(torch.equal(found[name], own[name]) for name in own if not name.startswith("classifier"))


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v3_small", "squeezenet1_1", "swin_t"])
def test_other_families(name):
    """One output for two classes, also where torchvision's network would give more than one in training."""
    network = made(f"torchvision/{name}", 1, 1, (64, 64)).train()
    assert network(grey_levels(2, 1, 1, 64, 64))["class_logits"].shape == (2, 1)


# --- what cannot be --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("keys, text", [
    ({"dropout": 1}, "network.dropout: found 1.0"), ({"width": 4}, "unknown key network.width"),
    ({"scale": 0.1}, r"data.size times window.scale: found \[3, 5\], expected at least 4 x 4"),
    ({"weights": "kinetics"}, "'kinetics' is not a file"),
    ({"name": VIDEO, "weights": "imagenet"}, "'imagenet', expected kinetics or the path of a local file"),
    ({"name": VIDEO, "mean": [1, 2], "std": [1, 2]}, "expected 1 or 3 numbers each"),
    ({"name": VIDEO, "mean": [1]}, r"network.mean and network.std: found \[\[1.0\], \[\]\]"),
    ({"name": VIDEO, "mean": [1], "std": [0]}, "network.std: found .* expected numbers above 0"),
    ({"name": VIDEO, "mean": 3}, "network.mean"), ({"name": VIDEO, "dropout": -1}, "network.dropout"),
    ({"name": "torchvision/resnet81"}, r"no 'resnet81' among .* \(did you mean 'resnet18'\?\)"),
    ({"name": "torchvision/vit_b_32"}, "cannot take frames of 32 x 48"),
    ({"name": "torchvision/resnet18", "weights": "coco"}, "'coco', expected imagenet or the path"),
    ({"name": "r2plus1d_34"}, "did you mean 'r2plus1d_18'")])
def test_a_class_network_that_cannot_be_is_an_input_error(keys, text):
    with pytest.raises(InputError, match=text):
        made(**keys)


def test_a_network_of_another_kind_is_refused_by_the_task():
    task = SimpleNamespace(reads={"class_logits": "per class"})
    study = load_study("lumbar_spine")
    for name in (BIOMETRY, VIDEO, "torchvision/resnet18"):
        check_outputs(dataclasses.replace(study, network={"name": name}), task)
    with pytest.raises(InputError, match="expected one that gives class_logits.*: biometry_cnn, r2plus1d_18, torchvision/<name>"):
        check_outputs(study, task)
    with pytest.raises(InputError, match="expected one that gives logits"):
        check_outputs(dataclasses.replace(study, network={"name": BIOMETRY}), SimpleNamespace(reads={"logits": ""}))
