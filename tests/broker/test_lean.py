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


def test_pandas_is_not_loaded_for_an_array_and_is_there_for_who_asks() -> None:
    done = subprocess.run([sys.executable, "-c", TRIED], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "1.5"]
