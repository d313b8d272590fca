"""What the five scripts share: their arguments, opening a study and its workspace, and plain errors with exit code 2."""

from __future__ import annotations

import argparse
import errno
import json
import shlex
import sys
from pathlib import Path
from typing import Callable, Mapping, Sequence

from lib.study import InputError, Study, load_study
from lib.workspace import Workspace


# permission, a file where a folder should be, disk full, read-only, quota: the person's to mend
MENDABLE = (errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.ENOSPC, errno.EROFS, errno.EDQUOT)


def main(function: Callable[[], int | None]) -> None:
    """Run a script: bad input ends with one line and exit code 2, Ctrl-C with 130; anything else is a bug and shows."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console that cannot show a name is no reason to stop
    try:
        sys.exit(function() or 0)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command starts or goes on again", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        print(f"error: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every script takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=Formatter)
    made.add_argument("-s", "--study", default="flair_visibility", metavar="NAME_OR_PATH",
                      help="a study in studies/, or the path of a YAML file")
    made.add_argument("-o", "--workspace", type=Path, metavar="DIR",
                      help="where everything is written (default: workspace/<study>)")
    made.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", dest="overrides",
                      help="override a key of the study; may be given several times")
    return made


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description as written and shows the defaults that are worth showing."""

    def _get_help_string(self, action):
        if action.default in (None, [], argparse.SUPPRESS) or "default" in action.help:
            return action.help
        return super()._get_help_string(action)


def switch(made: argparse.ArgumentParser, *names: str, help: str) -> None:
    """A switch that also takes True or False, as the seed's scripts did."""
    made.add_argument(*names, nargs="?", const=True, default=False, type=true_or_false, metavar="True|False", help=help)


def true_or_false(text: str) -> bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise argparse.ArgumentTypeError(f"expected True or False, not {text!r}")


def training_arguments(made: argparse.ArgumentParser) -> None:
    """The arguments of 2a and 2b; those left at None take the study's value."""
    run_arguments(made)
    switch(made, "-ram", "--preload_RAM", help="load the arrays into memory instead of reading them as needed")
    made.add_argument("-w", "--wandb_project", metavar="PROJECT",
                      help="project of W&B, experiment of MLflow (default: the study's, FVV)")
    made.add_argument("-e", "--epochs", type=int, help="most epochs (default: the study's)")
    made.add_argument("-b", "--batch-size", type=int, help="windows per batch (default: the study's)")
    made.add_argument("-lr", "--learning-rate", type=float, help="(default: the study's)")
    made.add_argument("--weight-decay", type=float, help="L2 penalty (default: the study's)")
    made.add_argument("--optimizer", metavar="NAME", help="sgd, adam, adamw or rmsprop (default: the study's)")
    made.add_argument("--scale", type=float, help="resize what the network sees, on the device (default: the study's, 1)")
    made.add_argument("--classes", type=int, metavar="N",
                      help="check that the network has N output classes (with background, if classes are exclusive)")
    made.add_argument("--bilinear", action=argparse.BooleanOptionalAction, default=None,
                      help="unet: upsample by interpolation (default: the study's, off)")
    made.add_argument("--load", metavar="FILE",
                      help="begin with these weights: a state dict or a checkpoint (default: the study's network.weights)")
    made.add_argument("--amp", action=argparse.BooleanOptionalAction, default=None,
                      help="bf16 where the device has it (default: the study's, on)")
    made.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True,
                      help="go on with an interrupted fold and skip a finished one; --no-resume trains anew")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    tracker_argument(made, "the study's")
    made.add_argument(PART_OF_2B, action="store_true", help=argparse.SUPPRESS)  # 2b says the last word


PART_OF_2B = "--part-of-2b"


def run_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("-n", "--name", help="name of the run (default: the study's, FVV)")


def tracker_argument(made: argparse.ArgumentParser, default: str) -> None:
    made.add_argument("--tracker", metavar="LIST", help="wandb, tensorboard, mlflow, with commas between, or none "
                                                        f"(default: {default})")


def chosen_trackers(args: argparse.Namespace) -> list[str] | None:
    """Of `--tracker`; None if it is not given. Raises InputError for one that is not known."""
    from lib.tracking import check_trackers
    names = None if args.tracker is None else [name.strip() for name in args.tracker.split(",")]
    check_trackers(names or ())
    return names


def training_overrides(args: argparse.Namespace) -> list[str]:
    """The training arguments that were given, as `--set` overrides: one way in for every setting."""
    keys = {"wandb_project": "tracking.project", "epochs": "training.epochs", "batch_size": "training.batch_size",
            "learning_rate": "training.learning_rate", "weight_decay": "training.weight_decay",
            "optimizer": "training.optimizer", "amp": "training.amp", "scale": "window.scale", "bilinear": "network.bilinear",
            "load": "network.weights"}
    given = [f"{key}={json.dumps(getattr(args, name))}" for name, key in keys.items() if getattr(args, name) is not None]
    if args.tracker is not None:
        given.append(f"tracking.trackers={json.dumps(chosen_trackers(args))}")
    return given


def check_classes(study: Study, classes: int | None) -> None:
    """Raise InputError if the study's network does not have the number of output classes that the user expects."""
    from lib.tasks import make_task
    outputs = make_task(study).outputs
    if classes not in (None, outputs):
        named = ", ".join([*(["background"] if study.data.encoding == "exclusive" else []), *study.data.classes])
        raise InputError(f"--classes {classes}: the prepared data has {outputs} ({named}); the classes are chosen when the "
                         "data is prepared: change data.classes in the study and run script 1 again")


MODEL_SECTIONS = ("window", "task", "network", "training", "augmentation")


def refuse_model_overrides(overrides: list[str]) -> None:
    """For scripts that take these sections from the trained models: a `--set` on them would do nothing."""
    for override in overrides:
        if override.split("=")[0].split(".")[0] in MODEL_SECTIONS:
            raise InputError(f"--set {override}: this is fixed in the trained models; give it to the scripts that "
                             "prepare and train")


def refuse_arguments(args: argparse.Namespace, alone: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Raises InputError for arguments that would do nothing. alone: argument -> why others do nothing beside it, and which."""
    for name, (why, others) in alone.items():
        given = [other for other in others if getattr(args, other) is not None]
        if getattr(args, name) is not None and given:
            raise InputError(f"--{name} {why}: leave {', '.join(map(flag, given))} out")


def flag(name: str) -> str:
    """As one types it."""
    return "-n" if name == "name" else f"--{name.replace('_', '-')}"


def command(script: str, space: Workspace, name: str | None = "", *more: str) -> str:
    """The command line of a script for this study, workspace and run."""
    return " ".join(["python", script, space.arguments, *(["-n", name] if name else []), *more])


def say(done: str, where: object, then: str) -> None:
    """The three lines that every script ends with: what was done, where it is, and the next command."""
    print(f"done: {done}\nsee: {where}\nnext: {then}")


def open_study(args: argparse.Namespace, extra: list[str] = ()) -> tuple[Study, Workspace, str]:
    """The study with its overrides, its workspace, and the name of the run. Raises InputError."""
    study = load_study(args.study, [*args.overrides, *extra])
    name = getattr(args, "name", None) or study.run
    if name != Path(name).name or name.startswith((".", "compare-")) or name.endswith(".partial"):
        raise InputError(f"-n {name!r}: the name of a run is a folder's name, without /, that does not start with a dot or "
                         "compare-, nor end in .partial")
    from lib.tracking import check_trackers
    check_trackers(study.tracking.trackers)  # a misspelt one should not wait for script 2
    return study, Workspace(args.workspace or Path("workspace") / study.name, place_arguments(args)), name


def place_arguments(args: argparse.Namespace) -> str:
    """`-s STUDY -o WORKSPACE` as the next command needs them."""
    given = ["-s", args.study, *(["-o", str(args.workspace)] if args.workspace else [])]
    return shlex.join(given)


def same_arguments(args: argparse.Namespace) -> list[str]:
    """The arguments of 2b as 2a takes them, for its children."""
    command = ["-s", args.study, "--device", args.device, "--resume" if args.resume else "--no-resume", PART_OF_2B]
    for flag, value in (("-o", args.workspace), ("-n", args.name)):
        command += [flag, str(value)] if value is not None else []
    if args.preload_RAM:
        command.append("-ram")
    for override in [*args.overrides, *training_overrides(args)]:
        command += ["--set", override]
    return command


def folds_from(text: str | None, known: list[int]) -> list[int]:
    """`0,2,5` -> [0, 2, 5]; all folds if not given. Raises InputError."""
    if text is None:
        return known
    try:
        chosen = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise InputError(f"--folds {text!r}: expected fold numbers separated by commas, such as 0,2") from None
    unknown = [fold for fold in chosen if fold not in known]
    if unknown:
        raise InputError(f"--folds {text}: there is no fold {unknown[0]}; the prepared data has folds {known[0]} to {known[-1]}")
    return chosen
