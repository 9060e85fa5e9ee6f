"""Every fault, F01 to F32: the harnesses, and each test that `FAULTS.md` names, with their points counted.

python -m tests.faults [--seed N] [--every N] [options of pytest]

What is random is drawn from the seed, which is printed.  `--every N` tries every Nth point of each enumeration alone.
"""

from __future__ import annotations

import sys

import pytest

from tests.faults.points import shown_by


def main(arguments: list[str]) -> int:
    """Run them all; the table of points is at the end.  0: every point was survived."""
    files = sorted({test.partition("::")[0] for _, tests in shown_by().values() for test in tests})
    named = [f"tests/{test}" for _, tests in shown_by().values() for test in tests if not test.startswith("faults/")]
    print(f"{len(files)} files; {' '.join(arguments)}", flush=True)
    return int(pytest.main(["tests/faults", "tests/foreign", *dict.fromkeys(named), "--long", *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
