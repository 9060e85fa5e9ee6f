"""`agency sandbox`: a broker to try against, offline."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Annotated

import typer

from linkage.agency.cli.shared import HomeFolder, answering, home_of


def sandbox(
    home: HomeFolder,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where it listens, on 127.0.0.1.")] = 8400,
    verdict: Annotated[str, typer.Option(help="What becomes of each batch: accepted, rejected or quarantined.")] = (
        "accepted"
    ),
    trouble: Annotated[
        str, typer.Option(help="What goes wrong again and again: lost-answer, busy or expired-token.")
    ] = "",
    every: Annotated[int, typer.Option("--every", min=3, help="Trouble befalls each so-manieth request.")] = 3,
    sunset: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="The last day on which this form of manifest is taken, as answers say."
        ),
    ] = None,
) -> None:
    """Run a broker to try against, on this machine, with no partnership and no network.

    It knows this home's public.json, and takes batches by the same routes, with the same refusals, as a broker: make
    your own client work here first.  It looks at no row, keeps nothing when it ends, and its receipts prove nothing.
    Point a client at it with AGENCY_BROKER=http://127.0.0.1:PORT.

    Exit codes: 0 stopped; 2 the home or an option is wrong; 3 it can't listen there.
    """
    with answering(False):
        from linkage.agency import clock
        from linkage.agency.sandbox import TROUBLES, VERDICTS, Sandbox, serve
        from linkage.agency.settings import BadHome

        given = next((one for one in VERDICTS if one == verdict), None)
        if given is None:
            raise BadHome(f"--verdict: one of {', '.join(VERDICTS)} is due")
        if trouble and trouble not in TROUBLES:
            raise BadHome(f"--trouble: one of {', '.join(TROUBLES)} is due")
        base = f"http://127.0.0.1:{port}"
        made = Sandbox(
            home_of(home), base=base, now=clock.now, verdict=given, trouble=trouble, every=every,
            sunset=sunset.date() if sunset is not None else None,
        )  # fmt: skip
        with serve(made, port, say=print) as server:
            print(f"sandbox: {base} (proves nothing; Ctrl-C ends it)", flush=True)
            with suppress(KeyboardInterrupt):
                server.serve_forever()
