"""What each stage of a measurement took: seconds on the wall and of the processors, and peak memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage took: seconds on the wall and of the processors, and the highest memory of the process in it."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(slots=True)
class Stages:
    """The stages so far."""

    done: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside."""
        _forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.done.append(
            Stage(
                name=name,
                wall_s=round(time.perf_counter() - wall, 3),
                cpu_s=round(time.process_time() - cpu, 3),
                peak_mb=round(_peak_mb(), 1),
            )
        )


def _forget_peak() -> None:
    """Start the process's peak memory anew, where the kernel lets it; elsewhere a peak is that of all stages so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_mb() -> float:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
