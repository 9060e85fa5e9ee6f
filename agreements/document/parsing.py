"""From bytes to a table: what is no document at all, and what it pretends to be, is refused with its place."""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ValidationError

from agreements.document import text

LARGEST: Final = 256 * 1024
LARGEST_INTEGER: Final = 2**53 - 1
LONGEST_TERM: Final = 64
_UNSEEN: Final = ("Cc", "Cs", "Cf", "Zl", "Zp")
"""Control, surrogate, invisible and bidirectional, line and paragraph ends, as Unicode's categories."""
_IGNORED: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What shows nothing and is of none of them: fillers, joiners, selectors (Unicode: Default_Ignorable_Code_Point)."""


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
        findings = list(unclean(body))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise refused(f"line {line}", "it is not UTF-8", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)", str(error))
        message = _said_of(str(error).rpartition(" (at ")[0] or str(error))
        raise refused(place.group(1) if place else "document", f"not TOML: {message}", _mend(raw, place)) from None
    except ValueError:  # of an integer with thousands of digits
        raise refused("document", "a number is too long to be read", "write a shorter one") from None
    except RecursionError:
        raise refused("document", "it is nested too deeply", "write lists and tables one level deep") from None
    if findings:
        raise DocumentRefused(findings)
    return body


def from_json(raw: bytes) -> dict[str, Any]:
    """The table of a canonical form, held to what a TOML text could say.  Raises DocumentRefused."""
    if len(raw) > LARGEST:
        raise refused("document", "it is larger than 256 kB", _CANONICAL)
    try:
        body = json.loads(raw.decode("utf-8"), parse_float=_NotWhole, parse_constant=_NotWhole)
        findings = list(unclean(body))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise refused("document", "it is not JSON in UTF-8", _CANONICAL) from None
    except ValueError:  # of an integer with thousands of digits
        raise refused("document", "a number is too long to be read", "write a shorter one") from None
    except RecursionError:
        raise refused("document", "it is nested too deeply", _CANONICAL) from None
    if not isinstance(body, dict):
        raise refused("document", "it is not an object", _CANONICAL)
    if findings:
        raise DocumentRefused(findings)
    return body


_CANONICAL: Final = "give the canonical form that was signed"


def _said_of(message: str) -> str:
    """The parser's words as a person would say them, without a key or a letter of the text: it may be anybody's."""
    return next((said for beginning, said in _OF_TOML if message.startswith(beginning)), "it can't be read from there")


_OF_TOML: Final = (
    ("Cannot declare", "a table stands twice"),
    ("Cannot redefine", "a table stands twice"),
    ("Cannot mutate", "a table is written to after it was closed"),
    ("Duplicate inline table key", "a key stands twice"),
    ("Cannot overwrite", "a key stands twice"),
    ("Invalid date or datetime", "no calendar has that day"),
    ("Expected '=' after a key", "a key has no = after it"),
    ("Expected newline or end of document", "something follows on a line that should end there"),
    ("Expected ']", "the name of a table is not closed with its bracket"),
    ("Invalid statement", "a line begins with what is no key"),
    ("Invalid initial character for a key", "what stands there is no key"),
    ("Invalid value", "what stands there is no value"),
    ("Unclosed array", "a list is not closed with ]"),
    ("Unclosed inline table", "a table is not closed with } on its line"),
    ("Unterminated string", "a text is not closed with its quote"),
    ("Unescaped '\\'", "a backslash stands alone in a text"),
    ("Invalid hex value", "after \\u or \\U there is no letter's number"),
    ("Escaped character is not a Unicode scalar value", "after \\u or \\U there is no letter's number"),
    ("Illegal character", "a letter that may not stand there"),
    ("Found invalid character", "a letter that may not stand there"),
    ("Expected ", "a text is not closed with its quote"),
)
"""How Python's reader says what is wrong, and how we do."""


_SLIPS: Final = (
    (re.compile(r"[\u2018\u2019\u201c\u201d\u201e]"), 'write straight quotes, ", not curly ones'),
    (re.compile(r"(?<![\d\"'])\d{1,2}[/.]\d{1,2}[/.]\d{2,4}"), "write a day as 2026-04-01"),
    (re.compile(r"=\s*(True|False|yes|no|TRUE|FALSE|Yes|No)\b"), "write true or false, or a word in quotes"),
    (re.compile(r"\{[^{}]*$"), "keep all of { ... } on one line, with its closing }"),
    (re.compile(r"=\s*(,|$)"), "write a value after ="),
)
"""What people type that is no TOML, and what to write instead."""


def _mend(raw: bytes, place: re.Match[str] | None) -> str:
    """What to write instead, by the line at which reading stopped and the one before it."""
    number = re.match(r"line (\d+)", place.group(1)) if place else None
    lines = raw.decode("utf-8").splitlines()
    at = int(number.group(1)) if number else len(lines)
    for line in reversed(lines[max(at - 2, 0) : at]):
        if _no_such_day(line):
            return "write a day that there is, as 2026-02-28: look at the day and the month"
        for slip, fix in _SLIPS:
            if slip.search(line):
                return fix
    return (
        "look at that line: each is a key, =, and a text in quotes, a number, true, false, a day, [a list] or {a table}"
    )


def _no_such_day(line: str) -> bool:
    """Whether a line has what looks like a day and is none, as 2026-02-30."""
    for found in re.findall(r"=\s*(\d{4}-\d\d-\d\d)\b", line):
        try:
            date.fromisoformat(found)
        except ValueError:
            return True
    return False


def unclean(value: object, path: str = "", *, keys: AbstractSet[str] | None = None) -> Iterator[Finding]:
    """Texts that are not what they look like, integers that JSON can't hold, and nothing where something is due.

    `keys`: those that a path may name; else all that a document has.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unclean(str(key), inside(path, "key"), keys=keys)
            known = str(key) if key in (_KEYS if keys is None else keys) else UNKNOWN
            yield from unclean(inner, inside(path, known), keys=keys)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unclean(inner, f"{path}[{index}]", keys=keys)
    elif value is None:
        yield Finding(path or "document", "there is nothing there", "write what is due, or take the key out")
    elif isinstance(value, str):
        if value.isascii() and value.isprintable():
            return
        if unicodedata.normalize("NFC", value) != value:
            yield Finding(path, "a text is not in Unicode form NFC", "save it normalised")
        if _IGNORED.search(value) or any(unicodedata.category(letter) in _UNSEEN for letter in value):
            yield Finding(
                path,
                "a text has a control, invisible or bidirectional character",
                "write it in one line, in plain letters",
            )
    elif type(value) is int and abs(value) > LARGEST_INTEGER:
        yield Finding(path, "an integer beyond 2^53 - 1", "write a smaller one")


UNKNOWN: Final = "<unknown key>"
"""What stands in a path for a key that no document has: it may be anybody's name."""


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
        "model_type": "write a table, as {key = value} on one line",
        "string_type": "write a text in quotes",
        "bool_type": "write true or false",
        "int_type": "write a whole number",
        "list_type": "write a list",
        "too_short": "name at least one",
        "string_too_short": "write something",
    }
)


_SAID: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "it must be there",
        "extra_forbidden": "no such key is read here",
        "list_type": "a list is due",
        "string_type": "a text is due",
        "bool_type": "true or false is due",
        "int_type": "a whole number is due",
        "model_type": "a table is due",
        "too_short": "it is empty",
        "string_too_short": "it is empty",
        "string_too_long": "it is too long",
        "literal_error": "no word of the list stands there",
        "greater_than_equal": "it is too small",
        "less_than_equal": "it is too large",
    }
)
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "string_too_long": ("max_length", "write {} letters or fewer"),
        "greater_than_equal": ("ge", "write {} or more"),
        "less_than_equal": ("le", "write {} or less"),
    }
)
_OURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        text.NO_DAY: "write it as 2026-04-01, without quotes and without a time",
        text.TWICE: "name each once",
        text.BLANK: "write what it is",
        text.NO_NUMBER: "write 1",
    }
)
_FORMS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        text.VERSION: ("a version is three numbers", 'write it as "3.0.0"'),
        text.SPAN: (
            "a length of time has one unit",
            'write it as "P28D" (days), "P6M" (months), "P2Y" or "PT60M" (minutes)',
        ),
        text.ID: ("an id is lower-case letters, digits and hyphens", 'write it as "northshire-mash"'),
        text.REF: ("an id and a version are due", 'write it as "northshire-tier1@2.1.0"'),
        text.RECORD_REF: ("no record has such a reference", "write record_ref as the owner's crosswalk has it"),
    }
)


def faults(error: ValidationError, model: type[BaseModel], source: str | None = None) -> Iterator[Finding]:
    """What pydantic found, each with its place and its fix; never a value, nor a key that no document has.

    `source`: the text, if it is at hand, in which the line of such a key is looked for.
    """
    for one in error.errors(include_url=False, include_input=False):
        kind, steps = one["type"], one["loc"]
        path = ""
        for number, step in enumerate(steps, start=1):
            strange = kind == "extra_forbidden" and number == len(steps)
            key = UNKNOWN if strange else str(step).rstrip("_")
            path = f"{path}[{step}]" if isinstance(step, int) and not strange else inside(path, key)
        context = one.get("ctx", {})
        message, fix = _SAID.get(kind, "it is not what is due here"), _FIXES.get(kind, "write what is due")
        if kind == "extra_forbidden":
            fix = _other_key(str(steps[-1]), _keys_at(model, steps[:-1]))
            if source is not None and (line := _line_of(str(steps[-1]), source)):
                message = f"{message}: line {line}"
        elif kind == "literal_error":
            due = str(context["expected"]).replace("'", '"')
            single = " or " not in due
            message, fix = ("it is another", f"write {due}") if single else (message, f"write one of {due}")
        elif kind in _BOUNDS:
            name, words = _BOUNDS[kind]
            fix = words.format(context[name])
        elif kind == "value_error":
            message = one["msg"].removeprefix("Value error, ")  # our own words: all validators are in `text`
            fix = _OURS[message]
        elif kind == "string_pattern_mismatch":
            message, fix = _FORMS[context["pattern"]]
        yield Finding(path or "document", message, fix)


def _line_of(key: str, source: str) -> int | None:
    """The only line of a text on which a key is written."""
    written = re.compile(
        rf"""(?:^|[\s{{,.])["']?{re.escape(key)}["']?\s*(?:=|\.[^=]*=)|^\s*\[+.*\b{re.escape(key)}\b"""
    )
    found = [number for number, line in enumerate(source.splitlines(), start=1) if written.search(line)]
    return found[0] if len(found) == 1 else None


def _other_key(key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = nearest(key, names)
    return f"write {near}, if that is meant" if near else f"the keys here are {', '.join(names)}"


def _keys_at(model: type[BaseModel], steps: Iterable[int | str]) -> set[str]:
    """The keys that the table at a place may have."""
    here = model
    for step in steps:
        fields = {field.alias or name: field for name, field in here.model_fields.items()}
        inner = _table_in(fields[step].annotation) if isinstance(step, str) and step in fields else None
        here = inner or here
    return {field.alias or name for name, field in here.model_fields.items()}


def _table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _table_in(part))), None)


def _every_key(model: type[BaseModel]) -> frozenset[str]:
    """The keys of a table and of all tables in it."""
    fields = model.model_fields.items()
    tables = [table for _, field in fields if (table := _table_in(field.annotation)) is not None]
    return frozenset(field.alias or name for name, field in fields).union(*map(_every_key, tables))


_KEYS: Final = _every_key(text.AgreementText) | _every_key(text.RestrictionText)


def nearest(term: str, known: Iterable[str]) -> str | None:
    """The known term that was most likely meant; None if none is near."""
    plain = {_bare(name): name for name in known}
    found = get_close_matches(_bare(term[:LONGEST_TERM]), plain, n=1, cutoff=0.75)
    return plain[found[0]] if found else None


def _bare(term: str) -> str:
    return re.sub(r"[^a-z0-9]", "", term.lower())


def refused(path: str, message: str, fix: str) -> DocumentRefused:
    """The refusal of one finding."""
    return DocumentRefused([Finding(path, message, fix)])
