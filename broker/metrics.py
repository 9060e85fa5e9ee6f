"""What Prometheus reads of a running broker: counts, times and states, on a port of their own.

Two kinds of figures.  Requests are counted where they are answered, so each process that serves is scraped by itself.
All else is read from the database at each scrape, so that any process tells it for all, and what a night, another
broker or the signer did is in it: rules take `max` over processes, never `sum`.

No label says anything but what `LABELS` lists: a route by its template, never by its path; a method off a closed list.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Final, get_args
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker import agencies, clock, witnesses
from broker.api.health import standing
from broker.family_view import FeedState
from broker.reviews.said import STATES
from broker.store import Reading
from broker.store.batches import batches_by_state
from broker.store.reviews import doubted
from broker.store.runs import LinkRunRow
from broker.wiring import Broker

log = structlog.get_logger()

LABELS: Final = frozenset({"method", "route", "code", "check", "agency", "flow", "state", "version", "profile", "le"})
"""All that a label may be called: names of ours; `agency` and `flow` as log lines have them."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FEED_STATES: Final[tuple[str, ...]] = get_args(FeedState)
BATCH_STATES: Final = ("open", "sealed", "validating", "accepted", "quarantined")
"""The states in which a batch waits for something."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Answers, counted and timed by route."""

    answered: Counter
    seconds: Histogram

    @classmethod
    def kept_in(cls, registry: CollectorRegistry) -> Requests:
        answered = Counter(
            "broker_http_requests", "Answers by route and status.", ("method", "route", "code"), registry=registry
        )
        seconds = Histogram(
            "broker_http_request_seconds", "Seconds to the end of an answer, the pace of answers and the wait for the"
            " log's checkpoint included.", ("method", "route"), buckets=SECONDS, registry=registry,
        )  # fmt: skip
        return cls(answered, seconds)

    def add(self, method: str, route: str, code: int, seconds: float) -> None:
        kind = method if method in METHODS else "other"
        self.answered.labels(kind, route, str(code)).inc()
        self.seconds.labels(kind, route).observe(seconds)


@dataclass(frozen=True, slots=True)
class Counting:
    """Counts every answer, the edge's own refusals included.  One that broke off has the code 0."""

    app: ASGIApp
    requests: Requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        code, begun = 0, time.perf_counter()

        async def seen(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            route = str(getattr(scope.get("route"), "path", "none"))
            self.requests.add(scope["method"], route, code, time.perf_counter() - begun)


class Figures(Collector):
    """How a broker's log, nights, feeds and disk stand, read anew at each scrape."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def describe(self) -> Iterable[Metric]:
        """Nothing is read to be registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every figure that can be told.  Never raises: if one can't be read, `broker_figures_read` is 0."""
        read = GaugeMetricFamily("broker_figures_read", "1 if the figures beside this one could be read at all.")
        found: list[Metric] = []
        try:
            at = clock.now()
            found += self._process(at)
            with self._broker.store.reading() as reading:
                found += (*self._log(reading, at), *_nights(reading), *_feeds(reading, at), *_waiting(reading))
            read.add_metric((), 1)
        except Exception as wrong:  # a message may quote what must stay here, and the listener would print it
            log.warning("figures can't be read", fault=type(wrong).__name__)
            read.add_metric((), 0)
        yield from (read, *found)

    def _process(self, at: datetime) -> Iterator[Metric]:
        settings = self._broker.settings
        info = GaugeMetricFamily("broker_info", "1, with the version that runs.", labels=("version", "profile"))
        info.add_metric((version("safeguarding-broker"), settings.profile), 1)
        yield info
        ready = GaugeMetricFamily("broker_ready", "1 if a part is as it must be: as /health/ready.", labels=("check",))
        for check, well in standing(self._broker, at).checks.items():
            ready.add_metric((check,), well)
        yield ready
        yield _one("broker_disk_free_bytes", "Room where data_dir lies.", shutil.disk_usage(settings.data_dir).free)

    def _log(self, reading: Reading, at: datetime) -> Iterator[Metric]:
        trail = self._broker.trail
        stand = witnesses.standing(reading, trail.origin, at=at)
        yield _one("broker_log_entries", "Entries under the newest signed checkpoint.", stand.size)
        yield _one("broker_log_witnessed_entries", "Entries that a quorum of witnesses has signed.", stand.witnessed)
        yield _one("broker_log_unsequenced", "Events that wait for their place in the log.", trail.unsequenced())
        yield _one(
            "broker_log_stopped", "1 if this process gives no receipt, so no answer.", trail.broken() is not None
        )
        yield _one("broker_log_conflicts", "Checkpoints shown by a witness that are not this log's.", stand.conflicts)
        yield _one("broker_log_witnesses", "Witnesses that are enrolled.", len(stand.witnesses))
        yield _one("broker_log_quorum_behind_seconds", "How long the quorum is behind.", stand.behind_s)
        if stand.signed_at is not None:
            signed = stand.signed_at.timestamp()
            yield _one("broker_log_signed_timestamp_seconds", "When the newest checkpoint was signed.", signed)


def registry_of(broker: Broker) -> CollectorRegistry:
    """A registry with a broker's figures, and those of its process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Figures(broker))
    return registry


def listen(registry: CollectorRegistry, host: str, port: int) -> WSGIServer:
    """Tell the figures at an address of their own until the process ends.  Raises OSError if it is taken."""
    server, _ = start_http_server(port, host, registry)
    return server


def _nights(reading: Reading) -> Iterator[Metric]:
    runs = reading.all(LinkRunRow, order=("-started_at", "id"), limit=50)
    yield _one(
        "broker_night_running", "1 while a run is at work.", any(one.state in ("running", "built") for one in runs)
    )
    failed = 0
    for run in runs:
        if run.published_at is not None:
            ended = run.published_at.timestamp()
            yield _one("broker_night_published_timestamp_seconds", "When the last run was put in service.", ended)
            took = ended - run.started_at.timestamp()
            yield _one("broker_night_seconds", "How long that run took.", took)
            break
        failed += run.state == "failed"
    yield _one("broker_night_failures", "Runs that failed since one was put in service.", failed)


def _feeds(reading: Reading, at: datetime) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "broker_feed_state", "1 for the state that a flow is in.", labels=("agency", "flow", "state")
    )
    recent = GaugeMetricFamily(
        "broker_feed_as_of_timestamp_seconds", "When what is in service of a flow was extracted.",
        labels=("agency", "flow"),
    )  # fmt: skip
    for feed in agencies.feeds(reading, at=at):
        for state in FEED_STATES:
            states.add_metric((feed.organisation, feed.flow, state), feed.state == state)
        if feed.as_of is not None:
            recent.add_metric((feed.organisation, feed.flow), feed.as_of.timestamp())
    yield from (states, recent)


def _waiting(reading: Reading) -> Iterator[Metric]:
    batches = GaugeMetricFamily("broker_batches", "Batches that wait, by state.", labels=("state",))
    counted = batches_by_state(reading, BATCH_STATES)
    for state in BATCH_STATES:
        batches.add_metric((state,), counted.get(state, 0))
    yield batches
    pairs = doubted(reading, states=STATES).pairs
    yield _one("broker_pairs_waiting", "Pairs of records that wait for a link reviewer.", pairs)


def _one(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=float(value))
