"""Train the network of one fold, and keep its best epoch on validation.

    python 2a-Training.py -k 0
"""

from lib.commands import (check_classes, command, main, open_study, parser, say, switch, training_arguments,
                          training_overrides)


def train() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("-k", "--kfold", type=int, default=0, metavar="FOLD", help="which fold")
    switch(arguments, "-d", "--debug", help="train a few batches with every check on; nothing is kept or tracked")
    training_arguments(arguments)
    args = arguments.parse_args()
    study, space, name = open_study(args, training_overrides(args))

    from lib.data.store import open_prepared
    prepared, study = open_prepared(space, study, args.overrides, args.preload_RAM)
    prepared.check_fold(args.kfold)
    check_classes(study, args.classes)
    from lib.progress import bar
    from lib.runs import train_fold
    best = train_fold(prepared, study, space, args.kfold, name, device=args.device, resume=args.resume,
                      debug=args.debug, progress=bar)
    if best is None:
        say("debug: all checks passed; nothing was kept", space.prepared,
            command("2b-TrainingKFolds.py", space, args.name))
        return
    done = f"fold {args.kfold}{' (finished before)' if best.already_finished else ''}: {best}"
    if args.part_of_2b:
        print(f"{done} -> {best.path}")
    else:
        say(done, best.path, command("3-ConvertModels.py", space, args.name))


main(train)
