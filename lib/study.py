"""A study: the YAML that a user writes, as frozen dataclasses. Unknown keys and wrong types are errors.

Everything under `data:` shapes the prepared arrays and is fixed by script 1; the other sections may change from
run to run. Readers, tasks and networks declare their own keys as annotated parameters, and `build` checks them.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import yaml

WORDS = {"pool": {"pool": True}}  # a word that stands for a whole section: `folds: pool`
STUDIES = Path(__file__).resolve().parents[1] / "studies"


class InputError(Exception):
    """Bad input. The message is for the person at the shell; the scripts print it and exit with code 2."""


def require(condition: bool, key: str, found: Any, expected: str) -> None:
    if not condition:
        raise InputError(f"{key}: found {found}, expected {expected}")


def one_of(value: str, known: Sequence[str], key: str) -> None:
    if value not in known:
        close = difflib.get_close_matches(str(value), known, 1)
        raise InputError(f"{key}: unknown {value!r}{f' (did you mean {close[0]!r}?)' if close else ''}; "
                         f"known: {', '.join(known)}")


@dataclass(frozen=True)
class Folds:
    """How patients are dealt. `valid_proportion` is the share of the non-test patients of a fold. `pool` deals
    predefined train, validation and test folders into k folds too (`folds: pool` is short for it)."""
    k: int = 10
    valid_proportion: float = 0.2
    seed: int = 0
    stratify: tuple[str, ...] = ()  # classes by whose size the folds are balanced; all if empty
    pool: bool = False

    def __post_init__(self):
        require(self.k >= 2, "data.folds.k", f"{self.k} folds", "at least 2")
        require(0 <= self.seed < 2**32, "data.folds.seed", self.seed, "0 <= seed < 2^32")
        require(0 <= self.valid_proportion < 1, "data.folds.valid_proportion", self.valid_proportion, "0 <= v < 1")


@dataclass(frozen=True)
class Data:
    """What is baked into `prepared/`: changing a key here means running script 1 again.

    classes: names, or a mapping from name to the mask value (or values, or colour) that means it, which is kept in
    `class_values`. Empty: script 1 takes the values that it finds in the masks.
    """
    reader: dict
    classes: tuple[str, ...] | dict[str, Any] = ()
    class_values: dict[str, Any] = field(default_factory=dict)
    input: str = "input_data"
    inside: dict[str, str] = field(default_factory=dict)  # region -> the region that it lies inside
    encoding: str = "regions"  # regions (may overlap, sigmoid) | exclusive (one class per pixel, softmax)
    size: tuple[int, int] = (256, 256)  # rows, columns of the common grid
    intensity: str = "zscore"  # zscore (inside the brain, or the whole volume without a brain mask) | none
    clip: float = 10.0  # z-scores beyond +-clip are clipped
    store: str = "float16"  # float16 | uint8
    folds: Folds = Folds()

    def __post_init__(self):
        if isinstance(self.classes, dict):
            require(not self.class_values, "data.class_values", self.class_values, "none beside values in data.classes")
            object.__setattr__(self, "class_values", {k: v for k, v in self.classes.items() if v is not None})
            object.__setattr__(self, "classes", tuple(self.classes))
        for name in self.class_values:
            one_of(name, self.classes, "data.class_values")
        if self.encoding == "exclusive":
            values = [str(v) for value in self.class_values.values() for v in (value if isinstance(value, list) else [value])]
            colours = any(isinstance(value, list) and len(value) == 3 for value in self.class_values.values())
            require(colours or len(set(values)) == len(values), "data.classes", self.class_values,
                    "a value for one class only, because classes are exclusive")
        one_of(self.encoding, ("regions", "exclusive"), "data.encoding")
        one_of(self.intensity, ("zscore", "none"), "data.intensity")
        one_of(self.store, ("float16", "uint8"), "data.store")
        require(len(set(self.classes)) == len(self.classes), "data.classes", list(self.classes), "different names")
        for name in self.classes:  # `all` is the class of overall rows, `metric/class` a column
            require(name not in ("", "all", "unit") and "/" not in name and name == name.strip() and name.isprintable(),
                    "data.classes", repr(name), "another name, without / and without blanks around it")
        require(0 < self.clip < float("inf"), "data.clip", self.clip, "above 0, finite")
        require(self.store != "uint8" or self.intensity == "none", "data.store", "uint8 with z-scores",
                "float16, or intensity: none")
        require(min(self.size) >= 8, "data.size", list(self.size), "at least 8 x 8")
        require(not (self.inside and self.encoding == "exclusive"), "data.inside", self.inside,
                "none with exclusive classes, because a voxel has only one of them")
        for name in self.folds.stratify:
            one_of(name, self.classes, "data.folds.stratify")
        for child, parent in self.inside.items():
            for name in (child, parent):
                one_of(name, self.classes, "data.inside")
            require(self.classes.index(parent) < self.classes.index(child), "data.inside", f"{child}: {parent}",
                    "the outer region before the inner one in data.classes")


@dataclass(frozen=True)
class Window:
    """A sample is `frames` frames at `stride`, centred on its own frame and clamped to its series.

    Where a case is one sample (classification), training draws a random window of its series, and whatever is not training
    sees `test_windows` that are spread evenly over it, their logits averaged. The network sees a window resized by `scale`,
    on the device; what it says is resized back to the grid. With `mirror`, whatever is not training takes the mean of what
    it says of the window and of its mirror image (columns flipped).
    """
    frames: int = 1
    stride: int = 1
    scale: float = 1.0
    mirror: bool = False
    test_windows: int = 3

    @property
    def span(self) -> int:
        """Frames of a series from the first to the last of a window."""
        return (self.frames - 1) * self.stride + 1

    def __post_init__(self):
        require(self.test_windows >= 1, "window.test_windows", self.test_windows, "at least 1")
        require(0 < self.scale <= 4, "window.scale", self.scale, "above 0, at most 4")
        require(self.frames >= 1 and self.stride >= 1, "window", f"{self.frames} frames at {self.stride}", ">= 1")


@dataclass(frozen=True)
class Training:
    """The only training loop's settings."""
    epochs: int = 60
    batch_size: int = 16
    optimizer: str = "adamw"  # sgd | adam | adamw | rmsprop
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9  # sgd and rmsprop only
    schedule: str = "poly"  # constant | plateau | cosine_restarts | one_cycle | poly
    schedule_options: dict = field(default_factory=dict)  # that schedule's own keys, such as {T_0: 5, T_mult: 2}
    accumulate: int = 1  # batches per optimiser step
    clip_norm: float = 1.0  # of the gradient; 0 leaves it alone
    amp: bool = True  # bf16 autocast where the device has bf16 units
    sampler: str = "all"  # all: every sample once per epoch | balanced: as many of each class, or with foreground as without
    unfrozen_layers: int | dict[str, int] | None = None  # layers that learn, from the head = 1; a number, or epoch: number
    patience: int = 15  # epochs without a better validation score before stopping; 0 never stops early
    checkpoint_every: int = 0  # epochs between checkpoints that are kept beside best.pt and last.pt; 0: none
    average: float = 0.0  # decay of the moving average of the weights that is validated and kept; 0: none
    select: str = ""  # validation metric of the best checkpoint, METRIC or METRIC/CLASS; `loss` is possible; empty: the task's
    seed: int = 0

    def __post_init__(self):
        for key in ("epochs", "batch_size", "accumulate"):
            require(getattr(self, key) >= 1, f"training.{key}", getattr(self, key), "at least 1")
        one_of(self.sampler, ("all", "balanced"), "training.sampler")
        require(0 < self.learning_rate < float("inf"), "training.learning_rate", self.learning_rate, "above 0")
        require(0 <= self.average < 1, "training.average", self.average, "0 <= decay < 1")
        for key in ("patience", "clip_norm", "weight_decay", "checkpoint_every"):
            require(getattr(self, key) >= 0, f"training.{key}", getattr(self, key), "at least 0")
        chosen = self.unfrozen_layers
        if isinstance(chosen, dict):
            require("0" in chosen and all(epoch.isdigit() for epoch in chosen), "training.unfrozen_layers", chosen,
                    "epochs and numbers of layers, from epoch 0 on, such as {0: 1, 5: 2, 10: 3}")
        for layers in self.unfreezing.values():
            require(layers >= 1, "training.unfrozen_layers", chosen, "at least 1 layer, the head")

    @property
    def unfreezing(self) -> dict[int, int]:
        """Epoch -> layers that learn from it on; {} if all do."""
        if self.unfrozen_layers is None:
            return {}
        chosen = self.unfrozen_layers if isinstance(self.unfrozen_layers, dict) else {"0": self.unfrozen_layers}
        return {int(epoch): layers for epoch, layers in chosen.items()}

    def unfrozen_at(self, epoch: int) -> int | None:
        """Layers that learn in an epoch; None: all."""
        return self.unfreezing[max(first for first in self.unfreezing if first <= epoch)] if self.unfreezing else None


@dataclass(frozen=True)
class SyntheticLowQuality:
    """Twins of good training clips, labelled poor and put into the same batch. share: of the good clips of a batch that
    get one. noise_level: standard deviation of their noise, a share of white. blur_kernel: side of the Gaussian, px.
    contrast_reduction: share of the contrast that they lose. Beside `sampler: balanced`, which draws as many poor clips as good
    ones, they make the poor ones the more frequent."""
    share: float = 0.5
    noise_level: float = 0.2
    blur_kernel: int = 5
    contrast_reduction: float = 0.5

    def __post_init__(self):
        for key in ("share", "contrast_reduction"):
            require(0 <= getattr(self, key) <= 1, f"augmentation.synthetic_low_quality.{key}", getattr(self, key), "0..1")
        require(self.noise_level >= 0, "augmentation.synthetic_low_quality.noise_level", self.noise_level, "at least 0")
        require(self.blur_kernel >= 1 and self.blur_kernel % 2 == 1, "augmentation.synthetic_low_quality.blur_kernel",
                self.blur_kernel, "an odd number of pixels; 1 blurs nothing")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training batch. Each pair is a uniform range; `transform_prob` is that of each transform.

    Grey levels are shares of white, z-scores are themselves. temporal_crop_range: share of a window's frames that is
    stretched back to all of them. temporal_mask_prob: that a frame becomes the mean of its neighbours.
    """
    transform_prob: float = 0.5
    flip_rows: bool = False
    flip_columns: bool = True
    rotation_range: tuple[float, float] = (-15.0, 15.0)  # degrees
    zoom_range: tuple[float, float] = (0.9, 1.1)
    translation_range: tuple[float, float] = (-0.05, 0.05)  # share of the frame
    brightness_range: tuple[float, float] = (0.8, 1.25)  # factor of grey levels (of z-scores: their contrast)
    brightness_shift: tuple[float, float] = (-0.05, 0.05)  # added
    contrast_range: tuple[float, float] = (1.0, 1.0)  # factor of the differences from the window's mean
    noise_level: tuple[float, float] = (0.0, 0.025)  # standard deviation of added Gaussian noise
    temporal_crop_range: tuple[float, float] = (1.0, 1.0)
    temporal_mask_prob: float = 0.0
    synthetic_low_quality: SyntheticLowQuality | None = None

    def __post_init__(self):
        for key in ("transform_prob", "temporal_mask_prob"):
            require(0 <= getattr(self, key) <= 1, f"augmentation.{key}", getattr(self, key), "0..1")
        for key in ("rotation_range", "zoom_range", "translation_range", "brightness_range", "brightness_shift",
                    "contrast_range", "noise_level", "temporal_crop_range"):
            low, high = getattr(self, key)
            require(low <= high, f"augmentation.{key}", [low, high], "[low, high]")
        for key in ("noise_level", "brightness_range", "contrast_range"):
            require(getattr(self, key)[0] >= 0, f"augmentation.{key}", list(getattr(self, key)), "at least 0")
        require(self.zoom_range[0] > 0, "augmentation.zoom_range", list(self.zoom_range), "above 0")
        low, high = self.temporal_crop_range
        require(0 < low and high <= 1, "augmentation.temporal_crop_range", [low, high], "above 0, at most 1")


@dataclass(frozen=True)
class Tracking:
    trackers: tuple[str, ...] = ("wandb",)
    project: str = "FVV"
    pictures: bool = True  # validation pictures go to the tracker (and to its server, if you are logged in)
    artifacts: bool = True  # so do the best checkpoints and the ONNX files


@dataclass(frozen=True)
class Report:
    figures: bool = True  # script 1 draws the data set
    heatmaps: bool = True  # script 4 draws every case: heatmaps/ and pictures/
    validation_pictures: int = 16  # cases that a trained fold draws, beside its checkpoints
    tolerance_mm: float = 0.0  # margin within which a boundary counts as right, scored beside the plain metrics; 0: none
    pdf: bool = False  # a PDF beside the PNG of every figure
    intended_use: str = ""  # for the model card of report.html: who may use the model for what
    limitations: str = ""  # and what is known to go wrong

    def __post_init__(self):
        for key in ("validation_pictures", "tolerance_mm"):
            require(0 <= getattr(self, key) < float("inf"), f"report.{key}", getattr(self, key), "at least 0")


@dataclass(frozen=True)
class Study:
    """One study. `task`, `network` and `data.reader` are mappings with a `kind`/`name`, checked by their plug point."""
    name: str
    data: Data
    task: dict
    network: dict
    title: str = ""
    run: str = "FVV"  # name of the run when -n is not given
    window: Window = Window()
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    tracking: Tracking = Tracking()
    report: Report = Report()
    measurements: dict[str, dict] = field(default_factory=dict)

    def __post_init__(self):
        require(self.name == Path(self.name).name and self.name[:1] != ".", "name", repr(self.name),
                "a name without / that does not start with a dot: it is the workspace's folder")

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def load_study(name_or_path: str, overrides: Sequence[str] = ()) -> Study:
    """Read `studies/NAME.yaml` or a path, apply `key.path=value` overrides, check everything.

    Raises InputError that names the file and the key.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = STUDIES / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in STUDIES.glob("*.yaml")))
        raise InputError(f"no study {name_or_path!r} ({path} is not a file); shipped studies: {known}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())} (a colour needs quotes, \"#ff0000\"; a "
                         "pattern with a backslash none, or single ones)") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, found {type(values).__name__}")
    for override in overrides:
        apply_override(values, override)
    try:
        return build(Study, values, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def apply_override(values: dict, override: str) -> None:
    """`training.epochs=5` into the nested mapping, in place; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override!r}: expected key.path=value")
    *parents, last = key.split(".")
    for parent in parents:
        below = values.setdefault(parent, {})
        if isinstance(below, str) and below in WORDS:
            below = values[parent] = dict(WORDS[below])
        values = below
        if not isinstance(values, dict):
            raise InputError(f"--set {override!r}: {parent} holds no keys")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"--set {override!r}: the value is not valid YAML") from None


def study_from_dict(values: Mapping) -> Study:
    """The inverse of `Study.to_dict`, for studies stored in manifests, checkpoints and ONNX files."""
    return build(Study, values, "")


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Lines `key: old -> new` for two nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = list(old) + [k for k in new if k not in old]
        return [line for k in keys for line in differences(old.get(k), new.get(k), f"{key}.{k}" if key else str(k))]
    old, new = plain(old), plain(new)
    if old != new and key.rpartition(".")[2] in SECRETS:
        return [f"{key}: changed"]
    return [] if old == new else [f"{key}: {old} -> {new}"]


# sections that may differ between what trained and what is asked for now, because they change no weight
FREE_SECTIONS = ("title", "tracking", "report", "run", "measurements")


def training_differences(old: dict, new: dict) -> list[str]:
    """What differs between two studies in the keys that shape the weights."""
    kept = [{k: v for k, v in with_defaults(study).items() if k not in FREE_SECTIONS} for study in (old, new)]
    return differences(*({**study, "data": {k: v for k, v in without_secrets(study)["data"].items() if k != "input"}}
                         for study in kept))


def with_defaults(study: dict) -> dict:
    """A stored study with keys that are newer than it; as it is, if its own keys are not known any more."""
    try:
        return study_from_dict(study).to_dict()
    except InputError:
        return study


# keys of readers that must not leave this machine: with them, a patient's number could be guessed from its hash
SECRETS = ("patient_salt",)


def without_secrets(study: dict) -> dict:
    """A study's plain values without what would tell who a patient is."""
    data = study["data"]
    return {**study, "data": {**data, "reader": {k: v for k, v in data["reader"].items() if k not in SECRETS}}}


def without_paths(study: Study) -> dict:
    """The study as plain values without what names files of this machine: for models, trackers and reports."""
    described = without_secrets(plain(study.to_dict()))
    described["data"].pop("input")
    for key, value in list(described["network"].items()):
        if key.endswith("weights") and isinstance(value, str) and Path(value).name != value:
            described["network"][key] = Path(value).name
    return described


def plain(value: Any) -> Any:
    """Tuples as lists, all the way down: what YAML and JSON can hold."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def build(target: Callable, values: Mapping, where: str, **given):
    """Call `target` (a dataclass or function) with `values`, checked against its annotated parameters.

    `given` are arguments that come from the code, not from the user. Raises InputError naming the key.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where or 'study'}: expected keys and values, found {values!r}")
    hints = typing.get_type_hints(target)
    parameters = {n: p for n, p in inspect.signature(target).parameters.items() if n not in given}
    arguments = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in parameters:
            close = difflib.get_close_matches(str(key), parameters, 1)
            raise InputError(f"unknown key {path}{f' (did you mean {close[0]}?)' if close else ''}; "
                             f"known here: {', '.join(parameters) or 'none'}")
        arguments[key] = convert(value, hints.get(key, Any), path)
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in arguments:
            raise InputError(f"missing key {f'{where}.' if where else ''}{key}")
    return target(**arguments, **given)


def convert(value: Any, expected: Any, where: str) -> Any:
    """`value` as the annotated type, or InputError. Lists become tuples; `1e-4` is a number, as people expect."""
    origin, options = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in options:
            try:
                return convert(value, option, where)
            except InputError:
                continue
    elif expected is type(None):
        if value is None:
            return None
    elif dataclasses.is_dataclass(expected):
        return build(expected, WORDS.get(value, value) if isinstance(value, str) else value, where)
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            kinds = [options[0]] * len(value) if options[-1] is Ellipsis else options
            if len(kinds) == len(value):
                return tuple(convert(v, k, where) for v, k in zip(value, kinds))
    elif origin is dict or expected is dict:
        if isinstance(value, Mapping):
            kind = options[1] if options else Any
            for key in value:
                require(not isinstance(key, bool), f"{where}.{key}", "a yes or no (so YAML reads no, yes, on and off)",
                        "a name; put it in quotes")
            return {str(k): convert(v, kind, f"{where}.{k}") for k, v in value.items()}
    elif expected is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif expected in (int, str, bool) and type(value) is expected:
        return value
    shown = getattr(expected, "__name__", str(expected)) if not options else str(expected).replace("typing.", "")
    raise InputError(f"{where}: expected {shown}, found {value!r}")
