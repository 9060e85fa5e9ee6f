"""How much a test tries: a little in `make test`, much in `make properties`."""

import os
from typing import Final

LONG: Final = os.environ.get("HYPOTHESIS_PROFILE") == "long"
