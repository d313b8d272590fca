"""--compare: two runs on disk, from results folders to tables and pictures, and what is refused."""

from __future__ import annotations

import csv
import json
import math
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from test_comparison import delong_by_definition

from lib.comparison import compare_runs, scores_of
from lib.evaluation.paired import NO_DIFFERENCE, holm
from lib.evidence import write_evidence
from lib.imaging.geometry import Geometry
from lib.progress import no_progress
from lib.results import COLUMNS as RESULTS, tidy
from lib.study import InputError, load_study, without_secrets
from lib.tasks import make_task
from lib.tasks.classification import Prediction as Loop
from lib.tasks.segmentation import Prediction as Masks
from lib.tested_run import label_of
from lib.workspace import Workspace, file_hash, write_json, write_table

NAN = float("nan")
STUDY, MASKS = "echo_quality", "flair_visibility"
PATIENTS = 24


def prepared_of(place: Path, fingerprint: str = "data-1") -> SimpleNamespace:
    """All that a comparison asks of the prepared data."""
    return SimpleNamespace(fingerprint=fingerprint, folder=place / "prepared")


def write_results(folder: Path, study, run: str, cases: list[tuple], **manifest) -> None:
    """A results folder as script 4 leaves it. cases: (fold, prediction, truth, case) of each."""
    task, rows, evidence = make_task(study), [], []
    for fold, prediction, truth, case in cases:
        cells = {"study": study.name, "run": run, "fold": fold, "patient": case.patient, "case": case.case}
        rows += tidy(cells, task.score(prediction, truth, case))
        evidence.append({"fold": fold, "case": case.case, **task.evidence(prediction, truth, case)})
    rows += tidy({"study": study.name, "run": run, "fold": ""}, task.score_set(evidence))
    write_table(folder / "results.csv", RESULTS, rows)
    write_evidence(folder / "evidence.npz", evidence)
    write_json(folder / "manifest.json", {
        "study": without_secrets(study.to_dict()), "run": run, "fingerprint": "data-1", "subset": "test", "loaded": "",
        "trained": without_secrets(study.to_dict()), "tolerance_mm": study.report.tolerance_mm,
        "finished": {"0": True, "1": True}, **manifest})
    seal(folder)


def seal(folder: Path) -> None:
    """Let the manifest know the files as they are now."""
    change(folder / "manifest.json", files={name: file_hash(folder / name) for name in ("results.csv", "evidence.npz")})


def loops(gain: float, seed: int, count: int = PATIENTS, per_patient: int = 1) -> list[tuple]:
    """Loops of a classifier that is right more often the greater its gain; the truth is the same for every seed."""
    random, cases = np.random.default_rng(seed), []
    for index in range(count * per_patient):
        truth = index // per_patient % 2
        good = 1 / (1 + math.exp(-(gain * (2 * truth - 1) + random.normal())))
        case = SimpleNamespace(case=f"loop {index:02d}", patient=f"p{index // per_patient:02d}")
        cases.append((index // per_patient % 2, Loop(np.array([1 - good, good]), 0.5), np.array([truth]), case))
    return cases


def strokes(shift: int, missed: tuple[int, ...] = ()) -> list[tuple]:
    """Masks of three classes that lie `shift` pixels off, or are missed. Patient p1 has no FLAIR-visible part."""
    geometry, cases = Geometry((1, 12, 12), (1.0, 1.0, 1.0)), []
    for index in range(12):
        truth = np.zeros((3, 1, 12, 12), bool)
        truth[0, 0, 1:11, 1:11] = truth[1, 0, 3:8, 3:6 + index % 3] = True
        truth[2, 0, 4:6, 4:6] = index not in (2, 3)
        masks = np.zeros_like(truth) if index in missed else np.roll(truth, shift * (index % 2), axis=-1)
        case = SimpleNamespace(case=f"scan {index:02d}", patient=f"p{index // 2}", geometry=geometry)
        cases.append((index // 2 % 2, Masks(masks.astype(np.float32), masks, (0.5,) * 3), truth, case))
    return cases


def table_of(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["class"], row["metric"]): row for row in csv.DictReader(file)}


def compare(place: Path, one="weak", other="strong", subset=None, study=STUDY, fingerprint="data-1"):
    return compare_runs(prepared_of(place, fingerprint), load_study(study), Workspace(place, f"-s {study}"), one, other, subset,
                        no_progress)[0]


@pytest.fixture
def two(tmp_path) -> Path:
    """A workspace with the results of two classifiers, the second of which was trained for longer."""
    for run, gain, seed, epochs in (("weak", 0.3, 1, 20), ("strong", 1.5, 2, 40)):
        study = load_study(STUDY, [f"training.epochs={epochs}"])
        write_results(tmp_path / "results" / run, study, run, loops(gain, seed))
    return tmp_path


def test_two_runs_of_a_classifier(two):
    told = compare(two)
    folder = two / "results" / "weak" / "compare-strong"
    assert Path(told.see) == folder and told.done == "weak and strong compared on 24 test cases"
    assert sorted(path.name for path in folder.iterdir()) == ["comparison.csv", "differences.csv", "figures", "manifest.json"]
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "difference_accuracy.png", "difference_brier.png", "difference_over_all_cases.png"}
    rows = table_of(folder / "comparison.csv")
    weak, strong = loops(0.3, 1), loops(1.5, 2)
    truth = np.array([int(one[2][0]) for one in weak])
    right = [np.array([one[1].predicted for one in side]) == truth for side in (weak, strong)]
    accuracy, auc = rows["all", "accuracy"], rows["all", "roc_auc"]
    assert float(accuracy["difference_b_minus_a"]) == pytest.approx(right[1].mean() - right[0].mean())
    discordant = (int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum()))
    assert float(accuracy["p"]) == pytest.approx(stats.binomtest(discordant[0], sum(discordant)).pvalue)
    scores = [[one[1].probabilities[1] for one in side] for side in (weak, strong)]
    difference, variance = delong_by_definition(*scores, truth == 1)
    assert auc["test"] == "DeLong" and float(auc["p"]) == pytest.approx(2 * stats.norm.sf(difference / math.sqrt(variance)))
    assert auc["level"] == "set" and auc["cases"] == "24" and float(auc["estimate_a"]) == pytest.approx(
        roc_auc_score(truth, scores[0]))
    assert rows["all", "kappa"]["test"] == "bootstrap" and ("all", "threshold") not in rows
    assert rows["good", "truth_probability"]["left_out"] == "12"  # of loops that are poor, in both runs
    assert (rows["good", "truth_probability"]["only_a"], rows["good", "truth_probability"]["only_b"]) == ("0", "0")
    lines = told.text.splitlines()
    assert lines[0] == "A is weak, B is strong: 24 test cases of 24 patients, judged by both"
    assert "trained differently (A -> B): training.epochs: 20 -> 40" in lines
    assert lines[-1] == "these are numbers of test patients: report them, do not choose by them"
    shown = next(line for line in lines if line.split()[:2] == ["all", "roc_auc"])
    assert f"{difference:+.3f}" in shown and shown.endswith(" 24") and max(map(len, lines)) <= 130
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["b"]["folder"] == "results/strong" and manifest["a"]["fingerprint"] == "data-1" and manifest["patients"] == 24
    assert str(two) not in (folder / "manifest.json").read_text()


def test_folds_own_values_stand_beside_those_that_rank_several_models_together(tmp_path):
    sides = []
    for run, seed, shift in (("weak", 1, 0.0), ("strong", 2, 0.4)):  # all of B's scores are larger in one fold
        cases = [(index // 2 % 2, one[1], *one[2:]) for index, one in enumerate(loops(1.0, seed))]
        cases = [(fold, Loop(np.array([1 - p, p]), 0.5), truth, case) for fold, said, truth, case in cases
                 for p in [said.probabilities[1] * (1 - shift) + shift * fold]]
        write_results(tmp_path / "results" / run, load_study(STUDY), run, cases)
        sides.append(cases)
    told = compare(tmp_path)
    rows = table_of(tmp_path / "results" / "weak" / "compare-strong" / "comparison.csv")
    means = []
    for cases in sides:
        folds = [[one for one in cases if one[0] == fold] for fold in (0, 1)]
        means.append(np.mean([roc_auc_score([one[2][0] for one in held], [one[1].probabilities[1] for one in held])
                              for held in folds]))
    row = rows["all", "roc_auc"]
    assert [float(row["fold_mean_a"]), float(row["fold_mean_b"])] == pytest.approx(means)
    assert float(row["estimate_b"]) < means[1] - 0.01  # what ranking both models together costs
    assert (f"roc_auc of all ranks scores of several models together; mean over folds: A {means[0]:.3f}, B {means[1]:.3f}"
            in told.text.splitlines())
    accuracy = rows["all", "accuracy"]  # folds of equal size
    assert float(accuracy["fold_mean_a"]) == pytest.approx(float(accuracy["estimate_a"]))


def test_differences_by_case_add_up(two):
    compare(two)
    folder = two / "results" / "weak" / "compare-strong"
    with (folder / "differences.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    brier = [cell for cell in cells if cell["metric"] == "brier"]
    assert len(brier) == 24 and brier[3]["case"] == "loop 03" and brier[3]["patient"] == "p03" and brier[3]["fold"] == "1"
    for cell in brier:
        assert float(cell["difference_b_minus_a"]) == pytest.approx(float(cell["b"]) - float(cell["a"]), abs=1e-9)
    row = table_of(folder / "comparison.csv")["all", "brier"]
    mean = np.mean([float(cell["difference_b_minus_a"]) for cell in brier])
    assert mean == pytest.approx(float(row["difference_b_minus_a"])) and mean < 0  # smaller is better, and stays so


def test_the_other_way_round_is_the_negative(two):
    compare(two), compare(two, "strong", "weak")
    there, back = (table_of(two / "results" / a / f"compare-{b}" / "comparison.csv")
                   for a, b in (("weak", "strong"), ("strong", "weak")))
    for key, row in there.items():
        other = back[key]
        assert (row["estimate_a"], row["test"]) == (other["estimate_b"], other["test"])
        for one, two_ in (("difference_b_minus_a",) * 2, ("ci_low", "ci_high"), ("ci_high", "ci_low")):
            assert float(row[one] or "nan") == pytest.approx(-float(other[two_] or "nan"), abs=1e-9, nan_ok=True)
        assert float(row["p"] or "nan") == pytest.approx(float(other["p"] or "nan"), nan_ok=True)


def test_same_results_same_bytes(two):
    folder = two / "results" / "weak" / "compare-strong"
    compare(two)
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    compare(two)
    assert before == {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_order_of_cases_does_not_matter(two):
    compare(two)
    before = (two / "results" / "weak" / "compare-strong" / "comparison.csv").read_text()
    study, mixed = load_study(STUDY), np.random.default_rng(0).permutation(PATIENTS)
    write_results(two / "results" / "strong", study, "strong", [loops(1.5, 2)[index] for index in mixed])
    compare(two)
    assert (two / "results" / "weak" / "compare-strong" / "comparison.csv").read_text() == before


def test_several_cases_of_a_patient_leave_delong_out(tmp_path):
    for run, gain, seed in (("weak", 0.3, 1), ("strong", 1.5, 2)):
        write_results(tmp_path / "results" / run, load_study(STUDY), run, loops(gain, seed, per_patient=2))
    compare(tmp_path)
    rows = table_of(tmp_path / "results" / "weak" / "compare-strong" / "comparison.csv")
    assert rows["all", "roc_auc"]["test"] == "bootstrap" and rows["all", "accuracy"]["patients"] == "24"
    assert rows["all", "accuracy"]["cases"] == "48"


def test_identical_runs_differ_in_nothing(two):
    shutil.copytree(two / "results" / "weak", two / "results" / "again")
    change(two / "results" / "again" / "manifest.json", run="again")
    told = compare(two, "weak", "again")
    rows = table_of(two / "results" / "weak" / "compare-again" / "comparison.csv")
    assert {row["test"] for row in rows.values()} == {NO_DIFFERENCE} and {row["p"] for row in rows.values()} == {""}
    assert {float(row[key]) for row in rows.values() for key in ("difference_b_minus_a", "ci_low", "ci_high")} == {0}
    assert "no difference" in told.text and "trained differently" not in told.text


def test_runs_of_other_folds_meet_where_both_were(two):
    study = load_study(STUDY)
    write_results(two / "results" / "half", study, "half", [one for one in loops(1.5, 2) if one[0] == 0],
                  finished={"0": False})
    told = compare(two, "weak", "half")
    assert "LEFT OUT: 12 cases that only A (weak) has judged" in told.text and "12 test cases of 12 patients" in told.text
    assert "UNFINISHED training behind the model of fold 0 of B (half)" in told.text
    write_results(two / "results" / "few", study, "few", loops(1.5, 2)[:6])
    told = compare(two, "weak", "few")
    assert "ONLY 6 patients" in told.text and "too few patients" in told.text
    write_results(two / "results" / "one", study, "one", loops(1.5, 2)[:1])
    assert "one patient" in compare(two, "weak", "one").text


def test_a_named_folder_and_results_apart(two, tmp_path):
    apart = two / "results" / "weak" / "load-fold0"
    shutil.copytree(two / "results" / "strong", apart)
    assert Path(compare(two, "strong", str(apart)).see) == two / "results" / "strong" / "compare-weak-load-fold0"
    far = tmp_path / "far" / "echo" / "results" / "weak"
    shutil.copytree(two / "results" / "strong", far)
    assert Path(compare(two, "weak", str(far)).see).name == "compare-echo-weak"
    assert label_of(Workspace(two), two / "results" / "weak" / "validation", "validation") == "weak"


def test_validation_of_several_folds_has_no_number_over_the_set(two):
    for run, gain, seed in (("weak", 0.3, 1), ("strong", 1.5, 2)):
        both = [(fold, *rest) for fold in (0, 1) for _, *rest in loops(gain, seed + fold)]
        write_results(two / "results" / run / "validation", load_study(STUDY), run, both, subset="validation")
    told = compare(two, subset="validation")
    rows = table_of(Path(told.see) / "comparison.csv")
    assert rows["all", "accuracy"]["cases"] == "48" and rows["all", "accuracy"]["patients"] == "24"
    assert ("all", "roc_auc") not in rows and "several folds" in told.text and "VALIDATION" in told.text.splitlines()[-1]
    assert Path(told.see).parent.name == "validation"


# --- masks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def masks(tmp_path) -> Path:
    study, place = load_study(MASKS), tmp_path / "masks"
    write_results(place / "results" / "weak", study, "weak", strokes(2, missed=(4,)))
    write_results(place / "results" / "strong", study, "strong", strokes(1))
    return place


def test_masks_are_compared_by_what_is_better_or_worse(masks):
    told = compare(masks, study=MASKS)
    rows = table_of(masks / "results" / "weak" / "compare-strong" / "comparison.csv")
    metrics = {metric for _, metric in rows}
    assert {"dice", "hd95_mm", "volume_ml_error", "volume_ml_abs_error", "visible_share_abs_error", "presence_roc_auc"} <= metrics
    assert not {"volume_ml", "present", "visible_share", "cases", "empty_truth_cases"} & metrics
    assert not [metric for metric in metrics if metric.endswith("_true") or "threshold" in metric]
    flair, distance = rows["flair_visible", "dice"], rows["stroke", "hd95_mm"]
    assert (flair["cases"], flair["left_out"], flair["patients"]) == ("10", "2", "5")  # p1 has none of it, in both runs
    assert (distance["cases"], distance["only_a"], distance["only_b"]) == ("11", "0", "1")  # case 4 was missed in A
    assert float(distance["difference_b_minus_a"]) < 0 < float(flair["difference_b_minus_a"])
    assert "hd95_mm of stroke: left out are cases with a value in A only (0) or in B only (1)" in told.text
    classes = [rows[name, "dice"] for name in ("brain", "stroke", "flair_visible")]
    assert [float(row["p_holm"]) for row in classes] == pytest.approx(holm([float(row["p"]) for row in classes]))
    assert rows["all", "dice"]["p_holm"] == rows["all", "dice"]["p"]
    presence = rows["flair_visible", "presence_roc_auc"]
    assert (presence["level"], presence["test"], presence["p"], presence["estimate_b"]) == ("set", NO_DIFFERENCE, "", "1")


def test_means_over_other_classes_are_not_compared(masks):
    """Case 4 was missed in A: its HD95 there is of no class. In case 5 of A the stroke alone is missed, as if by a model that
    skips what is hard: without it the mean over classes would look better."""
    study = load_study(MASKS)
    cases = strokes(2)
    fold, prediction, truth, case = cases[5]
    partly = prediction.masks.copy()
    partly[1:] = False
    cases[5] = (fold, Masks(partly.astype(np.float32), partly, (0.5,) * 3), truth, case)
    write_results(masks / "results" / "weak", study, "weak", cases)
    told = compare(masks, study=MASKS)
    folder = masks / "results" / "weak" / "compare-strong"
    whole, brain = (table_of(folder / "comparison.csv")[name, "hd95_mm"] for name in ("all", "brain"))
    assert (whole["cases"], brain["cases"]) == ("11", "12")
    assert "hd95_mm of all: left out are 1 cases in which it is a mean over other classes in A than in B" in told.text
    assert "dice of all: left out" not in told.text  # a missed class has Dice 0


def test_dice_by_hand(masks):
    """Patients 0 to 5 have scans 2i and 2i + 1, of which only the odd ones are shifted: 2 pixels in A, 1 in B. The brain is 10
    columns wide: Dice 0.8 and 0.9. Scan 4 of A is missed: Dice 0."""
    compare(masks, study=MASKS)
    row = table_of(masks / "results" / "weak" / "compare-strong" / "comparison.csv")["brain", "dice"]
    assert float(row["estimate_a"]) == pytest.approx((5 * 1 + 0 + 6 * 0.8) / 12)
    assert float(row["estimate_b"]) == pytest.approx((6 * 1 + 6 * 0.9) / 12)
    assert float(row["difference_b_minus_a"]) == pytest.approx(1.6 / 12)
    assert float(row["p"]) == pytest.approx(2 / 2**6) and row["test"] == "Wilcoxon signed-rank, exact"


def test_read_outs_count_by_their_error():
    places = [("0", "a"), ("0", "b")]
    values = {("x", "volume_ml"): {places[0]: 3.0, places[1]: 1.0}, ("x", "volume_ml_true"): {places[0]: 5.0, places[1]: NAN},
              ("x", "score"): {places[0]: 0.9}, ("x", "present"): {places[0]: 1.0}, ("x", "present_true"): {places[0]: 1.0},
              ("x", "tolerance_truth"): {places[0]: 1.0}, ("x", "dice"): {places[1]: 0.5}}
    found = {key: column.tolist() for key, column in scores_of(values, places).items()}
    assert found == {("x", "volume_ml_error"): pytest.approx([-2, NAN], nan_ok=True),
                     ("x", "volume_ml_abs_error"): pytest.approx([2, NAN], nan_ok=True),
                     ("x", "dice"): pytest.approx([NAN, 0.5], nan_ok=True)}


# --- what is refused -----------------------------------------------------------------------------------------------


def change(path: Path, **values) -> None:
    write_json(path, json.loads(path.read_text()) | values)


def test_what_is_refused(two):
    weak, strong = (two / "results" / run for run in ("weak", "strong"))
    manifest = json.loads((strong / "manifest.json").read_text())

    def refused(words: str, **keys) -> None:
        with pytest.raises(InputError, match=words):
            compare(two, **keys)
        assert not (weak / "compare-strong").exists()

    refused("the same results", other="weak")
    refused("the same results", other=str(weak))
    refused(r"neither a tested run nor.*tested runs here: strong, weak.*-n RUN", other="strnog")
    refused("not tested on external cases; --split test", subset="external")
    refused("stale: .*prepared anew", fingerprint="data-2")
    renamed = manifest["study"] | {"data": manifest["study"]["data"] | {"classes": ["poor", "better"]}}
    for values, words in (({"fingerprint": "data-0"}, "different prepared data.*data-1 and data-0; what differs: the raw data"),
                          ({"subset": "external"}, "differ in their subset"), ({"study": renamed}, "differ in their classes"),
                          ({"tolerance_mm": 1.5}, "tolerance in mm: 0.0 and 1.5")):
        change(strong / "manifest.json", **values)
        refused(words)
        write_json(strong / "manifest.json", manifest)
    write_results(strong, load_study(MASKS), "strong", strokes(1))
    refused("kind of task: classification and segmentation")


def test_what_is_refused_of_broken_and_older_results(two):
    strong = two / "results" / "strong"
    rows, manifest = (strong / "results.csv").read_text(), json.loads((strong / "manifest.json").read_text())

    def refused(words: str) -> None:
        with pytest.raises(InputError, match=words) as error:
            compare(two)
        assert "-n strong" in str(error.value) or "test" in str(error.value)
        (strong / "results.csv").write_text(rows)
        write_json(strong / "manifest.json", manifest)

    write_json(strong / "manifest.json", {key: value for key, value in manifest.items() if key != "study"})
    refused(r"older version \(no study in manifest.json\): run  python 4-InferenceTest.py -s echo_quality -n strong")
    (strong / "manifest.json").write_text("{")
    refused("not readable")
    change(strong / "manifest.json", study=manifest["study"] | {"novelty": 1})
    refused("another version.*novelty")
    change(strong / "manifest.json", run="weak")  # folders that were exchanged
    refused("holds the results of run 'weak', not 'strong'")
    (strong / "results.csv").write_text(rows.replace("accuracy,0", "accuracy,1"))
    refused("results.csv was changed after script 4 wrote it")
    (strong / "results.csv").write_text("\n".join(line for line in rows.splitlines() if "loop 07" not in line))
    seal(strong)
    refused("not of the same cases")
    (strong / "results.csv").write_text(rows.replace("accuracy,1", "accuracy,one"))
    seal(strong)
    refused("not as script 4 wrote it")
    evidence = (strong / "evidence.npz").read_bytes()
    (strong / "evidence.npz").write_bytes((two / "results" / "weak" / "evidence.npz").read_bytes())
    refused("evidence.npz was changed after script 4 wrote it")
    (strong / "evidence.npz").write_bytes(evidence[:200])
    seal(strong)
    refused("not readable")
    (strong / "evidence.npz").unlink()
    refused("older version.*evidence.npz")


def test_predictions_of_new_cases_and_other_subsets_are_refused(two):
    strong = two / "results" / "strong"
    manifest = json.loads((strong / "manifest.json").read_text())
    with pytest.raises(InputError, match="--split validation: .*weak holds results of test cases"):
        compare(two, str(two / "results" / "weak"), str(strong), subset="validation")
    del manifest["subset"]
    write_json(strong / "manifest.json", manifest | {"folder": "0123abcd"})
    with pytest.raises(InputError, match="holds predictions of new cases; only results of prepared cases are compared"):
        compare(two)


def test_a_killed_test_is_no_run(two):
    shutil.copytree(two / "results" / "strong", two / "results" / "strong.partial")
    with pytest.raises(InputError, match=r"tested runs here: strong, weak\."):
        compare(two, other="strong.partial")


def test_what_is_refused_of_cases(two, masks):
    study = load_study(STUDY)
    for cases, words in (([(1 - fold, *rest) for fold, *rest in loops(1.5, 2)], "another fold's model"),
                         ([(fold, p, t, SimpleNamespace(case=f"other {c.case}", patient=c.patient))
                           for fold, p, t, c in loops(1.5, 2)], "no case in common"),
                         ([(fold, p, t, SimpleNamespace(case=c.case, patient=f"x{c.patient}"))
                           for fold, p, t, c in loops(1.5, 2)], "of another patient")):
        write_results(two / "results" / "strong", study, "strong", cases)
        with pytest.raises(InputError, match=words):
            compare(two)
    changed = load_study(MASKS, ["measurements.visible_share={kind: share, part: flair_visible, whole: brain}"])
    write_results(masks / "results" / "strong", changed, "strong", strokes(1))
    write_results(masks / "results" / "weak", load_study(MASKS), "weak", strokes(2))
    with pytest.raises(InputError, match="visible_share_true of flair_visible is not the same.*different ways"):
        compare(masks, study=MASKS)


def test_a_failed_comparison_leaves_the_last_one(two, monkeypatch):
    compare(two)
    folder = two / "results" / "weak" / "compare-strong"
    before = (folder / "comparison.csv").read_bytes()
    monkeypatch.setattr("lib.comparison.draw_comparison", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare(two)
    assert (folder / "comparison.csv").read_bytes() == before and not folder.with_name("compare-strong.partial").exists()


def test_no_warning_reaches_the_user(two, masks):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(two)
        compare(masks, study=MASKS)
