"""Convert the best checkpoint of every fold to ONNX, and prove that ONNX Runtime gives the same answers.

    python 3-ConvertModels.py
"""

from pathlib import Path

from lib.commands import (chosen_trackers, main, open_study, parser, refuse_model_overrides, run_arguments, say,
                          tracker_argument)


def convert() -> int:
    arguments = parser(__doc__)
    run_arguments(arguments)
    arguments.add_argument("--checkpoint", action="append", default=[], metavar="FOLD=PATH",
                           help="another checkpoint for a fold (default: each fold's best); may be given several times")
    arguments.add_argument("--onnx-dir", type=Path, metavar="DIR", help="where the models go (default: <workspace>/onnx/<name>)")
    tracker_argument(arguments, "those of training")
    args = arguments.parse_args()
    refuse_model_overrides(args.overrides)
    study, space, name = open_study(args)
    trackers = chosen_trackers(args)

    from lib.data.store import open_prepared
    prepared, _ = open_prepared(space, study, args.overrides)
    from lib.conversion import convert_folds, parse_checkpoints
    from lib.progress import bar
    rows, folder = convert_folds(prepared, space, name, parse_checkpoints(args.checkpoint), args.onnx_dir, bar)
    from lib.tracked import track_models
    track_models(space, study, name, {row["fold"]: folder / f"fold{row['fold']}.onnx" for row in rows}, trackers)
    failed = sorted({row["fold"] for row in rows if row["passed"] != "yes"})
    if failed:
        print(f"FAILED parity and removed: fold {', '.join(map(str, failed))} (see parity.csv)")
        return 1
    say(f"{len({row['fold'] for row in rows})} models, each with the answers of its network (parity.csv)", folder,
        "4-InferenceTest.py", space, args.name, *(["--onnx-dir", str(args.onnx_dir)] if args.onnx_dir else []))
    return 0


main(convert)
