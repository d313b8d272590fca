"""Pretrained weights from a file on this machine: nothing is downloaded, and no code in the file is run."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Sequence

import torch
from torch import nn

from lib.progress import print_line
from lib.study import InputError, require

KEY = "network.weights"
HOLDERS = ("state_dict", "model", "network", "model_state_dict")  # where a checkpoint keeps its weights
WRAPPERS = ("module.", "_orig_mod.", "core.", "network.", "model.")  # what modules around a network put before names
RGB = 3


def cached(url: str) -> Path:
    """torchvision's own copy of the file at `url`, in torch.hub's folder. Raises InputError if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        raise InputError(f"{KEY}: {path.name} is not in {path.parent} and nothing is downloaded: get {url} and put it "
                         "there, or give the path of a local file")
    return path


def weights_file(weights: str, published: Mapping[str, str]) -> Path:
    """The file that a word or a path means. published: word -> address of torchvision's own file. Raises InputError."""
    if weights in published:
        return cached(published[weights])
    require(Path(weights).is_file(), KEY, repr(weights), f"{', '.join(published)} or the path of a local file")
    return Path(weights)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file: plain, or in a checkpoint under one of HOLDERS; names without WRAPPERS.

    Raises InputError if there is none.
    """
    if not path.is_file():
        raise InputError(f"{KEY}: {str(path)!r} is not a file, expected one with a state dict")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that it cannot read; each means the same here
        raise InputError(f"{KEY}: {path} does not hold plain tensors that can be read without running code: save the "
                         f"network's state_dict() ({' '.join(str(error).split())[:120]})") from None
    inside = [content.get(key) for key in HOLDERS] if isinstance(content, Mapping) else []
    found = next((item for item in (content, *inside) if is_state(item)), None)
    if found is None:
        raise InputError(f"{KEY}: {path} holds no state dict, expected one, or a checkpoint with one under "
                         f"{', '.join(HOLDERS)}")
    state = dict(found)
    while wrapper := next((text for text in WRAPPERS if all(name.startswith(text) for name in state)), None):
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return state


def is_state(item: object) -> bool:
    """A mapping of names to tensors, and not an empty one."""
    return isinstance(item, Mapping) and bool(item) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in item.items())


def fit_stem(kernel: torch.Tensor, channels: int) -> torch.Tensor:
    """A (K, 3, h, w) kernel, or one of clips (K, 3, t, h, w), for `channels` input channels.

    One: the sum, so that a grey image gives what its RGB copy gave. Others: the three kernels in turn, times
    3 / channels to keep the size of sums (the rule of timm's `adapt_input_conv`, Wightman 2019).
    """
    if channels == RGB:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel[:, torch.arange(channels) % RGB] * (RGB / channels)


def load_weights(network: nn.Module, state: Mapping[str, torch.Tensor], source: str | Path, stem: str,
                 heads: Sequence[str] = (), optional: Sequence[str] = (), ignored: Sequence[str] = ()) -> None:
    """`state` into `network`, in place; every tensor must be there and fit, with these exceptions:

    stem: name of the first kernel, fitted from 3 channels; heads: beginnings of layers that stay as they are where
    their shape differs; optional: beginnings of names that may be missing; ignored: of names that may be too many.
    Says which layers stay as they are. Raises InputError with counts.
    """
    own, state = network.state_dict(), dict(state)
    if stem in state and stem in own and state[stem].ndim in (4, 5) and state[stem].shape[1] == RGB:
        state[stem] = fit_stem(state[stem].float(), own[stem].shape[1])
    other = {name for name in own if name in state and own[name].shape != state[name].shape}
    layers = {name.rpartition(".")[0] for name in other if name.startswith(tuple(heads))}
    state = {name: value for name, value in state.items() if name.rpartition(".")[0] not in layers}
    # counters of batches are missing from files of before they existed, and nothing is computed from them
    missing = [name for name in own if name not in state and not name.startswith(tuple(optional))
               and name.rpartition(".")[0] not in layers and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own and not name.startswith(tuple(ignored))]
    misfits = [f"{name} {tuple(state[name].shape)}, here {tuple(own[name].shape)}"
               for name in own if name in other and name in state]
    wrong = [f"{len(names)} {what} (first: {names[0]})" for names, what in
             ((missing, "missing"), (unknown, "unknown"), (misfits, "of another shape")) if names]
    if wrong:
        raise InputError(f"{KEY}: {source} does not fit: of {len(own)} tensors {'; '.join(wrong)}; expected "
                         "the weights of the same network")
    network.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
    left = list(dict.fromkeys(name.rpartition(".")[0] for name in own
                              if name not in state and not name.endswith("num_batches_tracked")))
    if left:
        print_line(f"{KEY}: {source} has no {', '.join(left[:3])}{f' and {len(left) - 3} more layers' if left[3:] else ''} "
                   "that fits: random there")
