"""Progress of long steps: bars on a terminal; elsewhere a plain line a minute."""

from __future__ import annotations

import sys
import time
from typing import Callable, Iterable, Iterator

LINE_EVERY_S = 60.0  # steps that are done sooner stay silent where nobody watches


def bar(items: Iterable, total: int, headline: str | Callable[[], str] = "", status: Callable[[], str] | None = None,
        unit: str = "it") -> Iterable:
    """`items`, with a bar showing rate and remaining time if the error stream is a terminal, else with a line a minute.

    headline: what is being done, asked once. status: how it goes so far, such as "loss 0.213"; asked at every item.
    unit: what is counted, such as "case".
    """
    text = headline() if callable(headline) else headline
    if not sys.stderr.isatty():
        return lines(items, total, text, status, unit)
    from tqdm import tqdm
    shown = tqdm(items, desc=text, total=total, leave=False, dynamic_ncols=True, unit=unit)
    return followed(shown, status) if status else shown


READING = "reading headers"  # what script 1 does first, and --predict


def followed(shown, status: Callable[[], str]) -> Iterator:
    """A tqdm bar that ends in its status."""
    for item in shown:
        shown.set_postfix_str(status(), refresh=False)  # of the items before this one
        yield item


def lines(items: Iterable, total: int, headline: str, status: Callable[[], str] | None, unit: str) -> Iterator:
    """`items`, with a line on stderr every LINE_EVERY_S."""
    started = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - said >= LINE_EVERY_S:
            said, rate = now, done / (now - started)
            more = f", {status()}" if status else ""
            print(f"{headline}: {done} of {total}, {rate:.2f} {unit}/s, {clock((total - done) / rate)} left{more}",
                  file=sys.stderr, flush=True)
        yield item


def clock(seconds: float) -> str:
    """Seconds as 4:05 or 1:02:03."""
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def no_progress(items: Iterable, total: int, headline: str | Callable[[], str] = "",
                status: Callable[[], str] | None = None, unit: str = "it") -> Iterable:
    return items


def print_line(line: str) -> None:
    """Print without tearing a bar that is on the screen."""
    from tqdm import tqdm
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
