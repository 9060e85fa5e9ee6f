"""A broker that answers a family view and is killed at a step of the write-ahead protocol.

python -m tests.faults.view_killer FOLDER STEP [FOLDER STEP ...]

Each folder is an area; each step has a process of its own, forked from this one before it has opened anything.  What
of the answer leaves is appended to FOLDER/left as it leaves.  Prints for each step the signal that ended it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

import audit.signer
import broker.store.sequence
from broker import disclosures
from broker.app import create_app
from broker.signing import SignerFolder
from broker.trail import Trail
from tests.builders_area import BASE_URL, MORNING, Area, the_time
from tests.builders_families import ROBIN

Patch = Callable[[pytest.MonkeyPatch], None]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> Patch:
    """Killed as this begins."""

    def patch(patched: pytest.MonkeyPatch) -> None:
        patched.setattr(owner, name, lambda *_, **__: killed())

    return patch


def after(owner: Any, name: str, *, when: Callable[..., bool] = lambda *_, **__: True) -> Patch:
    """Killed once this is done, `when` it was called so."""

    def patch(patched: pytest.MonkeyPatch) -> None:
        does = getattr(owner, name)

        def then_killed(*given: Any, **named: Any) -> Any:
            done = does(*given, **named)
            if when(*given, **named):
                killed()
            return done

        patched.setattr(owner, name, then_killed)

    return patch


def ends(trail: Trail, tx: Any, event: Any, **_: Any) -> bool:
    return bool(event.type == "disclosure.completed")


def keeps_state(path: Path, _: bytes) -> bool:
    return path.name == "state.json"


STEPS: Final[dict[str, Patch]] = {
    "1 in the transaction of the act": after(Trail, "record"),
    "1 committed": before(Trail, "receipt"),
    "2 in the transaction of the sequencer": after(broker.store.sequence, "write"),
    "2 sequenced": before(SignerFolder, "sign"),
    "3 the signer has kept its state": after(audit.signer, "replace_file", when=keeps_state),
    "3 signed": after(SignerFolder, "sign"),
    "4 the receipt is in hand": after(Trail, "receipt"),
    "5 the answer has left": before(disclosures, "completed"),
    "6 in the transaction of the end": after(Trail, "record", when=ends),
    "6 the end is committed": before(Trail, "wake"),
}
"""Where it is killed, in the order of the protocol."""


@dataclass
class Leaving:
    """The application; what leaves of its answers goes to a file, too."""

    app: Any
    left: Path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            await send(message)
            with self.left.open("ab") as file:
                file.write(message.get("body", b""))

        await self.app(scope, receive, noted)


def answer(folder: Path, step: str) -> None:
    """Search, then open the view and be killed."""
    with the_time(MORNING), pytest.MonkeyPatch.context() as patched:
        area, left = Area(folder), folder / "left"
        app = create_app(area.settings)
        client = TestClient(Leaving(app, left), base_url=BASE_URL)
        client.app = app  # where the area looks for its broker
        area.__dict__["http"] = client
        analyst = area.asker()
        found = analyst.search(ROBIN.typed(), case="K1")
        area.size()
        left.unlink()
        STEPS[step](patched)
        analyst.open(found)


def main(arguments: list[str]) -> None:
    for folder, step in zip(arguments[::2], arguments[1::2], strict=True):
        child = os.fork()
        if child == 0:
            answer(Path(folder), step)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
