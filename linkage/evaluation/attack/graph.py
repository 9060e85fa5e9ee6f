"""Graph matching: whose encodings are these, by nothing but how alike they are to one another.

The attacker encodes a register in clear under keys of its own and lays the graph of that over the graph in the vault.
`graph` is ours (`graph_matching`); `graph_published` follows the papers (`graph_embedding`).  `control_graph` is
`graph` on filters without salt and diffusion, where it must succeed, or the other figures prove nothing.

Populations: `households` are whole families with the errors of the register; `random` are people drawn from twenty
times as many, so that few share a family or a postcode; `shuffled` keeps families but deals their members' postcodes
out at random.  `+ year, sex` also reads the two columns that lie in clear beside the encodings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Final

import numpy as np

from linkage.evaluation.attack.bench import Bench, Target, blinded, fresh_keys, wire
from linkage.evaluation.attack.graph_controls import control_encodings
from linkage.evaluation.attack.graph_embedding import match_embeddings
from linkage.evaluation.attack.graph_encodings import Encodings, Ints, Side, averaged, from_target, side
from linkage.evaluation.attack.graph_matching import learn, match_graphs
from linkage.evaluation.attack.population import Errors, People
from linkage.evaluation.attack.results import AttackResult
from linkage.records import Profile

FORMS: Final = (True, False)
"""Whether sizes of groups are read beside likeness: each is right where the other is not, so the worse is shown."""
OWN_KEYS: Final = 2  # keys of its own that the attacker encodes its register under
DRAWN_FROM: Final = 20  # random people are drawn from so many times as many

Encode = Callable[[People, int], Encodings]
"""Encodings of people under the key of that number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One population, and whether the columns in clear are read."""

    name: str
    people: str  # "households", "random" or "shuffled"
    clear: bool = False

    @property
    def knowledge(self) -> str:
        """What the attacker knows, in words."""
        beside = "; birth year and sex read" if self.clear else ""
        return f"register in clear, the public construction, own keys{beside}"


CASES: Final = (
    Case(name="households", people="households"),
    Case(name="households + year, sex", people="households", clear=True),
    Case(name="random", people="random"),
    Case(name="shuffled", people="shuffled"),
)


def graph(bench: Bench) -> Iterator[AttackResult]:
    """Seeds and extension in every case at every overlap; then the control at the largest."""
    for case in CASES:
        target = _target(bench, case)
        vault = from_target(target)
        for overlap in bench.setting.overlaps:
            forms = [_judged(bench, case, target, vault, overlap, sizes=sizes) for sizes in FORMS]
            yield max(forms, key=lambda result: result.right)
    yield _control(bench, max(bench.setting.overlaps))


def graph_families(bench: Bench) -> Iterator[AttackResult]:
    """The first case alone, for populations of which every case would take too long."""
    case = CASES[0]
    target = _target(bench, case)
    for overlap in bench.setting.overlaps:
        made = _judged(bench, case, target, from_target(target), overlap, sizes=True)
        yield replace(made, attack="graph_families")


def _judged(bench: Bench, case: Case, target: Target, vault: Encodings, overlap: float, *, sizes: bool) -> AttackResult:
    setting = bench.setting
    claims = reidentify(
        vault.clear(kept=case.clear), bench.register(target, overlap), own_encoder(setting.profile, clear=case.clear),
        overlap=overlap, errors=setting.errors, seed=setting.seed, sizes=sizes,
    )  # fmt: skip
    return bench.judge(
        target, overlap, claims, attack="graph", case=case.name, knowledge=case.knowledge, clear=case.clear,
        note="with sizes of groups" if sizes else "by likeness alone",
    )  # fmt: skip


def _control(bench: Bench, overlap: float) -> AttackResult:
    target = bench.target()
    seed = bench.setting.seed
    claims = reidentify(
        control_encodings(target.truth, key=b"the agencies'"), bench.register(target, overlap), control_encoder(),
        overlap=overlap, errors=bench.setting.errors, seed=seed,
    )  # fmt: skip
    return bench.judge(
        target, overlap, claims, attack="control_graph", case="unsalted, undiffused", knowledge=CASES[0].knowledge,
        note="not a profile: shows that the attack works where it should",
    )  # fmt: skip


def graph_published(bench: Bench) -> Iterator[AttackResult]:
    """The published form on whole households, beside the same on unsalted, undiffused filters."""
    target, seed = bench.target(), bench.setting.seed
    for attack, case, vault, encode in (
        ("graph_published", "households", from_target(target), own_encoder(bench.setting.profile)),
        (
            "control_graph_published", "unsalted, undiffused", control_encodings(target.truth, key=b"the agencies'"),
            control_encoder(),
        ),
    ):  # fmt: skip
        for overlap in bench.setting.overlaps:
            known = bench.register(target, overlap)
            own = encode(known, seed * 1_000)
            with one_thread():
                claims = match_embeddings(vault, own, seed=seed)
            yield bench.judge(
                target, overlap, claims, attack=attack, case=case, knowledge="register in clear, the construction",
                note="not a profile" if attack.startswith("control") else "",
            )  # fmt: skip


def _target(bench: Bench, case: Case) -> Target:
    """The population of a case, encoded under the agencies' key."""
    seed, count = bench.setting.seed, bench.setting.children
    if case.people == "households":
        return bench.target()
    rng = np.random.default_rng([seed, 11])
    if case.people == "random":
        many = bench.population(DRAWN_FROM * count)
        return bench.encoded(many.take(rng.permutation(len(many))[:count]))
    people = bench.population()
    return bench.encoded(replace(people, postcode=people.postcode[rng.permutation(len(people))]))


def own_encoder(profile: Profile, *, clear: bool = False) -> Encode:
    """What the attacker does to its register: the public construction under keys of its own."""

    def encode(people: People, number: int) -> Encodings:
        made = wire(people, fresh_keys(number, "the attacker's"), profile)
        return from_target(Target(profile=profile, wire=made, truth=blinded(people))).clear(kept=clear)

    return encode


def control_encoder(*, hashes: int = 10, diffusion: int = 0) -> Encode:
    """The same for filters without salt."""
    return lambda people, number: control_encodings(
        people, key=b"the attacker's %d" % number, hashes=hashes, diffusion=diffusion
    )


def reidentify(
    vault: Encodings, known: People, encode: Encode, *, overlap: float, errors: bool, seed: int, sizes: bool = True
) -> Ints:
    """For each record of the vault a row of `known`, -1 for no claim.

    `sizes`: how many share a token is read, too.  `overlap` and whether the register has errors are what the attacker
    is taken to know of its own sources.
    """
    encoded = [encode(known, seed * 1_000 + number) for number in range(OWN_KEYS)]
    kept = min(0.98, overlap) * (1 - _wrong(Errors()) if errors else 1.0)
    with one_thread():
        learned = learn(_simulations(encoded, overlap, np.random.default_rng([seed, 13]), sizes=sizes))
        own = averaged([side(of_key, sizes=sizes) for of_key in encoded])
        return match_graphs(side(vault, sizes=sizes), own, learned, overlap=kept).claims


def one_thread() -> AbstractContextManager[object]:
    """Matrix products in one thread, where `threadpoolctl` is installed.

    On a busy machine threads that wait for one another cost thirty times the work itself.
    """
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    limits: AbstractContextManager[object] = import_module("threadpoolctl").threadpool_limits(limits=1)
    return limits


def _wrong(errors: Errors) -> float:
    return 2 * (errors.typed + errors.other_name) / 2 + errors.date + errors.moved + errors.missing


def _simulations(
    encoded: list[Encodings], overlap: float, rng: np.random.Generator, *, sizes: bool = True
) -> Iterator[tuple[Side, Side, Ints, Ints]]:
    """Two parts of the register under two keys, which share as much as the register shares with the vault."""
    size = len(encoded[0])
    part = int(size / (2 - overlap))
    for one, other in pairwise(encoded):
        order = rng.permutation(size)
        left, right = order[:part], order[size - part :]
        both = np.intersect1d(left, right)
        place = np.full(size, -1, np.int64)
        place[left] = np.arange(part)
        there = np.full(size, -1, np.int64)
        there[right] = np.arange(part)
        yield side(one.take(left), sizes=sizes), side(other.take(right), sizes=sizes), place[both], there[both]
