"""A fold's ONNX file in ONNX Runtime: what it says of itself, and how it runs. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lib.study import InputError, Study, study_from_dict


class OnnxModel:
    """One session. meta: the decoded metadata (see conversion.metadata). provider: what computes."""

    def __init__(self, path: Path, device: str = "auto"):
        import onnxruntime
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        self.path = path
        providers = self._providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # the runtime raises many kinds for files that it cannot load
            raise InputError(f"{path} cannot be loaded by ONNX Runtime ({' '.join(str(error).split())[:160]}): "
                             "run 3-ConvertModels.py again") from None
        self.provider = self.session.get_providers()[0]
        texts = self.session.get_modelmeta().custom_metadata_map
        if "foldscan" not in texts:
            raise InputError(f"{path} was not made by 3-ConvertModels.py: it says nothing of its study and fold")
        self.meta: dict[str, Any] = {key: json.loads(text) for key, text in texts.items()}
        self.names = [output.name for output in self.session.get_outputs()]

    @property
    def fold(self) -> int:
        return self.meta["fold"]

    @property
    def study(self) -> Study:
        return study_from_dict(self.meta["study"])

    def run(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """(B, T, C, H, W) as stored -> {"logits": (B, ...) float32}."""
        return dict(zip(self.names, self.session.run(self.names, {"frames": windows.astype(np.float32)})))

    @staticmethod
    def _providers(device: str, available: list[str]) -> list[str]:
        cuda = "CUDAExecutionProvider"
        if device.startswith("cuda") and cuda not in available:
            raise InputError("--device cuda: this ONNX Runtime has no CUDA; install onnxruntime-gpu, or use --device cpu")
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device!r}: expected auto, cpu or cuda")
        return [cuda, "CPUExecutionProvider"] if cuda in available and device != "cpu" else ["CPUExecutionProvider"]
