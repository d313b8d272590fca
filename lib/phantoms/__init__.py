"""Example data of every study, made on the spot: a registry from study name to maker."""
from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Callable

# A maker is called as maker(folder, patients, seed, size=...), writes the study's input layout under
# folder and returns what it made: a folder per patient, or the files. "module:function" is imported on first use.
PHANTOMS: dict[str, str | Callable[..., list[Path]]] = {
    "echo_quality": "lib.phantoms.echo:make_echo_loops",
    "fetal_anatomy": "lib.phantoms.anatomy:make_anatomy_images",
    "fetal_biometry": "lib.phantoms.planes:make_planes",
    "fetal_biometry_landmarks": "lib.phantoms.planes:make_landmark_planes",
    "flair_visibility": "lib.phantoms.stroke:make_stroke_patients",
    "lumbar_spine": "lib.phantoms.spine:make_spine_frames",
    "nuchal_translucency": "lib.phantoms.nuchal:make_nuchal_images",
}
SIZES = ("small", "demo", "full")


def phantom_maker(study: str) -> Callable[..., list[Path]]:
    """The maker of a study's example data.

    Raises ValueError, listing the known studies, for a name that is not in the registry.
    """
    if study not in PHANTOMS:
        raise ValueError(f"no example data for study '{study}'; known: {', '.join(sorted(PHANTOMS))}")
    maker = PHANTOMS[study]
    if isinstance(maker, str):
        module, function = maker.split(":")
        maker = getattr(import_module(module), function)
    return maker
