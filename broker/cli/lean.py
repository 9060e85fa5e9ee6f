"""What a command need not wait for."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

M_TRIM_THRESHOLD: Final = -1  # mallopt(3)
M_MMAP_MAX: Final = -4


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


def with_memory_kept() -> None:
    """What is freed stays with this process, to be used again; the system is asked for memory never used before alone.

    The system fills what it gives with nothing first, and a night frees and asks for the same gigabyte many times: that
    was a sixth of its processor time.  Nothing changes where the C library is another than glibc.
    """
    import pyarrow as pa

    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is None:
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    pa.set_memory_pool(pa.system_memory_pool())


class _Absent(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for pandas; knows nothing of others."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)
        return None
