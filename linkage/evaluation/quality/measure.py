"""One measurement: the encoded run, the peer in clear beside it, and the figures of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Final

from linkage.evaluation.quality import clear, encoded
from linkage.evaluation.quality.clear import InClear
from linkage.evaluation.quality.encoded import Encoded
from linkage.evaluation.quality.groups import match_rates
from linkage.evaluation.quality.labelled import Labelled
from linkage.evaluation.quality.scores import clustered, score_of_persons, scores, sweep
from linkage.evaluation.quality.stages import Stages
from linkage.matching.blocking import KEYS, WIDE
from linkage.records import Profile

WIDE_PROFILE: Final[Profile] = next(profile for profile, keys in KEYS.items() if keys == WIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Both sides of one measurement; `clear` by name (`clear_text`, `clear_text_wide`), empty if not asked for."""

    labelled: Labelled
    profile: Profile
    encoded: Encoded
    clear: dict[str, InClear]
    body: dict[str, Any]  # what `--json` writes

    @property
    def peer_model(self) -> Mapping[str, Any] | None:
        """The model of the peer in clear, which neither blocking nor identifiers change; None if there is no peer."""
        return next((peer.model for peer in self.clear.values()), None)


def report(labelled: Labelled, profile: Profile, *, clear_text: bool) -> dict[str, Any]:
    """What `--json` writes: `evaluate`, and under `without_identifiers` the same again if there are identifiers."""
    first = measure(labelled, profile, clear_text=clear_text)
    body = first.body
    if labelled.has_identifiers:
        bare = labelled.without_identifiers()
        body["without_identifiers"] = measure(bare, profile, clear_text=clear_text, peer_model=first.peer_model).body
    return body


def evaluate(labelled: Labelled, profile: Profile, *, clear_text: bool) -> dict[str, Any]:
    """The figures of one measurement as plain data."""
    return measure(labelled, profile, clear_text=clear_text).body


def measure(
    labelled: Labelled, profile: Profile, *, clear_text: bool, peer_model: Mapping[str, Any] | None = None
) -> Measured:
    """Link the records encoded, and if asked for in clear: on the profile's blocking and on the wide one.

    `peer_model` saves training the peer, if these records have been measured before, with identifiers or without.

    `body` has the keys of design.md section 8, and: `linked`, what a broker would make of it with every rule; `sweep`,
    precision, recall and F1 by threshold; `blocking`, what each key finds; `groups`, rates by group; `model`.
    """
    import_module("sqlglot.dialects.duckdb")  # Splink would import it within a stage
    stages = Stages()
    ours = encoded.run(labelled, profile, stages)
    peers: dict[str, InClear] = {}
    if clear_text:
        for name, blocked_as in (("clear_text", profile), ("clear_text_wide", WIDE_PROFILE)):
            if peers and blocked_as == profile:  # the profile's own blocking is the wide one
                peers[name] = peers["clear_text"]
                continue
            peers[name] = clear.run(labelled, blocked_as, stages, name, model=peer_model)
            peer_model = peers[name].model
    sides = {"encoded": ours.compared, **{name: peer.compared for name, peer in peers.items()}}
    partitions = {
        name: [list(group) for group in clustered(labelled, compared).clusters()] for name, compared in sides.items()
    }
    body: dict[str, Any] = {
        "encoded": asdict(scores(labelled, ours.compared)),
        **{name: asdict(scores(labelled, peer.compared)) for name, peer in peers.items()},
        "linked": asdict(score_of_persons(labelled, ours.linked)),
        "blocking_recall": ours.blocking.recall,
        "candidate_pairs": ours.blocking.pairs,
        "records": len(labelled.truth),
        "true_pairs": labelled.true_pairs,
        "profile": profile,
        "stages": [asdict(stage) for stage in stages.done],
        "blocking": {
            "encoded": asdict(ours.blocking),
            **{name: asdict(peer.blocking) for name, peer in peers.items()},
        },
        "sweep": {name: [asdict(point) for point in sweep(labelled, compared)] for name, compared in sides.items()},
        "groups": match_rates(labelled, {**partitions, "linked": ours.linked}),
        "model": {
            "prior": ours.model.prior,
            "weights": {
                field: [round(weight, 4) for weight in ours.model.weights(field)] for field in ours.model.levels
            },
            "origin": dict(ours.model.origin),
        },
    }
    return Measured(labelled=labelled, profile=profile, encoded=ours, clear=peers, body=body)
