"""`auditor`: checks the log for someone who trusts neither the broker nor a network."""

from __future__ import annotations

import typer

from audit.cli import log, receipts, replay, sample, witness

auditor = typer.Typer(
    name="auditor",
    help="""
    Check the broker's log offline, from a folder that mirrors it.

    You need three things, and no network: a folder with the public log (checkpoint, tile/..., tile/entries/...; `agency
    log fetch` brings one), a policy file that names the log's key and its witnesses (C2SP tlog-policy, handed to you by
    someone you trust and not by the log), and what you kept last time.

    Exit codes of every command: 0 all is well; 1 something was changed, cut off or forged (keep the files that are
    written: they are the evidence); 2 wrong usage, or a policy file that can't be understood; 3 a file could not be
    read, which proves nothing; 4 the log is older than you asked for, or than your receipt; 5 too few witnesses have
    signed.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

for command in (log.inclusion, log.consistency, log.fsck, receipts.receipts, sample.sample, witness.gossip):
    auditor.command()(command)
auditor.command("witness-key")(witness.witness_key)
auditor.command("replay")(replay.replay_decisions)


def main() -> None:
    """Entry point of `auditor`."""
    auditor()
