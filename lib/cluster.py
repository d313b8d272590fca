"""Run independent jobs as local processes: one after another, several at once, one per GPU."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Iterator, Sequence, TextIO

BAD_INPUT = 2  # our scripts' exit code for bad input: the same command would fail the same way
NOT_STARTED = 127  # as a shell has it
POLL_S = 0.05
DRAIN_S = 2.0
GRACE_S = 10.0  # between the polite signal and SIGKILL


@dataclass(frozen=True)
class Job:
    """A command (program and arguments, no shell) with a unique name."""
    name: str
    command: list[str]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the last attempt's `returncode` (-n: killed by signal n), `seconds` over all."""
    name: str
    returncode: int
    attempts: int
    seconds: float

    @property
    def ok(self) -> bool:
        return self.returncode == 0

    @property
    def reason(self) -> str:
        """In words, for a table or a message."""
        return "finished" if self.ok else explain(self.returncode)


@dataclass
class _Attempt:
    """One running try of a job; `process` is None when it could not even be started."""
    job: Job
    gpu: str | None
    process: subprocess.Popen | None = None
    readers: list[threading.Thread] = field(default_factory=list)
    log: TextIO | None = None

    def returncode(self) -> int | None:
        """None while it runs."""
        return self.process.poll() if self.process else NOT_STARTED


def run_jobs(jobs: Sequence[Job], at_once: int = 1, retries: int = 1, log_folder: Path | None = None,
             gpus: Sequence[str] = ()) -> list[Outcome]:
    """Run every job, at most `at_once` at a time, and return the outcomes in the order of `jobs`.

    One at a time, a job writes straight to our terminal, so that its progress bars work; `log_folder` is not
    used then. Several at once, each line comes as `[name] line` on the same stream (of a progress bar only
    its last state), and is also appended to `<log_folder>/<name>.log`.

    With `gpus` each running job sees one of them (CUDA_VISIBLE_DEVICES), and no more run than there are. On
    CPU, jobs that run at once share the cores evenly through OMP_NUM_THREADS, unless the environment already
    sets it (the thread count can change the last bits of a result).

    A job that crashes is run again up to `retries` times, but not after exit code 2 (bad input); a line on
    stderr says so each time. A failed job stops no other: its outcome tells. Ctrl-C, SIGTERM and SIGHUP stop
    all jobs with their process groups, then end this call with KeyboardInterrupt or SystemExit. POSIX only.

    Raises ValueError for at_once < 1, retries < 0 or two jobs of one name.
    """
    jobs, gpus = list(jobs), list(gpus)
    if at_once < 1 or retries < 0:
        raise ValueError(f"at_once {at_once} and retries {retries}: expected at least 1 and 0")
    if len({job.name for job in jobs}) < len(jobs):
        raise ValueError(f"two jobs of one name in {[job.name for job in jobs]}")
    at_once = max(1, min(at_once, len(jobs), len(gpus) or at_once))
    waiting, running, free = deque(jobs), [], list(gpus)
    started, attempts, outcomes = {}, Counter(), {}
    with _caught_signals() as caught:
        try:
            while (waiting or running) and not caught:
                while waiting and len(running) < at_once:
                    job = waiting.popleft()
                    attempts[job.name] += 1
                    started.setdefault(job.name, time.monotonic())
                    attempt = _Attempt(job, free.pop(0) if gpus else None)
                    running.append(attempt)  # before it starts, so that nothing started is ever forgotten
                    _start(attempt, at_once, log_folder)
                for attempt in [one for one in running if one.returncode() is not None]:
                    running.remove(attempt)
                    _drain(attempt)
                    free += [attempt.gpu] if gpus else []
                    name = attempt.job.name
                    seconds = time.monotonic() - started[name]
                    outcome = Outcome(name, attempt.returncode(), attempts[name], seconds)
                    if _try_again(outcome, retries):
                        waiting.appendleft(attempt.job)
                    else:
                        outcomes[name] = outcome
                if running:
                    time.sleep(POLL_S)
        finally:
            _stop(running, caught)
    if caught:
        raise KeyboardInterrupt if caught[0] == signal.SIGINT else SystemExit(128 + caught[0])
    return [outcomes[job.name] for job in jobs]


def explain(returncode: int) -> str:
    """A non-zero return code in words; killed by a signal, with its name."""
    if returncode >= 0:
        return f"ended with exit code {returncode}{' (bad input: see its message above)' if returncode == BAD_INPUT else ''}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    memory = " (often the system is out of memory: a smaller batch or fewer jobs at once help)"
    return f"was killed by {name}{memory if returncode == -signal.SIGKILL else ''}"


def _try_again(outcome: Outcome, retries: int) -> bool:
    if outcome.ok:
        return False
    text = f"{outcome.name} {outcome.reason} after {outcome.seconds:.0f} s"
    if outcome.returncode == BAD_INPUT:
        _say(f"{text}: bad input, not tried again")
    elif outcome.attempts <= retries:
        _say(f"{text}: trying again (attempt {outcome.attempts + 1} of {retries + 1})")
        return True
    else:
        _say(f"{text}: given up (attempt {outcome.attempts} of {retries + 1})")
    return False


def _start(attempt: _Attempt, at_once: int, log_folder: Path | None) -> None:
    """Start a job in a process group of its own, so that it can be stopped together with what it started."""
    environment = dict(os.environ)
    environment.pop("WANDB_SERVICE", None)  # W&B would tie the job to this process's service
    if attempt.gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(attempt.gpu)
    elif at_once > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // at_once)))
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow the other jobs
    options = dict(stdin=subprocess.DEVNULL, process_group=0, env=environment)
    if at_once > 1:
        options |= dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        environment.setdefault("PYTHONUNBUFFERED", "1")  # or lines would come in bursts through the pipe
    sys.stdout.flush()
    try:
        attempt.process = process = subprocess.Popen(attempt.job.command, **options)
    except OSError as error:  # no such program, no memory for a process
        _say(f"{attempt.job.name} could not be started: {error}")
        return
    if at_once == 1:
        return
    if log_folder is not None:
        log_folder.mkdir(parents=True, exist_ok=True)
        attempt.log = (log_folder / f"{attempt.job.name}.log").open("a", encoding="utf-8")
    lock = threading.Lock()
    for pipe, stream in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        arguments = (pipe, stream, attempt.job.name, attempt.log, lock)
        attempt.readers.append(threading.Thread(target=_prefix, args=arguments, daemon=True))
        attempt.readers[-1].start()


def _prefix(pipe: BinaryIO, stream: TextIO, name: str, log: TextIO | None, lock: threading.Lock) -> None:
    """Copy whole lines until the pipe closes; of what a carriage return overwrites, only the last is kept."""
    for raw in pipe:
        line = raw.decode("utf-8", errors="replace").rstrip().rsplit("\r", 1)[-1]
        with lock:
            stream.write(f"[{name}] {line}\n")
            stream.flush()
            if log is not None:
                log.write(f"{line}\n")
                log.flush()


def _drain(attempt: _Attempt) -> None:
    """Let the last lines through; a grandchild that holds the pipe open is not waited for."""
    for reader in attempt.readers:
        reader.join(timeout=DRAIN_S)
    if attempt.log is not None and not any(reader.is_alive() for reader in attempt.readers):
        attempt.log.close()


def _stop(running: list[_Attempt], caught: list[int]) -> None:
    """End what still runs: SIGINT for a Ctrl-C, else SIGTERM; at last SIGKILL. A second signal hurries."""
    polite = signal.SIGINT if caught and caught[0] == signal.SIGINT else signal.SIGTERM
    for attempt in running:
        _signal_group(attempt, polite)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and len(caught) < 2 and any(a.returncode() is None for a in running):
        time.sleep(POLL_S)
    for attempt in running:
        _signal_group(attempt, signal.SIGKILL)  # also those that a job started and left behind
        if attempt.process:
            attempt.process.wait()
        _drain(attempt)


def _signal_group(attempt: _Attempt, number: int) -> None:
    if attempt.process:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone already
            os.killpg(attempt.process.pid, number)


@contextlib.contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """A list that fills with the signals that ask us to stop. Collected, not raised: no job slips through.

    Ignored ones stay ignored (nohup). Only the main thread may set handlers; elsewhere the list stays empty.
    """
    caught: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, lambda received, frame: caught.append(received))
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; empty without CUDA."""
    import torch
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] or [str(index) for index in range(count)]


def _cores() -> int:
    """Cores that this process may use (macOS tells only how many there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _say(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
