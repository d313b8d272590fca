"""lib.study: strict YAML, --set overrides, round trips; and every shipped study with all its plug points."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from lib.study import (STUDIES, Augmentation, Data, Folds, InputError, Study, Training, Window, build, convert, differences,
                       load_study, plain, study_from_dict, without_paths)

MINIMAL = {
    "name": "tiny",
    "data": {"reader": {"kind": "nifti_folders", "channels": {"t1": "t1"}, "truth": {"lesion": "roi"},
                        "brain_mask": "none"},
             "classes": ["lesion"]},
    "task": {"kind": "segmentation"},
    "network": {"name": "smp/Unet/resnet18"},
}
SHIPPED = sorted(STUDIES.glob("**/*.yaml"))


def load(folder: Path, *overrides: str, text: str | None = None) -> Study:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(MINIMAL) if text is None else text, encoding="utf-8")
    return load_study(str(path), overrides)


def test_what_is_not_given_has_its_default(tmp_path):
    study = load(tmp_path)
    assert (study.name, study.run, study.data.classes, study.data.size) == ("tiny", "FVV", ("lesion",), (256, 256))
    assert (study.training, study.window, study.augmentation) == (Training(), Window(), Augmentation())
    assert (study.data.folds.k, study.data.folds.valid_proportion) == (10, 0.2)


@pytest.mark.parametrize("override, key, suggestion", [
    ("trainning.epochs=3", "trainning", "training"),
    ("training.epoch=3", "training.epoch", "epochs"),
    ("data.folds.valid_proprotion=0.3", "data.folds.valid_proprotion", "valid_proportion"),
    ("window.frame=3", "window.frame", "frames"),
])
def test_an_unknown_key_names_file_key_and_the_likely_one(tmp_path, override, key, suggestion):
    with pytest.raises(InputError) as caught:
        load(tmp_path, override)
    message = str(caught.value)
    assert str(tmp_path / "tiny.yaml") in message
    assert f"unknown key {key} (did you mean {suggestion}?)" in message


def test_an_unknown_key_like_no_other_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="unknown key window.qqq; known here: frames, stride"):
        load(tmp_path, "window.qqq=1")


@pytest.mark.parametrize("override, key, expected", [
    ("training.epochs=many", "training.epochs", "int"),
    ("training.epochs=2.5", "training.epochs", "int"),
    ("training.epochs=true", "training.epochs", "int"),  # a bool is an int to Python, not to a person
    ("training.amp=1", "training.amp", "bool"),
    ("training.learning_rate=fast", "training.learning_rate", "float"),
    ("training.learning_rate=true", "training.learning_rate", "float"),
    ("training.select=3", "training.select", "str"),
    ("data.size=[64]", "data.size", "tuple"),
    ("data.size=[64, 64, 64]", "data.size", "tuple"),
    ("data.size=64", "data.size", "tuple"),
    ("data.size=[64, wide]", "data.size", "int"),
    ("data.classes=lesion", "data.classes", "tuple"),
    ("data.inside=[lesion]", "data.inside", "dict"),
    ("data.reader=nifti", "data.reader", "dict"),
    ("training=5", "training", "keys and values"),
    ("training=null", "training", "keys and values"),
    ("augmentation.zoom_range=[1]", "augmentation.zoom_range", "tuple"),
])
def test_a_wrong_type_names_key_and_what_was_expected(tmp_path, override, key, expected):
    with pytest.raises(InputError) as caught:
        load(tmp_path, override)
    assert f"{key}: expected {expected}" in str(caught.value)


@pytest.mark.parametrize("override", [
    "data.encoding=region", "data.intensity=z-score", "data.store=float32",
    "data.classes=[lesion, lesion]", "data.inside={lesion: brain}", "data.inside={lesion: lesion}", "data.size=[4, 64]",
    "data.folds.k=1", "data.folds.valid_proportion=1", "data.folds.valid_proportion=-0.1", "window.frames=0",
    "window.stride=0", "training.epochs=0", "training.batch_size=0", "training.accumulate=0",
    "training.learning_rate=0", "training.learning_rate=nan", "training.patience=-1",
])
def test_a_value_out_of_range_is_refused(tmp_path, override):
    key = override.split("=")[0]
    with pytest.raises(InputError) as caught:
        load(tmp_path, override)
    assert f": {'window' if key.startswith('window') else key}: " in str(caught.value)


def test_an_outer_region_comes_first():
    with pytest.raises(InputError, match="outer region before"):
        Data(reader={}, classes=("stroke", "brain"), inside={"stroke": "brain"})


def test_exclusive_classes_cannot_lie_inside_each_other():
    """A voxel has one exclusive class, so cutting a class to another one would leave nothing of it."""
    with pytest.raises(InputError, match="inside"):
        Data(reader={}, classes=("brain", "stroke"), inside={"stroke": "brain"}, encoding="exclusive")


@pytest.mark.parametrize("key", ["name", "data", "task", "network", "data.reader"])
def test_a_missing_key_is_named(tmp_path, key):
    values = yaml.safe_load(yaml.safe_dump(MINIMAL))
    *parents, last = key.split(".")
    holder = values
    for parent in parents:
        holder = holder[parent]
    del holder[last]
    with pytest.raises(InputError, match=f"missing key {key}$"):
        load(tmp_path, text=yaml.safe_dump(values))


def test_numbers_as_people_write_them(tmp_path):
    """YAML 1.1 reads 1e-4 (without a point) as text."""
    assert yaml.safe_load("1e-4") == "1e-4"
    study = load(tmp_path, "training.learning_rate=1e-4", "training.weight_decay=0", "data.clip=5")
    assert study.training.learning_rate == 1e-4
    assert (study.training.weight_decay, study.data.clip) == (0.0, 5.0)
    assert type(study.training.weight_decay) is float and type(study.data.clip) is float


def test_overrides_reach_any_depth_and_the_last_one_wins(tmp_path):
    study = load(tmp_path, "data.folds.k=4", "training.epochs=7", "training.epochs=8", "data.size=[32, 48]",
                 "training.schedule_options={T_0: 3}", "training.schedule_options.T_mult=1", "title=a=b",
                 "network.encoder_weights=null", "tracking.trackers=[none]")
    assert (study.data.folds.k, study.training.epochs, study.data.size) == (4, 8, (32, 48))
    assert study.training.schedule_options == {"T_0": 3, "T_mult": 1}
    assert (study.title, study.tracking.trackers) == ("a=b", ("none",))
    assert study.network == {"name": "smp/Unet/resnet18", "encoder_weights": None}


@pytest.mark.parametrize("override, reason", [
    ("training.epochs", "expected key.path=value"), ("=3", "expected key.path=value"),
    ("name.first=x", "name holds no keys"), ("data.size=[1,", "not valid YAML"),
])
def test_a_malformed_override_is_quoted(tmp_path, override, reason):
    with pytest.raises(InputError) as caught:
        load(tmp_path, override)
    assert repr(override) in str(caught.value) and reason in str(caught.value)


def test_files_that_are_no_study(tmp_path):
    with pytest.raises(InputError, match="shipped studies: .*flair_visibility"):
        load_study("no_such_study")
    with pytest.raises(InputError, match="not valid YAML"):
        load(tmp_path, text="a: [1")
    with pytest.raises(InputError, match="expected keys and values, found list"):
        load(tmp_path, text="- a\n- b\n")
    with pytest.raises(InputError, match="expected keys and values, found NoneType"):
        load(tmp_path, text="")


def test_nested_tuples_and_unions_convert():
    def target(pairs: tuple[tuple[int, float], ...], names: dict[str, str | tuple[str, ...]], limit: int | None = 3):
        return pairs, names, limit

    values = {"pairs": [[1, 2], [3, "4e0"]], "names": {"a": "x", "b": ["y", "z"]}, "limit": None}
    assert build(target, values, "here") == (((1, 2.0), (3, 4.0)), {"a": "x", "b": ("y", "z")}, None)
    with pytest.raises(InputError, match="here.pairs: expected int, found 'one'"):
        build(target, {**values, "pairs": [["one", 2]]}, "here")
    with pytest.raises(InputError, match="here.names.b: expected"):
        build(target, {**values, "names": {"b": 5}}, "here")
    assert convert([], tuple[int, ...], "here") == ()


def test_arguments_from_the_code_are_not_keys():
    def target(given: int, key: int = 1):
        return given, key

    assert build(target, {"key": 2}, "here", given=5) == (5, 2)
    with pytest.raises(InputError, match="unknown key here.given"):
        build(target, {"given": 2}, "here", given=5)


def test_differences_are_lines_that_a_person_reads():
    old = {"size": (2, 3), "folds": {"k": 5, "seed": 0}, "gone": 1}
    new = {"size": [2, 3], "folds": {"k": 3, "seed": 0}, "fresh": [1]}
    assert differences(old, new, "data") == ["data.folds.k: 5 -> 3", "data.gone: 1 -> None", "data.fresh: None -> [1]"]
    assert differences(new, new) == []
    assert plain({"a": ((1, 2), [3, (4,)])}) == {"a": [[1, 2], [3, [4]]]}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_study_survives_the_way_through_a_file(path):
    study = load_study(str(path))
    assert study_from_dict(study.to_dict()) == study
    assert study_from_dict(yaml.safe_load(yaml.safe_dump(plain(study.to_dict())))) == study


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_study_builds_reader_task_network_and_schedule(path):
    import torch

    from lib.data.store import CaseRecord
    from lib.imaging.geometry import Fit, Geometry
    from lib.networks import make_network
    from lib.optimisation import make_optimizer, make_schedule
    from lib.readers import make_reader
    from lib.tasks import make_task

    study = load_study(str(path))
    reader, task = make_reader(study.data), make_task(study)
    channels = study.data.reader.get("channels", 1)
    assert len(reader.channel_names) == (channels if isinstance(channels, int) else len(channels))
    network = make_network(study, len(reader.channel_names), task.outputs, weights_follow=True).eval()  # no download
    make_schedule(make_optimizer(network, study.training), study.training, 3, True)
    shape = (1, study.window.frames, len(reader.channel_names), *study.data.size)
    with torch.inference_mode():
        outputs = network(torch.zeros(shape))
    geometry = Geometry((1, *study.data.size), None, True)
    case = CaseRecord(0, "a", "a", geometry, Fit.of(study.data.size, study.data.size), slice(0, 1), slice(0, 1), "")
    task.decode({name: value.numpy() for name, value in outputs.items()}, case)
    assert all(value.shape[:2] == (1, task.outputs) for value in outputs.values())


@pytest.mark.parametrize("section, change, message", [
    ("reader", {"kind": "nifti_folder"}, r"data.reader.kind: unknown 'nifti_folder' \(did you mean 'nifti_folders'"),
    ("reader", {"brainmask": "otsu"}, r"unknown key data.reader.brainmask \(did you mean brain_mask"),
    ("reader", {"truth": {}}, "no file name for class 'lesion'"),
    ("reader", {"channels": {}}, "data.reader.channels"),
    ("reader", {"patient_pattern": "("}, "not a regular expression"),
    ("task", {"kind": "segment"}, "task.kind: unknown 'segment'"),
    ("task", {"outline": ["lesion"]}, r"unknown key task.outline \(did you mean outlines"),
    ("task", {"heat": "leison"}, r"task.heat: unknown 'leison' \(did you mean 'lesion'"),
    ("network", {"name": "vnet"}, "network.name: unknown 'vnet'"),
    ("network", {"name": "smp/UNet5/resnet18"}, "expected smp/<Architecture>/<encoder>"),
    ("network", {"name": "smp/Unet/resnet17"}, "no encoder 'resnet17'"),
    ("network", {"encoder_dept": 3}, r"network.encoder_dept: unknown key \(did you mean encoder_depth"),
])
def test_a_plug_checks_its_own_keys(section, change, message):
    from lib.networks import make_network
    from lib.readers import make_reader
    from lib.tasks import make_task

    study = study_from_dict(MINIMAL)
    make = {"reader": lambda s: make_reader(s.data), "task": make_task, "network": lambda s: make_network(s, 1, 1)}
    if section == "reader":
        study = dataclasses.replace(study, data=dataclasses.replace(study.data, reader={**study.data.reader, **change}))
    else:
        study = dataclasses.replace(study, **{section: {**getattr(study, section), **change}})
    with pytest.raises(InputError, match=message):
        make[section](study)


def test_classes_may_bring_their_mask_values():
    study = study_from_dict({**MINIMAL, "data": {**MINIMAL["data"], "classes": {"bone": 255, "ligament": [1, 2]}}})
    assert study.data.classes == ("bone", "ligament") and study.data.class_values == {"bone": 255, "ligament": [1, 2]}
    assert study_from_dict(plain(study.to_dict())) == study
    with pytest.raises(InputError, match="data.class_values: unknown 'bone'"):
        study_from_dict({**MINIMAL, "data": {**MINIMAL["data"], "class_values": {"bone": 1}}})


def test_pool_is_a_word_for_a_section(tmp_path):
    values = {**MINIMAL, "data": {**MINIMAL["data"], "folds": "pool"}}
    assert study_from_dict(values).data.folds == Folds(pool=True)
    path = tmp_path / "pooled.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_study(str(path), ["data.folds.k=3"]).data.folds == Folds(k=3, pool=True)
    with pytest.raises(InputError, match="data.folds: expected"):
        study_from_dict({**MINIMAL, "data": {**MINIMAL["data"], "folds": "pol"}})


def test_what_is_published_names_no_files_of_this_machine():
    study = study_from_dict({**MINIMAL, "network": {"name": "unet", "weights": "/home/me/secret/w.pt"}})
    assert "input" not in without_paths(study)["data"] and without_paths(study)["network"]["weights"] == "w.pt"


def test_the_shipped_studies_are_tracked_where_their_readers_look():
    def trackers(study: str) -> set[str]:
        return set(load_study(study).tracking.trackers)
    assert trackers("echo_quality") == {"wandb", "mlflow"}
    assert trackers("fetal_anatomy") == trackers("nuchal_translucency") == {"wandb", "tensorboard", "mlflow"}
