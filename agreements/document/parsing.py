"""From bytes to a table: what is no document at all, and what it pretends to be, is refused with its place."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import ValidationError

LARGEST: Final = 256 * 1024
LARGEST_INTEGER: Final = 2**53 - 1
_BIDIRECTIONAL: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a document: where (a path, "grants[2].from"), what, and what to write instead.

    `refused`: it can't be loaded; `lint`: it loads, and a reviewer should see this first.
    """

    path: str
    message: str
    fix: str
    severity: Literal["refused", "lint"] = "refused"


class DocumentRefused(ValueError):
    """A document that can't be loaded, with all that was found; nothing of it is."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings: Final = tuple(findings)
        super().__init__("; ".join(f"{finding.path}: {finding.message}; {finding.fix}" for finding in self.findings))


class _NotWhole:
    """What stands where a document writes a number that is not whole: no field takes it, so its place is named."""

    def __init__(self, _: str) -> None:
        pass

    def __repr__(self) -> str:
        return "a number that is not whole"


def parsed(source: bytes | str) -> dict[str, Any]:
    """The table of a TOML text.  Raises DocumentRefused for what is none, or is not what it looks like."""
    raw = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    if len(raw) > LARGEST:
        raise refused("document", "it is larger than 256 kB", "split it, or shorten its texts")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise refused("line 1", "it begins with a byte order mark", "save it as UTF-8 without one")
    try:
        body = tomllib.loads(raw.decode("utf-8"), parse_float=_NotWhole)
        findings = list(_unclean(body, ""))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise refused(f"line {line}", "it is not UTF-8", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)", str(error))
        message = str(error).split(" (at ")[0]
        raise refused(place.group(1) if place else "document", f"not TOML: {message}", "correct it there") from None
    except ValueError:  # of an integer with thousands of digits
        raise refused("document", "a number is too long to be read", "write a shorter one") from None
    except RecursionError:
        raise refused("document", "it is nested too deeply", "write lists and tables one level deep") from None
    if findings:
        raise DocumentRefused(findings)
    return body


def _unclean(value: object, path: str) -> Iterator[Finding]:
    """Texts that are not what they look like, integers that JSON can't hold."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unclean(str(key), inside(path, "key"))
            yield from _unclean(inner, inside(path, str(key)) if str(key).isprintable() else inside(path, "key"))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unclean(inner, f"{path}[{index}]")
    elif isinstance(value, str):
        if unicodedata.normalize("NFC", value) != value:
            yield Finding(path, "a text is not in Unicode form NFC", "save it normalised")
        if any(unicodedata.category(letter) in ("Cc", "Cs") or letter in _BIDIRECTIONAL for letter in value):
            yield Finding(
                path, "a text has a control or bidirectional character", "write it in one line, in plain letters"
            )
    elif type(value) is int and abs(value) > LARGEST_INTEGER:
        yield Finding(path, "an integer beyond 2^53 - 1", "write a smaller one")


def inside(path: str, key: str) -> str:
    """The path of a key of what stands at a path."""
    return f"{path}.{key}" if path else key


def dated(value: Any, key: str = "") -> Any:
    """Canonical JSON as TOML would have given it: the days are days again."""
    if isinstance(value, dict):
        return {name: dated(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [dated(inner) for inner in value]
    if key in ("effective", "expires", "review_by", "approved", "on") and isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            return value
    return value


_FIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "write it",
        "extra_forbidden": "take it out: nobody reads it",
        "string_type": "write a text in quotes",
        "bool_type": "write true or false",
        "int_type": "write a whole number",
        "list_type": "write a list",
        "string_pattern_mismatch": "write it in the form that is due",
        "too_short": "name at least one",
        "string_too_short": "write something",
    }
)


def faults(error: ValidationError) -> Iterator[Finding]:
    """What pydantic found, each with its place and its fix; never a value."""
    for one in error.errors(include_url=False, include_input=False):
        path = ""
        for step in one["loc"]:
            path = f"{path}[{step}]" if isinstance(step, int) else inside(path, str(step).rstrip("_"))
        message = one["msg"].removeprefix("Value error, ")
        due = f"write one of {expected}" if (expected := one.get("ctx", {}).get("expected")) else "write what is due"
        yield Finding(path or "document", message, _FIXES.get(one["type"], due))


def refused(path: str, message: str, fix: str) -> DocumentRefused:
    """The refusal of one finding."""
    return DocumentRefused([Finding(path, message, fix)])
