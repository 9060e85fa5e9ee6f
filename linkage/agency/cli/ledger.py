"""`agency ledger`: who was shown what of this agency's records."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from linkage.agency.cli.shared import FINDING, AsJson, HomeFolder, answering, broker_of, home_of, say


def ledger(
    home: HomeFolder,
    record: Annotated[
        str | None, typer.Option("--record", help="A record_ref, or with --case a case number: its latest 25 accesses.")
    ] = None,
    case: Annotated[bool, typer.Option("--case", help="--record is one of the agency's own case numbers.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="What was read before, too.")] = False,
    since: Annotated[str | None, typer.Option(help="From an instant on, such as 2026-11-01T00:00:00Z.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Do not say that it was read.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of words.")] = False,
    as_json: AsJson = False,
) -> None:
    """Who was shown what of this agency's records, when and why; and which answers to its own people are recalled.

    The agency's own numbers are put back here, from its crosswalk: what is printed is personal data.  What is new is
    then said to have been read, which the broker's log keeps.  Of what was hidden from somebody nothing is listed.

    Exit codes: 0 listed, and no answer is recalled; 1 an answer is recalled, or the number is none of this agency's; 2
    the home is wrong; 3 the broker can't be reached.
    """
    with answering(as_json):
        from linkage.agency import crosswalk
        from linkage.agency import ledger as known

        place = home_of(home)
        broker = broker_of(place)
        recalls: list[dict[str, Any]] = []
        with crosswalk.opened(place.crosswalk_path) as held:
            if record is not None:
                refs = [str(one["record_ref"]) for one in held.records(record)] if case else [record]
                if not refs:
                    say(as_json, [], "not one of this agency's")
                    raise typer.Exit(FINDING)
                found = [one for ref in refs for one in broker.accesses(ref)["accesses"]]
                found.sort(key=lambda one: str(one["at"]), reverse=True)
            else:
                found = list(known.accesses(broker, which="all" if everything else "new", since=since))
                recalls = broker.recalls()["recalls"]
            found = [known.resolved(one, held.local_id) for one in found]
        recalled = [known.recall_line(one) for one in recalls]
        if as_csv:
            known.write_csv(found, sys.stdout)
            for line in recalled:
                print(line, file=sys.stderr)
        else:
            lines = [*map(known.line, found), *recalled]
            say(as_json, {"accesses": found, "recalls": recalls}, "\n".join(lines) or "Nothing is new.")
        if record is None and not keep:
            new = [str(one["notice"]) for one in found if one["collected_at"] is None]
            known.say_read(broker, new, [str(one["recall"]) for one in recalls])
        if recalls:
            raise typer.Exit(FINDING)
