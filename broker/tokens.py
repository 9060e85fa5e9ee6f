"""Machine tokens, in the one module that knows python-jose."""

from __future__ import annotations


class Tokens:
    """Verifies client assertions, gateway assertions and access tokens; issues access tokens."""
