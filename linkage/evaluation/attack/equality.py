"""Equality structure alone: who shares a token with whom, beside who shares its plaintext in a register.

Tokens are hyperedges over records.  *Exact*: colour refinement (Weisfeiler and Leman 1968) of both sides, then records
whose colour occurs once on each side are matched; one missing person spoils the colours around them.  *Noise-tolerant*:
groups of records (people of one postcode, say) are matched by how many members they share a birth year and sex with;
the members of groups that fit best and by a margin vote on what each token means; the tokens thus read vote on who each
record is; and so on, as seeds grow in graph matching (Narayanan and Shmatikov 2009; Korula and Lattanzi 2014).
No filter is looked at, and no key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from linkage.evaluation.attack.bench import Bench, Target
from linkage.evaluation.attack.composite import matched_once
from linkage.evaluation.attack.plain import Plain
from linkage.evaluation.attack.population import MISSING, SEXES, Flags, Floats, Ints, People
from linkage.evaluation.attack.results import AttackResult

COLOUR_ROUNDS: Final = 6
VOTING_ROUNDS: Final = 12
LEVELS: Final = 3  # of one birth year and sex a group may hold so many that still tell
AGREED, LONELY = 3.0, 0.7  # nats for a member found on both sides, and against one found on one side
SEED_MARGIN: Final = 1.5  # nats between the best and the second-best group
LARGEST: Final = 400  # a class of more people is no evidence worth its cost
BLOCK: Final = 1_024
MARGIN: Final = 4.0  # bits between the best and the second-best person
LEAST: Final = 1.3  # members a group has on average, for groups to be compared: siblings at least
UNIQUE_FROM: Final = 3  # members; the kinds of two do not tell a group from others
SHOWN_AT: Final = 0.8
ACQUAINTED: Final = (0.0, 0.001, 0.01)  # shares of the children
Grid = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Side:
    """Records on one side: a code for each token (-1: none), and the kind of each record (birth year and sex; -1)."""

    tokens: Mapping[str, Ints]
    kind: Ints

    def __len__(self) -> int:
        return len(self.kind)


def equality(bench: Bench) -> Iterator[AttackResult]:
    """Exact and noise-tolerant, at each overlap, on all tokens and on the two that are plain equality."""
    target = bench.target()
    plain_tokens = tuple(name for name in ("dob", "postcode") if name in target.tokens)
    for overlap in bench.setting.overlaps:
        known = bench.register(target, overlap)
        for words, names in (("all tokens", target.tokens), (" and ".join(plain_tokens), plain_tokens)):
            if not names:
                continue
            mine, theirs = sides(target, known, names)
            for form, attack in (("exact", exact), ("noise-tolerant", tolerant)):
                yield bench.judge(
                    target, overlap, attack(mine, theirs), attack="equality", case=f"{form}, {words}",
                    knowledge="register with dates, postcodes, sex; which tokens are equal; birth year, sex",
                    clear=True,
                )  # fmt: skip

    yield from _fewer_clues(bench, target)


def _fewer_clues(bench: Bench, target: Target) -> Iterator[AttackResult]:
    """The same if birth year and sex were withheld, for one who knows a few of the children to begin with."""
    overlap = SHOWN_AT if SHOWN_AT in bench.setting.overlaps else bench.setting.overlaps[0]
    known = bench.register(target, overlap)
    mine, theirs = sides(target, known, target.tokens, clear=False)
    for share in ACQUAINTED[1:]:
        seeds = bench.acquaintances(target, overlap, round(share * len(target)))
        yield bench.judge(
            target, overlap, tolerant(*sides(target, known, target.tokens), seeds), attack="equality",
            case=f"all tokens, year and sex, {100 * share:g} % known",
            knowledge="register; which tokens are equal; birth year, sex; who some of the children are", clear=True,
        )  # fmt: skip
    for share in ACQUAINTED:
        count = round(share * len(target))
        seeds = bench.acquaintances(target, overlap, count)
        yield bench.judge(
            target, overlap, tolerant(mine, theirs, seeds), attack="equality",
            case=f"withheld year and sex, {100 * share:g} % known",
            knowledge=f"register with dates, postcodes; which tokens are equal; {count:,} children known to begin with",
        )  # fmt: skip


def sides(target: Target, known: People, names: Sequence[str], *, clear: bool = True) -> tuple[Side, Side]:
    """The target's tokens and the register's plaintexts of the same tokens; without `clear` all are of one kind."""
    plain = Plain(known)
    years = target.birth_year, np.where(known.born >= 0, known.born // 10_000, MISSING)
    kinds = [
        np.where(year >= 0, year * len(SEXES) + sex, MISSING) if clear else np.zeros(len(sex), np.int64)
        for year, sex in zip(years, (target.sex, known.sex), strict=True)
    ]
    return (
        Side({name: target.token(name) for name in names}, kinds[0]),
        Side({name: plain[name].index for name in names}, kinds[1]),
    )


# --- Exact -----------------------------------------------------------------------------------------------------------


def exact(mine: Side, theirs: Side) -> Ints:
    """A row of `theirs` for each row of `mine` whose refined colour occurs once on either side; else -1."""
    colours = [_coloured(side) for side in (mine, theirs)]
    return matched_once(colours[0][:, None].view(np.int64), colours[1][:, None].view(np.int64))


def _coloured(side: Side) -> npt.NDArray[np.uint64]:
    """The colour of each record: a hash of its kind and, round after round, of those it shares each token with."""
    colour = mixed(side.kind.astype(np.uint64))
    for _ in range(COLOUR_ROUNDS):
        fresh = mixed(colour)
        for at, codes in enumerate(side.tokens.values()):
            present = codes >= 0
            total = np.zeros(int(codes.max(initial=0)) + 1, np.uint64)
            np.add.at(total, codes[present], mixed(colour[present] + np.uint64(at)))  # order does not count
            of_record = np.full(len(side), 7 + at, np.uint64)
            of_record[present] = total[codes[present]]
            fresh = mixed(fresh ^ mixed(of_record + np.uint64(at * 7919)))
        colour = fresh
    return colour


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014): equal stays equal, all else looks random."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


# --- Noise-tolerant --------------------------------------------------------------------------------------------------


def tolerant(mine: Side, theirs: Side, seeds: tuple[Ints, Ints] | None = None) -> Ints:
    """A row of `theirs` for each row of `mine` that fits it best and by a margin; else -1.

    `seeds` are rows of both sides known to be the same people; without them groups are matched by their members' kinds.
    """
    pairs = seeds if seeds is not None else _seeds(mine, theirs)
    claims = np.full(len(mine), MISSING, np.int64)
    for _ in range(VOTING_ROUNDS):
        meaning = {name: _read(mine.tokens[name], theirs.tokens[name], *pairs) for name in mine.tokens}
        for name in meaning:
            _infer(mine, theirs, meaning, name)
        found = _fitted(mine, theirs, meaning)
        settled = np.array_equal(found, claims)
        claims = found
        if settled:
            break
        rows = np.flatnonzero(claims >= 0)
        pairs = (rows, claims[rows]) if len(rows) else pairs
    return claims


def _seeds(mine: Side, theirs: Side) -> tuple[Ints, Ints]:
    """Pairs of records from the groups that fit each other best, of one kind within them."""
    found: list[tuple[Ints, Ints]] = []
    for name in mine.tokens:
        here, there = mine.tokens[name], theirs.tokens[name]
        if not _tells(here):
            continue
        here, there = _of_size(here, UNIQUE_FROM), _of_size(there, UNIQUE_FROM - 1)
        if not (here >= 0).any() or not (there >= 0).any():
            continue
        groups = _matched_groups(_profile(here, mine.kind), _profile(there, theirs.kind))
        found.append(_members(here, mine.kind, there, theirs.kind, groups))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])


def _of_size(codes: Ints, least: int) -> Ints:
    """The codes of groups with at least so many members, numbered anew; all others missing."""
    present = codes >= 0
    if not present.any():
        return codes
    sizes = np.bincount(codes[present])
    number = np.full(len(sizes) + 1, MISSING, np.int64)
    kept = np.flatnonzero(sizes >= least)
    number[kept] = np.arange(len(kept))
    return np.asarray(number[codes], np.int64)


def _profile(codes: Ints, kind: Ints) -> tuple[Ints, Ints, Ints]:
    """Group, kind and count of each kind that a group holds."""
    present = (codes >= 0) & (kind >= 0)
    cells, counts = np.unique(np.column_stack([codes[present], kind[present]]), axis=0, return_counts=True)
    return cells[:, 0], cells[:, 1], counts


def _matched_groups(mine: tuple[Ints, Ints, Ints], theirs: tuple[Ints, Ints, Ints]) -> Ints:
    """For each group of mine the group of theirs that fits best, if it does so by a margin; else -1."""
    kinds = np.unique(np.concatenate([mine[1], theirs[1]]))
    left, right = (_levels(profile, kinds) for profile in (mine, theirs))
    sizes = right.sum(axis=1)
    best = np.full(len(left), MISSING, np.int64)
    margin = np.zeros(len(left), np.float32)
    for start in range(0, len(left), BLOCK):
        rows = left[start : start + BLOCK]
        common = rows @ right.T
        score = (AGREED + 2 * LONELY) * common - LONELY * (rows.sum(axis=1)[:, None] + sizes[None, :])
        top = score.argmax(axis=1)
        value = score[np.arange(len(rows)), top]
        score[np.arange(len(rows)), top] = -np.inf
        margin[start : start + BLOCK] = value - score.max(axis=1)
        best[start : start + BLOCK] = np.where(value > 0, top, MISSING)
    kept = (best >= 0) & (margin >= SEED_MARGIN)
    return np.where(kept, best, MISSING).astype(np.int64)


def _levels(profile: tuple[Ints, Ints, Ints], kinds: Ints) -> Grid:
    """Groups x (kind, level): 1 where the group holds at least so many, so that a product counts the common members."""
    groups, kind, counts = profile
    made = np.zeros((int(groups.max()) + 1, len(kinds) * LEVELS), np.float32)
    place = np.searchsorted(kinds, kind)
    for level in range(LEVELS):
        rows = counts > level
        made[groups[rows], place[rows] * LEVELS + level] = 1
    return made


def _members(here: Ints, my_kind: Ints, there: Ints, their_kind: Ints, groups: Ints) -> tuple[Ints, Ints]:
    """Pairs of records in matched groups that are the only ones of their kind in both."""
    rows = np.flatnonzero((here >= 0) & (my_kind >= 0))
    rows = rows[groups[here[rows]] >= 0]
    others = np.flatnonzero((there >= 0) & (their_kind >= 0))
    width = int(max(my_kind.max(), their_kind.max())) + 1
    claims = matched_once(
        (groups[here[rows]] * width + my_kind[rows])[:, None], (there[others] * width + their_kind[others])[:, None]
    )
    made = claims >= 0
    return rows[made], others[claims[made]]


def _read(here: Ints, there: Ints, rows: Ints, others: Ints) -> Ints:
    """What each token code means: the plaintext with twice as many votes of pairs as any other; else -1."""
    meaning = np.full(int(here.max(initial=-1)) + 2, MISSING, np.int64)  # the last serves missing
    voting = (here[rows] >= 0) & (there[others] >= 0)
    if not voting.any():
        return meaning
    votes, counts = np.unique(np.column_stack([here[rows[voting]], there[others[voting]]]), axis=0, return_counts=True)
    order = np.lexsort((-counts, votes[:, 0]))
    votes, counts = votes[order], counts[order]
    first = np.r_[True, votes[1:, 0] != votes[:-1, 0]]
    starts = np.flatnonzero(first)
    second = np.zeros(len(starts), np.int64)
    more = starts + 1 < np.r_[starts[1:], len(votes)]
    second[more] = counts[starts[more] + 1]
    clear = counts[starts] >= 2 * second
    clear &= counts[starts] > second
    meaning[votes[starts[clear], 0]] = votes[starts[clear], 1]
    return meaning


def _infer(mine: Side, theirs: Side, meaning: dict[str, Ints], name: str) -> None:
    """Read more codes of one token by who its bearers may be: two whose dates are known can only be in one postcode.

    A member's candidates are those of the register who share what else of it has been read; each speaks for its own
    plaintext with the bits that weighs.  A code is read if at least two members agree, and by a margin.
    """
    here, there = mine.tokens[name], theirs.tokens[name]
    if not _tells(here):
        return
    unread = (here >= 0) & (meaning[name][here] < 0)
    row, other, score = _pairs(mine, theirs, {key: read for key, read in meaning.items() if key != name}, unread)
    kept = there[other] >= 0
    row, other, score = row[kept], other[kept], score[kept]
    if not len(row):
        return
    width = int(there.max()) + 1
    by_member = row * width + there[other]  # one vote of a member for a plaintext, however many candidates bear it
    order = np.lexsort((-score, by_member))
    first = np.r_[True, by_member[order][1:] != by_member[order][:-1]]
    row, other, score = row[order][first], other[order][first], score[order][first]
    votes, index, members = np.unique(here[row] * width + there[other], return_inverse=True, return_counts=True)
    total = np.bincount(index, weights=score).astype(np.float64)
    code, plain = votes // width, votes % width
    best, second = _best_two(code, total)
    sure = (members[best] >= 2) & (total[best] >= np.log2(width) + MARGIN) & (total[best] - second >= MARGIN)
    meaning[name][code[best[sure]]] = plain[best[sure]]


def _best_two(group: Ints, score: Floats) -> tuple[Ints, Floats]:
    """For each group: where its best score is, and the second-best score (0 if there is none)."""
    order = np.lexsort((-score, group))
    begins = np.flatnonzero(np.r_[True, group[order][1:] != group[order][:-1]])
    second = np.zeros(len(begins))
    more = begins + 1 < np.r_[begins[1:], len(order)]
    second[more] = score[order[begins[more] + 1]]
    return order[begins], second


def _fitted(mine: Side, theirs: Side, meaning: Mapping[str, Ints]) -> Ints:
    """Who each record is: the person of its kind whose read tokens weigh most, if by a margin; else -1."""
    need = np.log2(max(2, len(theirs))) - np.log2(max(1, len(np.unique(mine.kind))))
    claims = np.full(len(mine), MISSING, np.int64)
    row, other, score = _pairs(mine, theirs, meaning, np.ones(len(mine), bool))
    if not len(row):
        return claims
    best, second = _best_two(row, score)
    sure = (score[best] >= need) & (score[best] - second >= MARGIN)
    claims[row[best[sure]]] = other[best[sure]]
    scores = np.zeros(len(mine))
    scores[row[best]] = score[best]
    return _one_to_one(claims, scores)


def _pairs(mine: Side, theirs: Side, meaning: Mapping[str, Ints], asked: Flags) -> tuple[Ints, Ints, Floats]:
    """Pairs of a record asked for and a person of its kind with what they share, in bits over all tokens read."""
    keys: list[Ints] = [np.zeros(0, np.int64)]
    weights: list[Floats] = [np.zeros(0)]
    for name, read in meaning.items():
        of_row = np.where(asked, read[mine.tokens[name]], MISSING)
        row, other, weight = _candidates(of_row, theirs.tokens[name], len(theirs))
        same = (mine.kind[row] == theirs.kind[other]) | (mine.kind[row] < 0) | (theirs.kind[other] < 0)
        keys.append(row[same] * len(theirs) + other[same])
        weights.append(weight[same])
    pairs, index = np.unique(np.concatenate(keys), return_inverse=True)
    score = np.bincount(index, weights=np.concatenate(weights), minlength=len(pairs)).astype(np.float64)
    return pairs // len(theirs), pairs % len(theirs), score


def _candidates(read: Ints, there: Ints, people: int) -> tuple[Ints, Ints, Floats]:
    """Pairs of a record and a person whose plaintext its token is read as, and the bits that weighs."""
    sizes = np.bincount(there[there >= 0], minlength=int(max(read.max(initial=0), there.max(initial=0))) + 1)
    order = np.argsort(there, kind="stable")
    order = order[there[order] >= 0]
    begins = np.cumsum(sizes) - sizes
    rows = np.flatnonzero(read >= 0)
    size = sizes[read[rows]]
    rows, size = rows[(size > 0) & (size <= LARGEST)], size[(size > 0) & (size <= LARGEST)]
    row = np.repeat(rows, size)
    within = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
    other = order[begins[read[row]] + within]
    return row, other, np.repeat(np.log2(people / size), size)


def _one_to_one(claims: Ints, scores: Floats) -> Ints:
    """Where several records claim one person, only the best keeps them."""
    rows = np.flatnonzero(claims >= 0)
    order = rows[np.lexsort((-scores[rows], claims[rows]))]
    again = np.r_[False, claims[order][1:] == claims[order][:-1]][: len(order)]
    claims[order[again]] = MISSING
    return claims


def _tells(codes: Ints) -> bool:
    """Whether groups of these codes are of a size that members can speak for: a postcode's, not a surname's."""
    present = int((codes >= 0).sum())
    groups = len(np.unique(codes[codes >= 0]))
    return groups > 0 and LEAST <= present / groups <= 100
