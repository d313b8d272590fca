"""Which device computes, how, and from which seeds."""

from __future__ import annotations

import numpy as np
import torch

from lib.study import InputError


def choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


def has_bf16(device: torch.device, layout: str = "channels") -> bool:
    """Whether bf16 is computed by the hardware; emulated, it is slower than float32. layout: of the network."""
    if device.type == "cpu" and layout == "clip":
        return False  # gradients of 3-D convolutions then hold memory that nobody wrote (seen with torch 2.15)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and probe()


def choose_kernels(device: torch.device) -> None:
    """Repeatable kernels on the CPU; on CUDA the fastest ones (a run there is not promised to repeat to the bit)."""
    # `use_deterministic_algorithms(True, warn_only=True)` does the same, but imports torch's compiler first, which takes a second
    torch.set_deterministic_debug_mode("warn" if device.type == "cpu" else "default")
    torch.backends.cudnn.benchmark = device.type == "cuda"


def host_buffer(shape: tuple[int, ...], dtype: np.dtype, device: torch.device) -> np.ndarray:
    """A NumPy view of (pinned, for CUDA) memory."""
    kind = {"float16": torch.float16, "uint8": torch.uint8}[dtype.name]
    return torch.empty(shape, dtype=kind, pin_memory=device.type == "cuda").numpy()


def hash_seed(parts: tuple[int, ...]) -> int:
    """One well-mixed 63-bit seed from several numbers, the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
