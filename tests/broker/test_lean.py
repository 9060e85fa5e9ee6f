"""What a command does not wait for."""

import subprocess
import sys

TRIED = """
import sys
from broker.cli.lean import without_pandas
without_pandas()
import pyarrow as pa
table = pa.table({"n": pa.array([1.5, None])})
print("pandas" in sys.modules, table.to_pandas()["n"].sum())
"""
FREED = """
import resource
import numpy as np
from broker.cli.lean import with_memory_kept
def asked():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = asked()
with_memory_kept()
asked()
print(asked() * 4 < first)
"""


def test_pandas_is_not_loaded_for_an_array_and_is_there_for_who_asks() -> None:
    assert printed(TRIED) == ["False", "1.5"]


def test_memory_that_is_freed_is_used_again_and_not_asked_of_the_system() -> None:
    assert printed(FREED) == ["True"]


def printed(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.split()
