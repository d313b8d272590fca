"""Progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Callable, Iterable


def bar(items: Iterable, total: int, headline: str | Callable[[], str] = "") -> Iterable:
    """`items`, with a bar showing rate and remaining time if the error stream is a terminal."""
    from tqdm import tqdm
    text = headline() if callable(headline) else headline
    return tqdm(items, desc=text, total=total, leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty())


def no_progress(items: Iterable, total: int, headline: str | Callable[[], str] = "") -> Iterable:
    return items


def print_line(line: str) -> None:
    """Print without tearing a bar that is on the screen."""
    from tqdm import tqdm
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
