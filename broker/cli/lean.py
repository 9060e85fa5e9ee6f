"""What a command need not wait for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def without_pandas() -> None:
    """Keep pyarrow from loading pandas only to ask whether what it is given is of pandas: it never is.

    pyarrow asks once, at the first array it makes.  Whoever imports pandas by name afterwards gets it, and so does a
    conversion to pandas.
    """
    import pyarrow as pa

    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(absent)


class _Absent(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for pandas; knows nothing of others."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)
        return None
