"""`mapping.toml`: how an extract becomes a batch (design.md section 4).  Read strictly; an error names the key."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from pathlib import Path


class BadMapping(ValueError):
    """A mapping can't be used: the message names the key, what is wrong and how to put it right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file, which of its columns is which field, the formats of its dates and its own codes in our words."""

    file: Path | None
    columns: Dict[str, str]  # canonical field -> the extract's column
    formats: Dict[str, str] = field(default_factory=dict)
    values: Dict[str, Dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Persons(Source):
    role: str = "child"
    duplicates: bool = False
    default_dates: frozenset[str] = frozenset()  # "MM-DD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Items(Source):
    category: str
    constants: Dict[str, str] = field(default_factory=dict)  # what every row of the block has


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A mapping, valid once built.  `file`s are absolute."""

    agency: str
    flow: str
    agreements: tuple[str, ...]
    persons: Persons
    relationships: Source | None
    items: tuple[Items, ...]
    max_bad_share: float = 0.01
    communal_uprns: frozenset[str] = frozenset()
    communal_over: int = 12  # more persons than this at one UPRN: communal


def load(path: Path, *, persons_only: bool = False) -> Mapping:
    """Read a mapping.  With `persons_only` (evaluation) all but `[persons]` may be missing.  Raises BadMapping."""
    raise NotImplementedError
