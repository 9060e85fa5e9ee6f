"""`make bench`: every claim about speed or quality, beside a peer or a limit measured in the same run.

Each module here has a `TOPIC` and a function `rows()` that returns dictionaries {claim, ours, peer, peer_name, ratio,
goal, held, unit}.  The tables are printed, and written to build/benchmarks.json.
"""

import importlib
import json
import pkgutil
import sys
from pathlib import Path


def main(only: str | None) -> int:
    """Exit code 0 if every goal held, 1 if one did not, 2 for a topic that is not there."""
    here = Path(__file__).parent
    modules = [
        importlib.import_module(f"tests.benchmarks.{found.name}")
        for found in pkgutil.iter_modules([str(here)])
        if found.name != "__main__"
    ]
    chosen = [module for module in modules if hasattr(module, "TOPIC") and only in (None, module.TOPIC)]
    if not chosen:
        print(
            f"no benchmark of {only!r}; there are {', '.join(sorted({m.TOPIC for m in modules if hasattr(m, 'TOPIC')}))}"
        )
        return 2
    rows: list[dict[str, object]] = []
    for module in chosen:
        print(f"\n{module.TOPIC}: {(module.__doc__ or '').strip().splitlines()[0]}", flush=True)
        for row in module.rows():
            rows.append(row)
            print(_line(row), flush=True)
    report = Path("build") / "benchmarks.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\nwritten to {report}")
    return 0 if all(row["held"] in (True, None) for row in rows) else 1


def _line(row: dict[str, object]) -> str:
    ours, peer, ratio = (_figure(row.get(name)) for name in ("ours", "peer", "ratio"))
    mark = {True: "held", False: "MISSED", None: ""}[row.get("held")]  # type: ignore[index]
    against = f" v {peer} ({row.get('peer_name')})" if row.get("peer") is not None else ""
    goal = f", goal {row.get('goal')}" if row.get("goal") is not None else ""
    return f"  {row['claim']}: {ours} {row.get('unit', '')}{against}; ratio {ratio}{goal} {mark}"


def _figure(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else None))
