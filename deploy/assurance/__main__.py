"""Writes INVENTORY.md: what is processed, for what, who may do what, what is logged and for how long, from the code.

`python -m deploy.assurance` writes it anew; a test holds it to the code.  The other pages of the pack refer to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, get_args

from agreements import VOCABULARY
from audit.events import OPS
from audit.taxonomy import KINDS
from broker.access import EXEMPTIONS
from broker.app import PUBLIC
from broker.retention import kept_years
from broker.settings import BrokerRole, LogRetention, Settings
from broker.store.roles import GRANTS
from broker.store.tables import metadata

HERE: Final = Path(__file__).parent
_HEAD: Final = """\
# Inventory

Written from the code by `python -m deploy.assurance`, and held to it by a test. It is the part of a record of
processing (UK GDPR Article 30) that the software can know; who the controllers are, and who signs, is in the agreements
in force, of which `broker reports run R6` makes the record.

The broker holds no name, address, identifier in clear or linkage key. It holds keyed encodings of people, coded data
items (sealed, each under its batch's key) and the log. All of it is personal data all the same.
"""
_PEOPLE: Final = (
    "category", "what", "tier", "sector", "special category from", "criminal offence from", "may ever be taken in",
)  # fmt: skip


_KEPT: Final = """\
Years after the last contact with whoever the event is about, or until they are 25, whichever is later; else the plain
years. By the defaults of the settings.
"""
_WRITES: Final = """\
No role of a broker may change or delete a leaf, a checkpoint or anything else that is only added to. The owner, who
migrates, serves nothing.
"""
_OPEN: Final = """\
Every other route asks who calls; each of these shows hashes, times, public keys, a form, or whether the broker lives.
"""
_CONNECTS: Final = """\
The database, the identity provider, the signer's socket and the PKCS#11 token that its settings name; nothing else, and
no address is ever taken from data. Agencies, witnesses and monitoring come to it.
"""


def page() -> str:
    """The page's text."""
    return "\n".join(
        (
            _HEAD,
            "## What is held about people, by category\n",
            *_table(_PEOPLE, _categories()),
            "\n## For what it may be asked\n",
            *_table(("purpose", "what", "at most", "statute"), _purposes()),
            "\n## Roles\n",
            *_table(("role", "what", "signs in at"), _roles()),
            "\n## What is logged, and for how long\n",
            _KEPT,
            *_table(("event", "what", "operation", "years"), _events()),
            "\n## Tables, and who may write them in PostgreSQL\n",
            _WRITES,
            *_table(("table", "application", "sequencer", "eraser"), _tables()),
            "\n## Open to anybody\n",
            _OPEN,
            *(f"- `{path}`" for path in sorted(PUBLIC)),
            "\n## Where it connects to\n",
            _CONNECTS,
            *_table(("setting", "what"), _connections()),
            "\n## Why something may be withheld from a subject\n",
            *(f"- `{code}`: {words}" for code, words in EXEMPTIONS.items()),
            "",
        )
    )  # fmt: skip


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |"


def _categories() -> Iterator[tuple[object, ...]]:
    for name, one in sorted(VOCABULARY.categories.items()):
        yield (
            f"`{name}`",
            one.label,
            one.tier,
            one.sector,
            one.special,
            one.criminal,
            "no" if one.never_ingest else "yes",
        )


def _purposes() -> Iterator[tuple[object, ...]]:
    for code, one in sorted(VOCABULARY.purposes.items()):
        if not one.group:
            yield f"`{code}`", one.label, "" if one.at_most is None else one.at_most.name.lower(), one.statute


def _roles() -> Iterator[tuple[object, ...]]:
    for code, one in sorted(VOCABULARY.roles.items()):
        where = (
            "the broker" if code in get_args(BrokerRole) else "its agency's gateway" if "gateway" in one.flags else ""
        )
        yield f"`{code}`", one.label, where


def _events() -> Iterator[tuple[object, ...]]:
    terms = LogRetention()
    for name, kind in sorted(KINDS.items()):
        years = kept_years(terms, name)
        yield f"`{name}`", kind.words, OPS[name].value, "while the log is" if years is None else years


def _tables() -> Iterator[tuple[object, ...]]:
    for name in sorted(metadata.tables):
        may = GRANTS.get(name, {"app": "INSERT, UPDATE, DELETE"})
        yield f"`{name}`", *(may.get(role, "reads") for role in ("app", "sequencer", "eraser"))


def _connections() -> Iterator[tuple[object, ...]]:
    for name in ("database_url", "sequencer_url", "eraser_url", "oidc", "signer_socket", "pkcs11"):
        yield f"`{name}`", Settings.model_fields[name].description


if __name__ == "__main__":
    (HERE / "INVENTORY.md").write_text(page(), encoding="utf-8")
