"""A family view in a terminal, in the order of the page: the answer before the explanation."""

from __future__ import annotations

import textwrap
from typing import Any

WIDTH = 100


def search(answer: dict[str, Any]) -> None:
    """What the search found, in words."""
    for candidate in answer["candidates"]:
        agreed = ", ".join(field.replace("_", " ") for field in candidate["agreed"])
        print(f"{candidate['band'].capitalize()}: born {candidate['birth_year']}; {agreed} agree.")


def family_view(view: dict[str, Any]) -> None:
    """One child: whom to ring, who knows the child, the family, the chronology."""
    rule()
    print(view["first_call"]["sentence"])
    rule()
    person = view["person"]
    print(f"One child, born {person['birth_year']}. Link: {person['band']}.  Purpose: {view['purpose']}.")
    print(textwrap.fill(view["banner"], WIDTH))
    print("\nWho knows this child")
    for tile in view["tiles"]:
        late = "" if tile["state"] == "CURRENT" else f"  [{tile['state']}]"
        desk = f"  Ring {tile['contact']['name']}, {tile['contact']['phone']}" if tile["contact"] else ""
        print(f"  {tile['name']}, {tile['flow'].replace('_', ' ')}: up to {tile['as_of'][:10]}{late}{desk}")
        for shown in tile["categories"]:
            status = f": {shown['status']['label']}" if shown["status"] else ""
            unconfirmed = "  (unconfirmed: check with the agency)" if shown["unconfirmed"] else ""
            print(f"      {shown['label']}{status}; last active {shown['last_active']}{unconfirmed}")
    for other in view["others"]:
        print(f"  {other['name']}, {other['flow'].replace('_', ' ')}: {other['sentence']}")
    if view["family"]:
        print("\nFamily")
        for member in view["family"]:
            words = member["relation"].replace("_", " ").capitalize()
            how = "verified" if member["verified"] else "stated"
            print(f"  {words}, born {member['birth_year']}, known to {member['known_to']}; {how}")
    if view["chronology"]:
        print("\nChronology")
        for entry in view["chronology"][:10]:
            print(f"  {entry['date']}  {entry['name']}: {entry['label']} ({entry['about'].replace('_', ' ')})")


def to_consider(items: list[dict[str, Any]]) -> None:
    """What a holder is to consider: its own record, who asked, and what little was missing."""
    rule()
    print("To consider sharing")
    for item in items:
        print(
            textwrap.fill(
                f"Record {item['record_ref']}, {item['flow']}: {item['sentence']}", WIDTH, subsequent_indent="    "
            )
        )
        print(
            textwrap.fill(", ".join(item["categories"]), WIDTH, initial_indent="    for ", subsequent_indent="        ")
        )
        if item["asker"]["contact"]:
            print(f"    Ring {item['asker']['contact']['name']}, {item['asker']['contact']['phone']}")


def refusals(listed: list[dict[str, Any]]) -> None:
    """What was not shown, and what would unlock it: each reason of an organisation once."""
    rule()
    print("Not shown to you")
    kinds: dict[tuple[str, str, str, str], list[str]] = {}
    for refusal in listed:
        said = (refusal["organisation"], refusal["code"], refusal["sentence"], refusal["unlock"] or "")
        kinds.setdefault(said, []).append(refusal["category"] or "everything")
    for (organisation, code, sentence, unlock), categories in kinds.items():
        print(textwrap.fill(f"{organisation}: {sentence} [{code}]", WIDTH, subsequent_indent="    "))
        print(textwrap.fill(", ".join(categories), WIDTH, initial_indent="    for ", subsequent_indent="        "))
        if unlock:
            print(
                textwrap.fill(f"Would be unlocked by {unlock}.", WIDTH, initial_indent="    ", subsequent_indent="    ")
            )


def rule() -> None:
    """A line across."""
    print("-" * WIDTH)
