"""lib.cluster: retries, order, prefixes, GPUs, shared cores, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib.cluster import Job, Outcome, explain, run_jobs

ROOT = Path(__file__).resolve().parents[1]


def job(name: str, code: str, *arguments) -> Job:
    return Job(name, [sys.executable, "-S", "-c", code, *map(str, arguments)])


def test_success_streams_to_our_terminal(capfd):
    outcomes = run_jobs([job("a", "import sys; print('out'); print('err', file=sys.stderr)")])
    [outcome] = outcomes
    assert (outcome.name, outcome.returncode, outcome.attempts, outcome.reason) == ("a", 0, 1, "finished")
    assert outcome.ok and 0 < outcome.seconds < 10
    assert capfd.readouterr() == ("out\n", "err\n")


def test_no_jobs_and_wrong_arguments():
    assert run_jobs([]) == []
    for arguments in (dict(at_once=0), dict(retries=-1)):
        with pytest.raises(ValueError):
            run_jobs([job("a", "")], **arguments)
    with pytest.raises(ValueError, match="two jobs"):
        run_jobs([job("a", ""), job("a", "")])


FAILS_FIRST = """
import pathlib, sys
marker = pathlib.Path(sys.argv[1])
if not marker.exists():
    marker.touch()
    sys.exit(3)
"""


def test_crashed_job_is_tried_again(tmp_path, capfd):
    outcomes = run_jobs([job("fold0", FAILS_FIRST, tmp_path / "marker")])
    assert (outcomes[0].returncode, outcomes[0].attempts) == (0, 2)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "fold0 ended with exit code 3" in lines[0] and "attempt 2 of 2" in lines[0]


def test_retries_are_counted_and_no_failure_hides_another_job(capfd):
    outcomes = run_jobs([job("bad", "raise SystemExit(1)"), job("good", "")], retries=2)
    assert [(o.returncode, o.attempts) for o in outcomes] == [(1, 3), (0, 1)]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3 and "given up (attempt 3 of 3)" in lines[2]


def test_bad_input_is_not_tried_again(capfd):
    outcomes = run_jobs([job("fold1", "raise SystemExit(2)")], retries=5)
    assert (outcomes[0].returncode, outcomes[0].attempts) == (2, 1)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "bad input, not tried again" in lines[0]


def test_killed_by_signal_is_named(capfd):
    outcomes = run_jobs([job("fold2", "import os; os.kill(os.getpid(), 9)")], retries=0)
    assert outcomes[0].returncode == -signal.SIGKILL
    error = capfd.readouterr().err
    assert "fold2 was killed by SIGKILL" in error and "memory" in error
    assert explain(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert Outcome("a", -signal.SIGKILL, 1, 0.0).reason.startswith("was killed by SIGKILL (")


def test_program_that_does_not_exist(capfd):
    outcomes = run_jobs([Job("lost", ["/no/such/program"])], retries=0)
    assert outcomes[0].returncode == 127 and not outcomes[0].ok
    assert "lost could not be started" in capfd.readouterr().err


def test_several_at_once_keep_their_order_and_prefix_lines(tmp_path, capfd):
    slow = "import sys, time; time.sleep(float(sys.argv[1])); sys.stdout.write('1%\\r50%\\r100%\\nend')"
    fast = "import sys; print('first'); print('oops', file=sys.stderr)"
    outcomes = run_jobs([job("slow", slow, 1.0), job("slower", slow, 1.2), job("fast", fast)], at_once=3,
                        log_folder=tmp_path)
    assert [o.name for o in outcomes] == ["slow", "slower", "fast"] and all(o.ok for o in outcomes)
    out, err = capfd.readouterr()
    assert out.splitlines()[0] == "[fast] first" and err == "[fast] oops\n"
    assert sorted(out.splitlines()[1:]) == ["[slow] 100%", "[slow] end", "[slower] 100%", "[slower] end"]
    assert (tmp_path / "slow.log").read_text() == "100%\nend\n"
    assert sorted((tmp_path / "fast.log").read_text().split()) == ["first", "oops"]


SHOW = "import os; print(os.environ.get({!r}))"
HOLD_GPU = """
import os, pathlib, sys, time
held = pathlib.Path(sys.argv[1], os.environ["CUDA_VISIBLE_DEVICES"])
held.touch(exist_ok=False)
time.sleep(0.1)
held.unlink()
print(held.name)
"""


def test_each_running_job_has_its_own_gpu(tmp_path, capfd):
    jobs = [job(str(i), HOLD_GPU, tmp_path) for i in range(6)]
    outcomes = run_jobs(jobs, at_once=8, gpus=["5", "7"], retries=0)
    assert all(outcome.ok for outcome in outcomes)
    assert {line.split()[-1] for line in capfd.readouterr().out.splitlines()} == {"5", "7"}
    run_jobs([job("only", SHOW.format("CUDA_VISIBLE_DEVICES"))], gpus=["3", "4"])
    assert capfd.readouterr().out == "3\n"


def test_cores_are_shared_unless_the_environment_says(capfd, monkeypatch):
    code = SHOW.format("OMP_NUM_THREADS")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("lib.cluster._cores", lambda: 9)
    run_jobs([job("a", code), job("b", code)], at_once=2)
    assert sorted(capfd.readouterr().out.splitlines()) == ["[a] 4", "[b] 4"]
    run_jobs([job("a", code)], at_once=1)
    assert capfd.readouterr().out == "None\n"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run_jobs([job("a", code), job("b", code)], at_once=2)
    assert sorted(capfd.readouterr().out.splitlines()) == ["[a] 3", "[b] 3"]


STOPPED = '''
import signal, sys, lib.cluster as cluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background of a shell ignores it
child = """
import signal, subprocess, sys, time
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
time.sleep(60)
"""
cluster.GRACE_S = 1.0
cluster.run_jobs([cluster.Job(name, [sys.executable, "-c", child, name]) for name in sys.argv[1:]], at_once=2)
'''


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("names", [["a"], ["a", "deaf"]])
def test_stop_leaves_nothing_behind(number, names):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", STOPPED, *names], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, env=environment)
    sleepers = [int(parent.stdout.readline().split()[-1]) for _ in names]
    assert all(running(pid) for pid in sleepers)
    parent.send_signal(number)
    code = parent.wait(timeout=10)
    assert code == (128 + number if number == signal.SIGTERM else -signal.SIGINT)
    assert not any(running(pid) for pid in sleepers)
    parent.stdout.close()
