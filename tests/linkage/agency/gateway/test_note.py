"""What a decision-maker writes beside a ground: kept at the gateway, without the names of that search, and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.linkage.agency.gateway.builders import (
    MANAGER,
    a_contact,
    a_gateway,
    a_kept_search,
    a_search_answer,
    csrf_of,
    something_typed,
)


@contextmanager
def whoever_listens() -> Iterator[tuple[str, list[bytes]]]:
    """A server in the broker's place: its address, and every byte that it is sent."""
    heard: list[bytes] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(f"{self.requestline}\n{self.headers}".encode() + body)
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_name_typed_in_a_search_and_in_a_reason_reaches_no_broker_45(tmp_path: Path) -> None:
    child = something_typed().child
    note = f"The school of {child.given_name.upper()} {child.family_name} rang, and canary-of-the-note too"
    with whoever_listens() as (url, heard):
        running = a_gateway(tmp_path, broker_url=url)
        contact = a_contact(running, opened={MANAGER.id: {"search": "s-1", "candidate": "c-1"}})
        a_kept_search(running, a_search_answer(), MANAGER, contact)
        manager = running.client(MANAGER)
        form = {
            "csrf": csrf_of(manager.get(f"/contacts/{contact}/threshold").text), "action": "record",
            "grounds": "significant_harm_suspected", "note": note,
        }  # fmt: skip
        assert manager.post(f"/contacts/{contact}/threshold", data=form).status_code == 303
        kept = running.store.get("contact", "*", contact, now=running.clock())
    assert kept is not None
    assert kept.content["threshold"]["note"] == "The school of [removed] [removed] rang, and canary-of-the-note too"
    (sent,) = heard
    assert b"significant_harm_suspected" in sent
    for typed in (child.given_name, child.family_name, "canary-of-the-note"):
        assert typed.lower().encode() not in sent.lower()
