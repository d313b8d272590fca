"""Prepare raw scans: check them, normalise and fit them into memory-mapped arrays, deal patients into folds.

    python 1-DataPreparation.py -k 5
"""

from pathlib import Path

from lib.commands import command, main, open_study, parser, say
from lib.study import load_study, require


def prepare_data() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("-i", "--input_data", type=Path, metavar="DIR", help="raw data (default: the study's, input_data/)")
    arguments.add_argument("-k", "--kfolds", type=int, help="number of folds (default: the study's, 10)")
    arguments.add_argument("-v", "--valid_proportion", type=float,
                           help="share of a fold's non-test patients that validates (default: the study's, 0.2)")
    arguments.add_argument("-j", "--jobs", type=int, default=-1, help="cases at once; -1 uses every core")
    arguments.add_argument("--skip-bad", action="store_true", help="leave bad cases out and list them in rejected.csv")
    args = arguments.parse_args()
    require(args.jobs != 0, "-j/--jobs", 0, "cases at once, or -1 for every core")
    folds = {"-k": ("k", args.kfolds), "-v": ("valid_proportion", args.valid_proportion)}
    given = {flag: f"data.folds.{key}={value}" for flag, (key, value) in folds.items() if value is not None}
    study, space, _ = open_study(args, [*given.values()])

    from lib.preparation import describe, prepare
    from lib.progress import bar
    outcome = prepare(study, load_study(args.study), space, args.input_data or Path(study.data.input), args.jobs,
                      args.skip_bad, bar, asked_for=[*given])
    notes, done = describe(outcome)
    print(*notes, sep="\n", end="\n" if notes else "")
    forgotten = [text for text in args.overrides if not text.startswith(("data.", "report."))]
    if forgotten:
        print(f"note: only data keys are kept; give --set {' --set '.join(forgotten)} to 2a or 2b as well")
    if study.report.figures and (outcome.built or not (space.prepared / "figures").is_dir()):
        from lib.reporting.dataset import draw_dataset
        print(f"figures: {draw_dataset(space.prepared, bar, study.report.pdf)}")
    say(done, space.prepared, command("2b-TrainingKFolds.py", space))


main(prepare_data)
