"""`broker nightly | relink`: what runs unattended each night, and linking everything again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.audit import watch
from broker.cli.lean import with_memory_kept, without_pandas
from broker.cli.shared import (
    FINDING,
    STAFF_ID,
    UNKNOWN,
    USAGE,
    AsJson,
    Config,
    answering,
    fail,
    open_broker,
    operator_of,
    say,
)
from broker.cli.subjects import expire

if TYPE_CHECKING:
    from linkage.matching.link import Engine


Night = Annotated[str | None, typer.Option("--date", help="The night, ISO 8601; default: today in London.")]
Exceeding = Annotated[
    bool,
    typer.Option(
        "--exception",
        help="The partnership has signed an exception: more than 200,000 children under one key and epoch.",
    ),
]


def nightly(config: Config = None, night: Night = None, exception: Exceeding = False, as_json: AsJson = False) -> None:
    """Validate what is sealed, link what is accepted, publish by one pointer flip.

    Only records that are new, changed or withdrawn are compared; the result is that of `relink --full`.  A run that was
    killed is discarded and begun again: what was in service stays so, and no accepted batch is lost.  Every
    `retrain_days` a new model is trained and compared; one that moves the link rate waits for `relink --accept`.

    Raises what holders are to consider, as `broker serve` does at its fixed times.

    Tells first which agreements and restrictions near their last day or review (at 90, 60, 30 and 7 days) or have
    ended: each once, in the log as well.

    Runs the rules over the log's last day, and draws last week's sample once its witnesses allow it.

    Lets what the log says of people expire, and writes the database's files anew if anything was erased.

    Exit codes: 0 published, or nothing new; 1 a gate refused the result, or another run is at work; the last good run
    stays in service either way.
    """
    without_pandas()
    with_memory_kept()
    with answering(as_json), open_broker(config) as broker:
        from broker import callers, clock, considering, expiry, signin
        from broker import nightly as night_run
        from broker.linked import InService

        at = clock.now()
        day = _night(night, at, as_json)
        with broker.store.transaction() as tx:
            callers.forget_spent(tx, at=at)
            signin.forget_ended(tx, at=at)
        fallen_due = expiry.tell(broker.store, broker.trail, who=operator_of(broker), at=at)
        if fallen_due and not as_json:
            print("\n".join(one["words"] for one in fallen_due))
        done = night_run.run(broker, night=day, at=at, exception=exception)
        service = InService(broker.store, broker.vault)
        considering.raise_due(
            broker.store, broker.trail, broker.keys, service, partnership=broker.settings.partnership, slot=at, at=at
        )
        done["audit"] = watch(broker)
        done["log_retention"] = expire(broker, who=operator_of(broker))
        broker.trail.advance_pending()
        done |= {"agreements": fallen_due} if fallen_due else {}
        say(as_json, done, json.dumps(done, indent=1, default=str))


class EngineName(StrEnum):
    """Where pairs are found and scored."""

    DUCKDB = "duckdb"
    SPARK = "spark"


def relink(
    full: Annotated[bool, typer.Option("--full", help="Compare every pair anew, not only what has changed.")] = False,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="spark (an extra of the package) compares every pair anew.")
    ] = EngineName.DUCKDB,
    master: Annotated[
        str | None, typer.Option("--master", help="Of Spark: spark://..., yarn, k8s://...; default: this machine.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train a new model beside the one in service, and compare the two.")
    ] = False,
    accept: Annotated[
        str | None,
        typer.Option("--accept", metavar="DIGEST", help="Link by this kept model, whatever it does to the link rate."),
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Your staff id: due with --accept; the log keeps it.")] = None,
    config: Config = None,
    night: Night = None,
    exception: Exceeding = False,
    as_json: AsJson = False,
) -> None:
    """Link everything again, though nothing new came in: by the model in service, or by another.

    With --retrain the new model links in shadow; it takes over unless the share of records that are linked moves by
    more than two points.  Then it is kept, the figures are printed, and `relink --accept DIGEST --by YOU` takes it in.

    Exit codes: 0 published; 1 the new model or a gate's result is refused, and the last good run stays in service.
    """
    without_pandas()
    with_memory_kept()
    with answering(as_json), open_broker(config) as broker:
        from broker import clock, models
        from broker import nightly as night_run

        if (accept is None) != (by is None) or (by is not None and not STAFF_ID.fullmatch(by)):
            fail("--accept and --by go together; --by is a staff id: letters, digits and . _ @ -", USAGE, as_json)
        if accept is not None and (retrain or engine is not EngineName.DUCKDB):
            fail("--accept takes in a model that is there: without --retrain and --engine", USAGE, as_json)
        at = clock.now()
        day = _night(night, at, as_json)
        with _engine(engine, master, as_json) as chosen:
            asked = night_run.Relink(full=full, engine=chosen, retrain=retrain, accept=accept or "", by=by or "")
            try:
                done = night_run.run(broker, night=day, at=at, exception=exception, relink=asked)
            except night_run.ModelRefused as refused:
                digest = refused.comparison["models"][1]
                said = f"{refused}; to take it in: broker relink --accept {digest[:16]} --by YOUR-STAFF-ID"
                say(as_json, {"refused": str(refused), "comparison": refused.comparison},
                     f"{models.words(refused.comparison)}\n{said}")  # fmt: skip
                raise typer.Exit(FINDING) from None
        say(as_json, done, json.dumps(done, indent=1, default=str))


def _night(night: str | None, at: datetime, as_json: bool) -> date:
    from agreements.agreement import LONDON

    try:
        return date.fromisoformat(night) if night else at.astimezone(LONDON).date()
    except ValueError:
        fail("--date is a day such as 2026-11-02", USAGE, as_json)


@contextmanager
def _engine(name: EngineName, master: str | None, as_json: bool) -> Iterator[Engine | None]:
    """What blocks and scores instead of DuckDB, for as long as it is needed; None for DuckDB."""
    if name is EngineName.DUCKDB:
        yield None
        return
    from linkage.matching.spark import SparkFailed, SparkUnavailable, spark_engine

    try:
        with spark_engine(master=master) as engine:
            yield engine
    except SparkUnavailable as wrong:
        fail(str(wrong), USAGE, as_json)
    except SparkFailed as wrong:
        fail(str(wrong), UNKNOWN, as_json)
