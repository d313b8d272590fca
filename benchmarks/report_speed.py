"""Seconds and megabytes of report.html for so many cases, built by script 4's own functions.

    python benchmarks/report_speed.py -s lumbar_spine -o demo/lumbar_spine/workspace --cases 500

Takes a workspace with ONNX files, predicts the test cases of its first fold, and goes through them again and again under new
names until there are enough cases. What is drawn case by case during inference (the layers) and the figures that script 4 draws
anyway are timed apart from the page.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.commands import main, open_study, parser, refuse_model_overrides, run_arguments  # noqa: E402
from lib.data.store import open_prepared  # noqa: E402
from lib.ensemble import open_models, provenance  # noqa: E402
from lib.prediction import BATCH, predict_cases  # noqa: E402
from lib.reporting.report import write_report  # noqa: E402
from lib.reporting.report.cases import picture_key  # noqa: E402
from lib.reporting.report.facts import Source  # noqa: E402
from lib.reporting.report.layers import PictureBook, draw_layers  # noqa: E402
from lib.reporting.plots import draw_plots  # noqa: E402
from lib.reporting.results import draw_results  # noqa: E402
from lib.reporting.style import collecting  # noqa: E402
from lib.results import tidy, write_summary  # noqa: E402

KNOWN = 12  # cases that are predicted, and shown again and again


def measure() -> None:
    arguments = parser(__doc__)
    run_arguments(arguments)
    arguments.add_argument("--cases", type=int, default=500, help="how many the report shows")
    arguments.add_argument("--keep", type=Path, help="a folder for the results that are made; default: none are kept")
    args = arguments.parse_args()
    refuse_model_overrides(args.overrides)
    study, space, name = open_study(args)
    prepared, study = open_prepared(space, study, args.overrides)
    members = open_models(prepared, study, space, name, None, "cpu")
    fold, member = next(iter(members.items()))
    task, source = member.task, Source(prepared, space, name, {k: m.model.meta for k, m in members.items()}, space.onnx(name))
    series = [(case, prepared.samples_of([case])) for case in prepared.cases_of(fold, "test")[:KNOWN]]
    known = [(case, task.decode(raw, case)) for case, raw in
             predict_cases(member.model.run, prepared.frames, series, member.model.study.window, BATCH)]
    with tempfile.TemporaryDirectory() as place:
        folder = args.keep or Path(place) / "results"
        with PictureBook(folder / "pictures.spool") as book, collecting() as drawings:
            rows, sheet, evidence, seconds = [], [], [], 0.0
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for number, (case, prediction) in enumerate(islice(cycle(known), args.cases)):
                truth = prepared.truth(case)
                case = replace(case, case=f"{case.case}-{number}", patient=f"{case.patient}-{number}")
                rows += tidy({"study": study.name, "run": name, "fold": fold, "patient": case.patient, "case": case.case},
                             task.score(prediction, truth, case))
                sheet.append({"case": case.case, "patient": case.patient, "fold": fold})
                evidence.append({"fold": fold, "case": case.case, **task.evidence(prediction, truth, case)})
                started = time.perf_counter()
                book.add(picture_key(fold, case.case), *draw_layers(task, prepared.frames[case.frames], prediction, truth, case))
                seconds += time.perf_counter() - started
            rows += tidy({"study": study.name, "run": name, "fold": ""}, task.score_set(evidence))
            print(f"{args.cases} cases of {study.name}: layers {seconds:.1f} s ({1000 * seconds / args.cases:.0f} ms each), "
                  f"{book.bytes / 1e6:.1f} MB")
            started = time.perf_counter()
            draw_results(folder / "figures", rows, task.figures)
            draw_plots(folder / "figures", task.plots(evidence))
            print(f"{len(drawings)} figures: {time.perf_counter() - started:.1f} s")
            summary = write_summary(folder / "summary.csv", rows)
            manifest = {**provenance(prepared, members, {"study": study.name, "run": name}), "subset": "test"}
            started = time.perf_counter()
            path = write_report(folder, source, study, task, manifest, rows, sheet, summary, evidence, book, drawings)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            print(f"report.html: {time.perf_counter() - started:.1f} s, {path.stat().st_size / 1e6:.1f} MB"
                  f"{f' ({book.note})' if book.note else ''}; memory grew by {grown / 1024:.0f} MB in all")


main(measure)
