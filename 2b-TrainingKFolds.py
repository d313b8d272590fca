"""Train every fold, one after another or several at once, and summarise the cross-validation.

    python 2b-TrainingKFolds.py
"""

import shlex
import sys

from lib.commands import (check_classes, command, folds_from, main, open_study, parser, same_arguments, say, training_arguments,
                          training_overrides)
from lib.study import InputError, require


def train_folds() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--folds", metavar="LIST", help="only these folds, such as 0,2,5 (default: all)")
    arguments.add_argument("-j", "--jobs", type=int, default=1, help="folds at once; with GPUs, at most one on each")
    training_arguments(arguments)
    args = arguments.parse_args()
    require(args.jobs >= 1, "-j/--jobs", args.jobs, "at least 1")
    if args.jobs > 1 and ":" in args.device:
        raise InputError(f"-j {args.jobs} --device {args.device}: several folds at once share the GPUs out themselves; "
                         "leave --device auto, or choose GPUs with CUDA_VISIBLE_DEVICES")
    study, space, name = open_study(args, training_overrides(args))

    from lib.data.store import open_prepared
    prepared, study = open_prepared(space, study, args.overrides)
    check_classes(study, args.classes)
    folds = folds_from(args.folds, sorted(prepared.splits))
    from lib.crossvalidation import cross_validate, table
    rows = cross_validate(prepared, study, space, name, folds, same_arguments(args), args.jobs, args.resume)
    print(table(rows))
    failed = [row["fold"] for row in rows if row["status"] != "finished"]
    if failed:
        logs = ", ".join(str(space.fold(name, fold) / "train.log") for fold in failed)
        say(f"FAILED: fold {', '.join(map(str, failed))}", logs, shlex.join(["python", *sys.argv]))  # trains only what failed
        return 1
    say(f"{len(rows)} of {len(prepared.splits)} folds trained", space.run(name),
        command("3-ConvertModels.py", space, args.name))
    return 0


main(train_folds)
