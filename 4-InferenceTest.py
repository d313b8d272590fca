"""Test every fold's ONNX model on the patients it never saw, or predict new patients with all folds together.

    python 4-InferenceTest.py
    python 4-InferenceTest.py --tolerance 1.5
    python 4-InferenceTest.py --predict new_patients/
    python 4-InferenceTest.py --compare FVV wider
"""

import argparse
from pathlib import Path

from lib.commands import (chosen_trackers, command, main, open_study, parser, refuse_arguments, refuse_model_overrides,
                          run_arguments, say, tracker_argument)

# what script 4 may be asked for -> why other arguments do nothing there, and which
ALONE = {"compare": ("reads the results of two runs that were tested before",
                     ("predict", "load", "onnx_dir", "name", "tolerance", "heatmaps", "device", "tracker")),
         "predict": ("is of cases that were not prepared, and told to no tracker", ("split", "tracker")),
         "load": ("names the one model to use, which is told to no tracker", ("onnx_dir", "tracker"))}


def test() -> None:
    arguments = parser(__doc__)
    run_arguments(arguments)
    arguments.add_argument("--predict", type=Path, metavar="DIR", help="new data: all folds vote; scored where truth is present")
    arguments.add_argument("--load", type=Path, metavar="MODEL",
                           help="only this model: an ONNX file, or a checkpoint, which is converted first")
    arguments.add_argument("--split", choices=("test", "validation", "external"),
                           help="which cases: of each fold, or those of test_folders by all folds together (default: test, or "
                                "validation where there is no test folder; and external, if there are any)")
    arguments.add_argument("--tolerance", type=float, metavar="MM",
                           help="score too with this margin around the truth's boundary (default: the study's, none)")
    arguments.add_argument("--heatmaps", action=argparse.BooleanOptionalAction, default=None,
                           help="overlays, and image, truth and prediction side by side (default: the study's, on)")
    arguments.add_argument("--compare", nargs=2, metavar=("RUN_A", "RUN_B"),
                           help="two tested runs, paired by case: names of runs, or folders of results; nothing is computed anew")
    arguments.add_argument("--onnx-dir", type=Path, metavar="DIR", help="where the models are (default: <workspace>/onnx/<name>)")
    arguments.add_argument("--device", help="auto, cpu or cuda (default: auto)")
    tracker_argument(arguments, "those of training")
    args = arguments.parse_args()
    refuse_model_overrides(args.overrides)
    trackers = chosen_trackers(args)
    given = {"report.heatmaps": args.heatmaps, "report.tolerance_mm": args.tolerance}
    study, space, name = open_study(args, [f"{key}={value}" for key, value in given.items() if value is not None])
    refuse_arguments(args, ALONE)
    device = args.device or "auto"

    from lib.data.store import open_prepared
    prepared, study = open_prepared(space, study, args.overrides)
    from lib.progress import bar
    if args.compare:
        from lib.comparison import compare_runs
        told, run = compare_runs(prepared, study, space, *args.compare, args.split, bar)
        print(told.text)
        say(told.done, told.see, command("4-InferenceTest.py", space, run, "--predict", "NEW_PATIENTS"))
        return
    model, label = None, ""
    if args.load:
        from lib.conversion import loaded_model
        model, label = loaded_model(prepared, space, name, args.load)
    if args.predict:
        from lib.newdata import predict_folder
        told = predict_folder(prepared, study, space, name, args.predict, args.onnx_dir, device, bar, model, label)
    else:
        from lib.inference import test_folds
        told = test_folds(prepared, study, space, name, args.onnx_dir, device, bar, args.split, model, label, trackers)
    print(told.text)
    say(told.done, told.see, command("4-InferenceTest.py", space, args.name, "--predict", "NEW_PATIENTS"))


main(test)
