"""Versions of FoldScan and of the packages that it runs on, as manifests, checkpoints and reports tell them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Iterable

from lib import __version__

FOLDSCAN = "foldscan"  # what it is called among them


def installed(names: Iterable[str]) -> dict[str, str]:
    """Package -> its version, of those that are there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # onnxruntime may be onnxruntime-gpu
            continue
    return found


def versions(names: Iterable[str]) -> dict[str, str]:
    """The same, after that of FoldScan."""
    return {FOLDSCAN: __version__, **installed(names)}
