"""Frames per second of a fold's ONNX file in ONNX Runtime, one case at a time, decoding included.

    python benchmarks/inference_speed.py -s fetal_anatomy -o demo/fetal_anatomy/workspace --frames 500

Reads the prepared frames of the fold's test cases in turn, as script 4 does with a batch of one.
"""

from __future__ import annotations

import sys
import time
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.commands import main, open_study, parser, refuse_model_overrides, run_arguments  # noqa: E402
from lib.data.batches import gather, window_index  # noqa: E402
from lib.data.store import open_prepared  # noqa: E402
from lib.ensemble import open_models  # noqa: E402

WARM_UP = 20


def measure() -> None:
    arguments = parser(__doc__)
    run_arguments(arguments)
    arguments.add_argument("--frames", type=int, default=500, help="how many are timed")
    arguments.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args = arguments.parse_args()
    refuse_model_overrides(args.overrides)
    study, space, name = open_study(args)
    prepared, study = open_prepared(space, study, args.overrides)
    fold, member = next(iter(open_models(prepared, study, space, name, None, args.device).items()))
    window = member.model.study.window
    series = [(case, prepared.samples_of([case])) for case in prepared.cases_of(fold, "test")]
    single = cycle([(case, samples.take(slice(row, row + 1))) for case, samples in series for row in range(len(samples))])

    def step(case, sample) -> None:
        member.task.decode(member.model.run(gather(prepared.frames, window_index(sample, window))), case)

    for case, sample in islice(single, WARM_UP):
        step(case, sample)
    started = time.perf_counter()
    for case, sample in islice(single, args.frames):
        step(case, sample)
    seconds = time.perf_counter() - started
    print(f"{args.frames} frames of {study.data.size[0]} x {study.data.size[1]}, batch 1, {study.network['name']} on "
          f"{member.model.provider}: {args.frames / seconds:.1f} frames/s, {1000 * seconds / args.frames:.1f} ms each")


main(measure)
