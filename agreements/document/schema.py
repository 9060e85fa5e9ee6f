"""The JSON Schemas of both kinds of document: their grammar, and the closed lists that their terms are of.

For editors: whoever writes is offered keys and terms.  What the loader checks beyond them is in its refusals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from agreements.document.declared import declared_tables
from agreements.document.text import AgreementText, RestrictionText
from agreements.vocabulary import RECORD, Vocabulary

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schemas(lists: Vocabulary) -> dict[str, Any]:
    """By kind: "agreement" and "restriction"."""
    agreement, restriction = AgreementText.model_json_schema(), RestrictionText.model_json_schema()
    titles = {"agreement": "A data sharing agreement, or an umbrella", "restriction": "What one agency holds back"}
    made = {}
    for kind, body in (("agreement", agreement), ("restriction", restriction)):
        tables = {kind: body, **body.get("$defs", {})}
        for table, properties in _terms(kind, lists).items():
            for name, terms in properties.items():
                for place in _of_strings(tables[table]["properties"][name]):
                    place["enum"] = sorted(terms)
        made[kind] = {"$schema": DIALECT, **_without_null(body), "title": titles[kind]}
    return made


def _without_null(schema: Any) -> Any:
    """A schema in which a key may be left out and never stands for nothing: TOML has no null, and no form is signed
    that has one."""
    if isinstance(schema, list):
        return [_without_null(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _without_null(value) for name, value in schema.items() if not (name == "default" and value is None)}
    some = [one for one in kept.get("anyOf", ()) if one != {"type": "null"}]
    if "anyOf" in kept and len(some) == 1:
        del kept["anyOf"]
        return {**some[0], **kept}
    return {**kept, "anyOf": some} if some else kept


def _of_strings(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Where a property says what its text, or an entry of its list, must be; null aside."""
    for one in schema.get("anyOf", [schema]):
        if one.get("type") in ("array", "string"):
            yield one.get("items", one)


def _terms(kind: str, lists: Vocabulary) -> dict[str, dict[str, Iterable[str]]]:
    """The closed list that each property is of, by table."""
    shareable = set(lists.shareable)
    held_back: dict[str, Iterable[str]] = {"for": lists.purposes, "categories": {RECORD, *shareable}}
    vocabulary: dict[str, Iterable[str]] = {"vocabulary": [lists.id]}
    if kind == "restriction":
        return {kind: {**held_back, **vocabulary}, "WhenText": {"tag": lists.tags}}
    modes = ("status", "summary", "detail", "aggregate")
    return {
        kind: vocabulary,
        "PartyText": {"discloses": {one.sector for one in lists.categories.values()}},
        "LimitText": held_back,
        "WhenText": {"tag": lists.tags},
        "ToText": {"roles": lists.roles},
        "BasisText": {
            "art6": [code for code, term in lists.art6.items() if "never_default" not in term.flags],
            "condition": lists.conditions,
            "gateway": lists.gateways,
            "le_authority": lists.le_authorities,
        },
        "GivenText": {"threshold": lists.thresholds},
        "DutyText": {"do": lists.duties, "after": lists.occasions},
        "BreakGlassText": {"notify": lists.notified},
        "StatisticsText": {"tables": declared_tables()},
        "DiscloseText": {"existence": {RECORD, *shareable}, **dict.fromkeys(modes, shareable)},
        "GrantText": {"for": lists.purposes, "but_not_for": lists.purposes, "about": lists.relations},
        "PurposeText": {"code": lists.purposes},
        "LegalText": {"purpose": lists.purposes, "categories": {RECORD, *shareable}},
        "FlowText": {"categories": shareable},
    }
