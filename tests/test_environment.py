"""The environment's two doors (make and conda) lead to the same pins, and the code needs nothing else."""
from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
SECOND_SECTION = "# What those bring."
# Names under which the code imports a package, where they are not the package's own.
PACKAGES = {"cc3d": "connected-components-3d", "cv2": "opencv-python", "skimage": "scikit-image",
            "sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow", "openjpeg": "pylibjpeg-openjpeg"}


def requirements(text: str) -> dict[str, Requirement]:
    """Canonical name -> requirement, of every line that is not empty or a comment."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in found}


def pins() -> tuple[dict[str, Requirement], dict[str, Requirement]]:
    """The direct requirements, and all of them."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    direct, heading, _ = text.partition(SECOND_SECTION)
    assert heading, f"requirements.txt has lost its heading {SECOND_SECTION!r}"
    return requirements(direct), requirements(text)


def installed(name: str) -> str:
    """The version without its local part: 2.15.0 for 2.15.0+cu132."""
    return Version(metadata.version(name)).public


def imported() -> dict[str, Path]:
    """Top-level module -> a file that imports it, for all third-party imports of lib/ and the scripts."""
    found = {}
    for path in [*ROOT.glob("*.py"), *(ROOT / "lib").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            found |= {name.partition(".")[0]: path for name in names}
    return {name: path for name, path in found.items() if name not in {*sys.stdlib_module_names, "lib"}}


def test_every_requirement_is_one_exact_pin():
    direct, everything = pins()
    lines = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
             if line and not line.startswith("#")]
    assert len(lines) == len(everything), "a package is listed twice"
    for requirement in everything.values():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and not pin.version.endswith("*"), requirement
        assert not requirement.extras and requirement.url is None, requirement
    assert not any(r.marker for r in direct.values()), "the code imports the direct ones everywhere"


def test_what_the_code_imports_is_pinned():
    direct, _ = pins()
    missing = {name: str(path.relative_to(ROOT)) for name, path in imported().items()
               if canonicalize_name(PACKAGES.get(name, name)) not in direct}
    assert not missing, f"imported, but not among the direct requirements: {missing}"


def test_make_env_tries_to_import_every_direct_requirement():
    direct, _ = pins()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in makefile.splitlines() if line.startswith("IMPORTS =")]
    tops = [name.partition(".")[0] for name in line.partition("=")[2].split()]
    assert {canonicalize_name(PACKAGES.get(name, name)) for name in tops} == set(direct)


def test_installed_versions_are_the_pinned_ones():
    direct, _ = pins()
    other = {name: installed(name) for name, r in direct.items() if not r.specifier.contains(installed(name))}
    assert not other, f"differ from requirements.txt (make env renews .venv): {other}"


def test_what_the_pinned_packages_require_is_pinned_too():
    _, everything = pins()
    missing, refused = {}, {}
    for name, pin in everything.items():
        if pin.marker and not pin.marker.evaluate():
            continue
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            found = everything.get(canonicalize_name(needed.name))
            if found is None:
                missing[needed.name] = name
            elif not needed.specifier.contains(next(iter(found.specifier)).version, prereleases=True):
                refused[line] = name
    assert not missing, f"required by a pinned package, but not pinned: {missing}"
    assert not refused, f"a pinned package requires another version: {refused}"


def test_conda_environment_is_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert set(environment) == {"name", "channels", "dependencies"}
    assert environment["name"] == "FVVenv" and environment["channels"] == ["conda-forge"]
    python, pip, pip_section = environment["dependencies"]
    assert pip == "pip" and pip_section == {"pip": ["-r requirements.txt"]}
    name, version = python.split("=")
    assert name == "python" and Version(version) in SpecifierSet(">=3.11")


def test_python_is_new_enough():
    assert sys.version_info >= (3, 11)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("study", ["no_such_study", "%", "", "flair_visibility flair_visibility", "../.."])
def test_demo_of_an_unknown_study_lists_the_known_ones(study):
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}  # these tests may run under make themselves
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(["make", "known-study", f"STUDY={study}"], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert f"no demo of STUDY='{study}'; there are: " in done.stderr and "flair_visibility" in done.stderr


def test_no_decoder_of_dicom_is_under_the_gpl():
    """pylibjpeg-libjpeg is, and whoever installs it may; it must not come with us."""
    _, everything = pins()
    assert {"pydicom", "pylibjpeg-openjpeg", "pyjpegls"} <= set(everything) and "pylibjpeg-libjpeg" not in everything
