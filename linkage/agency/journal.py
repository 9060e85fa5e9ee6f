"""What this agency asked of the broker, one line before a request is sent and one when it is answered.

`auditor receipts --requests` holds it against the receipts that are kept.  A request is named by the SHA-256 of what
goes with it and into the log's event: the person's signed statement, or a batch's manifest.  No name is in it, no
number, no case; the file grows by some 250 bytes a request.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from linkage.agency.clock import rfc3339
from linkage.agency.settings import write_whole

FILE: Final = "requests.jsonl"
KEPT: Final = ("event_id", "log", "opening", "proof")


class Journal:
    """The journal of a home.  Several processes may write: each line is one append."""

    def __init__(self, home: Path, *, now: Callable[[], datetime]) -> None:
        self._path = home / FILE
        self._receipts = home / "receipts" / "asked"
        self._now = now

    def sent(self, request: str, what: str) -> None:
        """A request is about to be sent; on disk before this returns."""
        self._append({"id": request, "what": what})

    def answered(self, request: str, status: int, receipt: Mapping[str, Any] | None = None) -> None:
        """It was answered; the receipt, if one came, is kept as a file, without the decisions it also bears."""
        event = None if receipt is None else receipt.get("event_id")
        if receipt is not None and isinstance(event, str) and event.replace("-", "").replace("_", "").isalnum():
            kept = {name: receipt[name] for name in KEPT if name in receipt}
            write_whole(self._receipts / f"{event}.json", json.dumps(kept, indent=1).encode() + b"\n")
        self._append({"id": request, "answered": status, "event": event})

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps({"at": rfc3339(self._now()), **line}, sort_keys=True).encode() + b"\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
