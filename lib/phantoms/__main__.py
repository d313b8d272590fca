"""Make example data:  python -m lib.phantoms flair_visibility OUT_DIR --patients 24 --seed 0"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.phantoms import PHANTOMS, SIZES, phantom_maker


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line on stderr when the request can't be met."""
    parser = argparse.ArgumentParser(prog="python -m lib.phantoms", description=__doc__)
    parser.add_argument("study", help=f"one of: {', '.join(sorted(PHANTOMS))}")
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="where the patients go")
    parser.add_argument("--patients", type=int, default=24, help="how many (default: 24)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")
    parser.add_argument("--size", choices=SIZES, default="demo",
                        help="matrix sizes: small for tests, demo, full as on a scanner (default: demo)")
    args = parser.parse_args(arguments)
    try:
        made = phantom_maker(args.study)(args.folder, args.patients, args.seed, size=args.size)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    what = "patients" if made[0].is_dir() else "videos" if made[0].suffix == ".dcm" else "images"
    print(f"{len(made)} {what} of {args.study} in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
