"""Whether a command line of ours is one that the real parsers take."""

from collections.abc import Sequence
from functools import cache

import click
import typer

from audit.cli import auditor
from broker.cli import app as broker
from linkage.agency.cli import app as agency
from linkage.agency.gateway.cli import gateway


@cache
def program(name: str) -> click.Command:
    """One of the three commands, as it is started."""
    if name == "agency" and not any(one.callback is gateway for one in agency.registered_commands):
        agency.command("gateway")(gateway)
    return typer.main.get_command({"broker": broker, "agency": agency, "auditor": auditor}[name])


def refusal(words: Sequence[str]) -> str | None:
    """Why the parsers do not take a command line; None where they do.  Nothing is run, and no file need be there."""
    command, rest = program(words[0]), list(words[1:])
    context = command.make_context(words[0], list(rest), resilient_parsing=True) if not rest else None
    if context is not None:
        return "a sub-command is missing"
    name = words[0]
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            return f"{name}: there is no sub-command {rest[0] if rest else '(none)'}"
        name, command = f"{name} {rest[0]}", command.commands[rest.pop(0)]
    try:
        command.make_context(name, rest)
    except Exception as wrong:  # whichever click it is: its words say what is wrong
        return f"{name}: {getattr(wrong, 'message', '') or type(wrong).__name__} {wrong}"
    return None
