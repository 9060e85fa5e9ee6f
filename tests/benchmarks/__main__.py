"""`make bench`: every claim about speed or quality, beside a peer or a limit measured in the same run.

Each module here has a `TOPIC` and a function `rows()` that returns dictionaries {claim, ours, peer, peer_name, ratio,
goal, held, unit}, and may say in `MINUTES` how long it may take (30 unless said).  Each runs in a process of its own,
so that no benchmark bears the memory of another, and one that fails or takes too long takes no other with it.

The rows are printed as they come, with a summary at the end, and written to build/benchmarks.json.  A row that is not
`held` is a miss; one with a goal and no verdict was skipped, and says why in `peer_name`.  `ONLY` picks a topic or a
module.  `SIZE=small` runs everything small, to see that it runs: its figures mean nothing, and no miss counts.
"""

import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.sizes import SMALL

MINUTES = 30
ROW = "benchmark-row "  # begins a line of a benchmark's process that is a row; other lines are passed on

Row = dict[str, Any]


def main(only: str | None) -> int:
    """Exit code 0 if every goal held, 1 if one did not or a benchmark broke, 2 for a topic that is not there."""
    modules = {
        found.name: importlib.import_module(f"tests.benchmarks.{found.name}")
        for found in pkgutil.iter_modules([str(Path(__file__).parent)])
        if found.name != "__main__"
    }
    every = {name: module for name, module in modules.items() if hasattr(module, "TOPIC")}
    chosen = {name: module for name, module in every.items() if only in (None, module.TOPIC, name)}
    if not chosen:
        topics = sorted({module.TOPIC for module in every.values()})
        print(f"no benchmark of {only!r}; there are {', '.join(topics)}; and each alone: {', '.join(every)}")
        return 2
    rows: list[Row] = []
    broken: list[str] = []
    for name, module in chosen.items():
        minutes = getattr(module, "MINUTES", MINUTES)
        words = (module.__doc__ or "").strip().splitlines()[0]
        print(f"\n{module.TOPIC}/{name} (at most {minutes} min): {words}", flush=True)
        began = time.monotonic()
        problem = measured(name, rows, seconds=60 * minutes)
        print(f"  {time.monotonic() - began:,.0f} s{f'; BROKE: {problem}' if problem else ''}", flush=True)
        if problem:
            broken.append(f"{name}: {problem}")
    report = Path("build") / ("benchmarks-small.json" if SMALL else "benchmarks.json")
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(rows, indent=1) + "\n")
    missed = [row for row in rows if row["held"] is False]
    skipped = [row for row in rows if row["held"] is None and row.get("peer") is None and row.get("goal") is not None]
    _summary(rows, missed, skipped, broken)
    print(f"written to {report}")
    return 1 if broken or (missed and not SMALL) else 0


def measured(name: str, rows: list[Row], *, seconds: float) -> str:
    """Run a benchmark in a process of its own, printing and adding its rows as they come; what went wrong, or ''."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks", "--run", name],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    late = threading.Event()

    def stop() -> None:
        late.set()
        os.killpg(process.pid, signal.SIGKILL)  # with the processes it has started

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith(ROW):
                print(line, end="", flush=True)
                continue
            row = {"benchmark": name} | json.loads(line.removeprefix(ROW))
            rows.append(row)
            print(f"  {_line(row)}", flush=True)
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if late.is_set():
        return f"not done after {seconds / 60:g} minutes"
    return f"ended with exit code {code}, see above" if code else ""


def run(name: str) -> None:
    """One benchmark, in this process: a line for each row."""
    made: Iterator[Row] = importlib.import_module(f"tests.benchmarks.{name}").rows()
    for row in made:
        print(ROW + json.dumps(row), flush=True)


def _summary(rows: list[Row], missed: list[Row], skipped: list[Row], broken: list[str]) -> None:
    held = sum(row["held"] is True for row in rows)
    print(
        f"\n{'SMALL SIZES, whose figures mean nothing: ' if SMALL else ''}{held} goals held, {len(missed)} missed, "
        f"{len(skipped)} skipped, {len(broken)} benchmarks broke; {len(rows) - held - len(missed) - len(skipped)} rows "
        "have no goal"
    )
    for word, found in (("missed", missed), ("skipped", skipped)):
        for row in found:
            why = f": {row['peer_name']}" if word == "skipped" else ""
            print(f"  {word:8} {row['benchmark']}: {_line(row)}{why}")
    for problem in broken:
        print(f"  broke    {problem}")


def _line(row: Row) -> str:
    ours, peer, ratio = (_figure(row.get(name)) for name in ("ours", "peer", "ratio"))
    verdict = {True: " held", False: " MISSED", None: ""}[row["held"]]
    against = f" v {peer} ({row.get('peer_name')}), ratio {ratio}" if row.get("peer") is not None else ""
    goal = f", goal {_figure(row.get('goal'))}" if row.get("goal") is not None else ""
    unit = f" {row['unit']}" if row.get("unit") else ""
    return f"{row['claim']}: {ours}{unit}{against}{goal}{verdict}"


def _figure(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else None))
