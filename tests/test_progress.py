"""Bars on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from lib import progress

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock is 25 s later."""
    ticks = itertools.count(0, 25)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))


def test_where_nobody_watches_a_line_a_minute(clock, capsys):
    """Looks at 0 (the start), 25, 50, 75, ...: more than a minute after the last line for the 3rd item, then the 6th."""
    assert list(progress.bar(range(8), 8, lambda: "fold 1", lambda: "loss 0.5", "case")) == list(range(8))
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines() == [
        "fold 1: 2 of 8, 0.03 case/s, 3:45 left, loss 0.5",  # 2 items in 75 s
        "fold 1: 5 of 8, 0.03 case/s, 1:30 left, loss 0.5"]  # 5 in 150 s


def test_quick_steps_are_silent(capsys):
    assert list(progress.bar(iter("abc"), 3, "x")) == list("abc")
    said = capsys.readouterr()
    assert said.out == said.err == ""


@pytest.mark.parametrize("seconds, text", [(0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (245, "4:05"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert progress.clock(seconds) == text


def test_a_terminal_sees_rate_remaining_time_and_status():
    """A real terminal (pty) and a real process."""
    program = ("import time\nfrom lib.progress import bar\nseen = []\n"
               "for item in bar(range(40), 40, 'epoch 3/9', lambda: f'loss {1 / (1 + len(seen)):.4f}, best dice/all 0.8123', 'batch'):\n"
               "    time.sleep(0.02)\n    seen.append(item)\n")
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))  # a new one has no columns
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=child, stdout=subprocess.DEVNULL) as run:
        os.close(child)
        text = b""
        while True:
            try:
                part = os.read(parent, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not part:
                break
            text += part
    os.close(parent)
    assert run.returncode == 0
    shown = [line for line in text.decode().split("\r") if "/40" in line]
    assert any(re.search(r"epoch 3/9: +\d+%\|.*/40 \[.*<.*batch/s, loss 0\.\d{4}, best dice/all 0\.8123\]", line) for line in shown), shown
