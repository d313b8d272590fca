"""Convert the best checkpoint of every fold to ONNX, and prove that ONNX Runtime gives the same answers.

    python 3-ConvertModels.py
"""

import shlex
from pathlib import Path

from lib.commands import (chosen_trackers, command, main, open_study, parser, refuse_model_overrides, run_arguments, say,
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
    from lib.run_tracking import track_models
    track_models(space, study, name, {row["fold"]: folder / f"fold{row['fold']}.onnx" for row in rows}, trackers)
    failed = sorted({row["fold"] for row in rows if row["passed"] != "yes"})
    if failed:
        say(f"FAILED parity and removed: fold {', '.join(map(str, failed))}", folder / "parity.csv",
            command("2b-TrainingKFolds.py", space, args.name, "--folds", ",".join(map(str, failed)), "--no-resume"))
        return 1
    elsewhere = ["--onnx-dir", shlex.quote(str(args.onnx_dir))] if args.onnx_dir else []
    count = len({row["fold"] for row in rows})
    say(f"{count} model{'s' * (count != 1)}, each with the answers of its network (parity.csv)", folder,
        command("4-InferenceTest.py", space, args.name, *elsewhere))
    return 0


main(convert)
