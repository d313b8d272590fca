"""Test every fold's ONNX model on the patients it never saw, or predict new patients with all folds together.

    python 4-InferenceTest.py
    python 4-InferenceTest.py --predict new_patients/
"""

import argparse
from pathlib import Path

from lib.commands import main, open_study, parser, refuse_model_overrides, run_arguments


def test() -> None:
    arguments = parser(__doc__)
    run_arguments(arguments)
    arguments.add_argument("--predict", type=Path, metavar="DIR", help="new data: all folds vote; scored where truth is present")
    arguments.add_argument("--heatmaps", action=argparse.BooleanOptionalAction, default=None,
                           help="overlays as NIfTI and PNG (default: the study's, on)")
    arguments.add_argument("--onnx-dir", type=Path, metavar="DIR", help="where the models are (default: <workspace>/onnx/<name>)")
    arguments.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args = arguments.parse_args()
    refuse_model_overrides(args.overrides)
    study, space, name = open_study(args, [] if args.heatmaps is None else [f"report.heatmaps={args.heatmaps}"])

    from lib.data.store import open_prepared
    prepared, study = open_prepared(space, study, args.overrides)
    from lib.inference import predict_folder, test_folds
    from lib.progress import bar
    if args.predict:
        print(predict_folder(prepared, study, space, name, args.predict, args.onnx_dir, args.device, bar))
    else:
        print(test_folds(prepared, study, space, name, args.onnx_dir, args.device, bar))


main(test)
