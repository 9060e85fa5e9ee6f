"""The `broker` command: what the hosting partnership types.

Exit codes are the same everywhere: 0 fine; 1 a finding (refused, not in force, differs); 2 wrong usage or settings; 3
could not tell (the database, a key or the log can't be reached).
"""

from __future__ import annotations

import gc
import os
import resource

import typer

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no command multiplies matrices: its threads only wait, and burn
gc.set_threshold(100_000)  # to load what follows makes many objects and no garbage: looking for it took a sixth

from broker.cli import (  # noqa: E402
    agencies,
    agreements,
    analysis,
    audit,
    batches,
    epochs,
    export,
    keys,
    linkage,
    log,
    nights,
    reports,
    restrictions,
    serving,
    statistics,
    subjects,
    witnesses,
)

app = typer.Typer(
    name="broker",
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help names TOML tables in brackets
)
for command in (
    serving.init, serving.migrate, serving.roles, serving.serve, serving.signer, nights.nightly, nights.relink,
):  # fmt: skip
    app.command()(command)
agreements.app.command("export")(export.export_documents)
agreements.app.command("receipts")(export.write_receipts)
agreements.app.command("draft")(export.draft_agreement)
agreements.app.command("diff")(analysis.diff_documents)
agreements.app.command("who-can-see")(analysis.who_can_see)
agreements.app.command("what-if")(analysis.what_if)
agreements.app.command("lint")(analysis.lint_estate)
for name, noun in {
    "agencies": agencies, "agreements": agreements, "restrictions": restrictions, "batches": batches,
    "linkage": linkage, "epochs": epochs, "keys": keys, "log": log,
    "statistics": statistics, "witnesses": witnesses, "reports": reports,
    "subjects": subjects, "audit": audit,
}.items():  # fmt: skip
    app.add_typer(noun.app, name=name)


def main() -> None:
    """The entry point.  What it writes is for its own user only, and a crash leaves no core file with keys in it."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    app()
