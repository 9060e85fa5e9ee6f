"""All that a route may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request

from broker import callers, clock, signin
from broker.callers import Caller
from broker.errors import Malformed, NotSignedIn
from broker.keys import Keys
from broker.settings import Settings
from broker.store import Store
from broker.tokens import Tokens
from broker.trail import Trail
from broker.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """What one running broker is made of.  `parts` holds what a router's own worker keeps (the index in service)."""

    settings: Settings
    store: Store
    keys: Keys
    vault: Vault
    tokens: Tokens
    trail: Trail
    parts: dict[str, Any] = field(default_factory=dict)
