"""lib.networks.weights: pretrained weights from local files, against torchvision's own network and by hand."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet50

from lib.networks import NETWORKS, Inputs, make_network
from lib.networks.weights import fit_stem, read_weights
from lib.study import InputError, load_study

COCO, IMAGENET = "deeplabv3_resnet50_coco-cd0a2569.pth", "resnet50-0676ba61.pth"
DEEPLAB, UNET = "deeplabv3_resnet50", "unet"


def made(name: str, channels: int = 1, outputs: int = 2, follow: bool = False, **keys) -> torch.nn.Module:
    """The core's inner network of a study."""
    study = load_study("flair_visibility", ["data.size=[32, 32]", "window.frames=1"])
    keys = {"width": 2, "depth": 2, **keys} if name == UNET else keys
    study = dataclasses.replace(study, network={"name": name, **keys})
    core = make_network(study, channels, outputs, follow).core.eval()
    return core if name == UNET else core.network


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """torchvision's network with its 21 classes and auxiliary head, its file and its ResNet's in a hub folder."""
    torch.manual_seed(1)
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that are not those of a new layer
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = {name: value.half() if value.is_floating_point() else value  # half the disk
             for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    home = tmp_path_factory.mktemp("hub")
    (home / "hub/checkpoints").mkdir(parents=True)
    torch.save(state, home / "hub/checkpoints" / COCO)
    resnet = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")
              and "num_batches" not in name}  # as old files, which lack these counters
    torch.save({**resnet, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)},
               home / "hub/checkpoints" / IMAGENET)
    yield network, home
    for path in (home / "hub/checkpoints").iterdir():
        path.unlink()


@pytest.fixture
def hub(pretrained, monkeypatch):
    """The cache with both files."""
    monkeypatch.setenv("TORCH_HOME", str(pretrained[1]))
    return pretrained[1] / "hub/checkpoints"


def test_coco_weights_give_what_torchvision_s_network_gives(pretrained, hub):
    frames = torch.randn(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = pretrained[0](frames)["out"], made(DEEPLAB, 3, 21, weights="coco")(frames)["out"]
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))  # another memory format


def test_a_grey_image_gives_what_its_rgb_copy_gives(pretrained, hub):
    grey = torch.randn(2, 1, 33, 47, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pretrained[0](grey.expand(-1, 3, -1, -1))["out"]
        found = made(DEEPLAB, 1, 21, weights=str(hub / COCO))(grey)["out"]
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_a_last_layer_of_other_outputs_stays_random(pretrained, hub):
    expected, found = pretrained[0].state_dict(), made(DEEPLAB, 3, 2, weights="coco").state_dict()
    assert found["classifier.4.weight"].shape == (2, 256, 1, 1) and float(found["classifier.4.weight"].std()) > 0
    assert not [name for name in found if name.startswith("aux_classifier")]
    assert all(torch.equal(found[name], expected[name]) for name in found if not name.startswith("classifier.4."))


@pytest.mark.parametrize("prefix", [None, "", "backbone."])
def test_weights_of_the_backbone_alone(pretrained, hub, tmp_path, prefix):
    weights = "imagenet"
    if prefix is not None:
        weights = str(tmp_path / "resnet.pt")
        state = torch.load(hub / IMAGENET, weights_only=True)
        torch.save({"state_dict": {f"{prefix}{name}": value for name, value in state.items()}}, weights)
    expected, found = pretrained[0].backbone.state_dict(), made(DEEPLAB, 3, weights=weights).backbone.state_dict()
    (tmp_path / "resnet.pt").unlink(missing_ok=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name, weights, file", [
    (DEEPLAB, "coco", COCO), (DEEPLAB, "imagenet", IMAGENET),
    ("deeplabv3_resnet101", "coco", "deeplabv3_resnet101_coco-586e9e4e.pth"),
    ("deeplabv3_resnet101", "imagenet", "resnet101-63fe2227.pth")])
def test_weights_that_are_not_in_the_cache_are_asked_for_and_not_downloaded(name, weights, file, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError) as found:
        made(name, weights=weights)
    assert file in str(found.value) and str(tmp_path / "hub/checkpoints") in str(found.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_follow_are_not_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    made(DEEPLAB, follow=True, weights="coco")
    made(UNET, follow=True, weights="no such file")
    made("smp/Unet/resnet18", follow=True, encoder_weights="no such weights")


def test_weights_of_another_depth_are_refused_with_counts(hub):
    """A ResNet-101 has 17 more blocks in its third stage; each has 3 convolutions and 3 x 4 normalisation tensors."""
    with pytest.raises(InputError, match=rf"network.weights: .*{COCO} does not fit: .* {17 * 15} missing "
                                         r"\(first: backbone.layer3.6.conv1.weight\)"):
        made("deeplabv3_resnet101", 3, weights=str(hub / COCO))


def test_stems_by_hand():
    kernel = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    assert fit_stem(kernel, 1).flatten().tolist() == [6]
    assert fit_stem(kernel, 2).flatten().tolist() == [1.5, 3]
    assert fit_stem(kernel, 3).flatten().tolist() == [1, 2, 3]
    assert fit_stem(kernel, 6).flatten().tolist() == [0.5, 1, 1.5, 0.5, 1, 1.5]
    assert fit_stem(kernel, 4).flatten().tolist() == [0.75, 1.5, 2.25, 0.75]


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s},
                                  lambda s: {"format": 1, "network": {f"core.{k}": v for k, v in s.items()}},
                                  lambda s: {"model": {f"module.network.{k}": v for k, v in s.items()}}])
def test_files_of_a_unet(wrap, tmp_path):
    """Plain, in a checkpoint, and in wrappers: a 3-channel file for 1 channel and one output more."""
    state, path = made(UNET, 3, 2).state_dict(), tmp_path / "unet.pt"
    torch.save(wrap(state), path)
    found = made(UNET, 1, 3, weights=str(path)).state_dict()
    stem = "down.0.0.weight"
    assert torch.equal(found[stem], state[stem].sum(dim=1, keepdim=True)) and found["head.weight"].shape[0] == 3
    assert all(torch.equal(found[name], state[name]) for name in state if name != stem and "head" not in name)


@pytest.mark.parametrize("content, text", [
    ({"weights": {}}, "holds no state dict, expected one, or a checkpoint with one under state_dict, model, network"),
    ({}, "holds no state dict"), ([1, 2], "holds no state dict"), (torch.zeros(3), "holds no state dict"),
    (torch.nn.Linear(1, 1), "plain tensors"), (b"torn", "plain tensors")])
def test_files_without_weights(content, text, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=text) as found:
        read_weights(path)
    assert str(path) in str(found.value) and "\n" not in str(found.value)


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_no_code_of_a_file_is_run(tmp_path):
    path = tmp_path / "trap.pt"
    path.write_bytes(pickle.dumps({"state_dict": Trap()}, protocol=2))
    with pytest.raises(InputError, match="plain tensors"):
        read_weights(path)


@pytest.mark.parametrize("name, weights, text", [(DEEPLAB, "imagnet", "'imagnet', expected imagenet, coco or the path"),
                                                 (UNET, "coco", "'coco' is not a file"), (UNET, 3, "network.weights")])
def test_names_that_are_no_weights(name, weights, text):
    with pytest.raises(InputError, match=text):
        made(name, weights=weights)


def test_tensors_that_do_not_fit_are_counted(tmp_path):
    state, path = made(UNET, 1, 2).state_dict(), tmp_path / "unet.pt"
    del state["head.bias"], state["merge.0.0.weight"]
    state["down.1.0.weight"] = torch.zeros(4, 9, 3, 3)
    torch.save({**state, "extra": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"2 missing \(first: merge.0.0.weight\); 1 unknown \(first: extra\); 1 of "
                                         r"another shape \(first: down.1.0.weight \(4, 9, 3, 3\), here \(4, 2, 3, 3"):
        made(UNET, 1, 2, weights=str(path))


def test_a_detector_takes_the_backbone_of_torchvision_and_of_another_detector(tmp_path):
    """The first kernel is summed for grey images; the head, of other structures, stays as it is."""
    from torchvision.models import mobilenet_v2
    torch.manual_seed(0)
    full = mobilenet_v2(weights=None)
    torch.save(full.state_dict(), tmp_path / "mobilenet.pth")
    study = dataclasses.replace(load_study("fetal_anatomy", ["data.size=[64, 64]"]),
                                network={"name": "mobilenet_v2_boxes", "width": 8, "weights": str(tmp_path / "mobilenet.pth")})
    first = make_network(study, channels=1, outputs=9)
    assert torch.allclose(first.core.features[0][0].weight, full.features[0][0].weight.sum(1, keepdim=True))
    assert torch.equal(first.core.features[17].conv[2].weight, full.features[17].conv[2].weight)
    torch.save({"network": first.state_dict()}, tmp_path / "detector.pt")
    other = dataclasses.replace(study, network={**study.network, "weights": str(tmp_path / "detector.pt")})
    second = make_network(other, channels=1, outputs=2)
    assert torch.equal(second.core.features[17].conv[2].weight, first.core.features[17].conv[2].weight)
    assert second.core.head.read.shape[0] == 2


def test_weights_of_a_segmentation_models_network_are_those_of_the_file(tmp_path):
    """As 2a takes them with --load: a state dict, and the head stays random where it has other outputs."""
    inputs = Inputs(1, 1, 32, 32, "uint8")
    torch.manual_seed(0)
    first = NETWORKS["smp/<Architecture>/<encoder>"]("smp/Unet/resnet18", inputs, 2, False)
    torch.save({"network": first.state_dict()}, tmp_path / "a.pt")
    again = NETWORKS["smp/<Architecture>/<encoder>"]("smp/Unet/resnet18", inputs, 2, False, weights=str(tmp_path / "a.pt"))
    other = NETWORKS["smp/<Architecture>/<encoder>"]("smp/Unet/resnet18", inputs, 3, False, weights=str(tmp_path / "a.pt"))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    changed = [key for key, value in first.state_dict().items() if value.shape != other.state_dict()[key].shape]
    assert changed and all("segmentation_head" in key for key in changed)
    with pytest.raises(InputError, match="network.weights.*does not fit"):
        NETWORKS["smp/<Architecture>/<encoder>"]("smp/Unet/resnet34", inputs, 2, False, weights=str(tmp_path / "a.pt"))
