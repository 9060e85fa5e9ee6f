"""A real browser against real servers: Debian's Chromium, uvicorn in a thread on a socket that is bound beforehand.

Every page a `Visitor` opens is held to: no console error, no failed request, no breach of the content security policy.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page

from deploy.demo.__main__ import ROOT, Demo

AXE = Path(__file__).resolve().parents[1] / "vendor" / "axe-core" / "axe.min.js"
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CHILDREN = 1500
INSTALL = "apt-get install -y --no-install-recommends chromium fonts-liberation2"


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail(f"no Chromium here; run: {INSTALL}")
    args = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    if os.geteuid() == 0:
        args.append("--no-sandbox")
    return {"executable_path": chromium, "args": [*args, "--no-first-run"]}


def four_free_ports() -> int:
    """The first of four neighbouring ports that are free just now; each worker of pytest looks in a range of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for first in range(21_400 + 1_000 * worker, 29_000, 7):
        try:
            probes = [socket.create_server(("127.0.0.1", first + n)) for n in range(4)]
        except OSError:
            continue
        for probe in probes:
            probe.close()
        return first
    raise RuntimeError("no four free ports")


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, str]:
    """One demonstration for the whole session, prepared by its own command; and what that command printed."""
    folder, port = tmp_path_factory.mktemp("demo") / "state", four_free_ports()
    done = subprocess.run(
        [
            sys.executable, "-m", "deploy.demo", "--once", "--children", str(CHILDREN), "--port", str(port),
            "--folder", str(folder),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Demo(folder, port, CHILDREN, 1), done.stdout


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """`app` on a free loopback port while the block runs; its address."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="on")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], str]]:
    """Serve an application until the test is over; gives its address."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(served(app))


class Visitor:
    """One person at one browser, and all that went wrong on their way."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._response)

    def _console(self, message: Any) -> None:  # a breach of the policy is reported here, too
        if message.type == "error" and "the server responded with a status of" not in message.text:
            self.wrong.append(f"console: {message.text}")

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the browser's own: a download, or a page left early
            self.wrong.append(f"request failed: {request.url}: {request.failure}")

    def _response(self, response: Any) -> None:
        if response.status >= 400 and response.request.resource_type != "document":
            self.wrong.append(f"{response.status}: {response.url}")

    def violations(self) -> list[str]:
        """What axe finds on the page as it stands."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", AXE_TAGS)
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
            for one in found["violations"]
        ]

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Open a browser of one's own: `visitor(width=390, scripts=False)`.  Fails the test if anything went wrong."""
    opened: list[Visitor] = []

    def open_one(*, width: int = 1280, height: int = 720, scripts: bool = True) -> Visitor:
        context = browser.new_context(
            viewport={"width": width, "height": height}, java_script_enabled=scripts, accept_downloads=True
        )
        opened.append(Visitor(context))
        return opened[-1]

    yield open_one
    wrong = [problem for one in opened for problem in one.wrong]
    for one in opened:
        one.context.close()
    assert wrong == []
