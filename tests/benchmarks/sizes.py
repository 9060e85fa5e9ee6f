"""How large a benchmark is: as its claims are worded, or small (`make bench SIZE=small`), to see that it runs at all."""

import os
from typing import Final, TypeVar

SMALL: Final = os.environ.get("SIZE", "full") == "small"

Size = TypeVar("Size")


def sized(full: Size, small: Size) -> Size:
    """The size to measure at."""
    return small if SMALL else full
