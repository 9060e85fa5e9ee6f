"""What an auditor proves, from a folder that mirrors the public log, a policy file, and what was kept last time.

Each function returns what it found to be so, or raises a `Finding` whose class says what kind of no it is: `Broken`
(somebody changed something; the evidence is in it), `Unreadable` (a file can't be read, which proves nothing),
`NoQuorum`, `Stale`.  A tile is never trusted by itself: every yes ends in a proof against a signed root, or in the root
computed anew from the entries up.

`consistency` in steps, after sigstore's habit of numbering them:
1. the folder's checkpoint is signed by a log of the policy, under its newest key (or a quorum vouches for it), and that
   is the key that signed before, or one that that key handed over to (`audit.rotation`);
2. the folder's tiles hash to its root;
3. it is not smaller than the kept one, and it begins with it;
4. a quorum of witnesses signed it, or the folder's `checkpoint.witnessed`, with which it begins (witnesses sign once a
   minute or so, and the log grows by the second);
5. it is not older than asked for.
What the caller MUST do: hand the policy over out of band, and keep the new checkpoint if, and only if, all is well.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from audit.checkpoint import NoteInvalid, SignedCheckpoint, VerifierKey
from audit.events import InvalidEvent, Json, leaf_ms
from audit.folder import (
    HISTORY,
    TO_WITNESS,
    WITNESSED,
    Broken,
    Finding,
    LogFolder,
    NoQuorum,
    Reading,
    Stale,
    Unreadable,
)
from audit.merkle import (
    ProofInvalid,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from audit.policy import Policy, QuorumMissing
from audit.rebuilt import Rebuilt
from audit.receipts import LogReceipt, ReceiptInvalid
from audit.rotation import HistoryInvalid, Milestone, follow, parse, retired, signers
from audit.tiles import ENTRIES, TILE_WIDTH, Tile, TileHashes, TileReader, decode_bundle
from audit.witness import FORGOTTEN, Refused, Witness

NEWER_POLICY: Final = (
    " (has the log turned to another year, or begun anew, since your policy was handed out? Ask whoever gave it to you)"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found to be so.  `note` is the checkpoint to keep; `facts` say it to people and programs."""

    note: str
    facts: Mapping[str, Json]


def inclusion(
    receipt: LogReceipt, policy: Policy, log: LogFolder | None = None, others: Sequence[LogFolder] = ()
) -> Seen:
    """The event, as opened, is in the log, under a checkpoint that meets the policy.

    With a folder, also: the folder's log is the one the receipt was given for, and holds the leaf at its place; and a
    quorum may have signed either checkpoint, since a receipt leaves before witnesses have signed.  Without one, the
    receipt's own checkpoint must have the quorum, or where none is asked for, the log's newest key.  A folder older
    than the receipt is Stale; Broken, if one of `others`, a log that followed it, says that the entry was lost.

    The policy names a log no more whose key was compromised.  What it held before that, the log among `others` vouches
    for that followed it and cites it; the rest is to be doubted: Unreadable.
    """
    origin = receipt.proof.signed.checkpoint.origin
    folders = {_origin(each.note()): each for each in (*others, *((log,) if log is not None else ()))}
    if not _named(origin, policy):
        trusted = [_checked(each, policy) for name, each in folders.items() if _named(name, policy)]
        frozen = _frozen(trusted, folders, policy).get(origin)
        if frozen is not None:
            return _vouched_for(receipt, frozen, folders.get(origin), policy)
    _proves_itself(receipt, policy)
    if log is None:
        best = receipt.proof.signed
        _quorum(policy, best)
        if not _vouched(policy, best):
            raise Unreadable(
                "the log has a newer key than the receipt's: only its folder (--log) shows whether it holds"
            )
    else:
        after = [_checked(each, policy) for each in others if _named(_origin(each.note()), policy)]
        best = _included(receipt, policy, _checked(log, policy), _losses(after))
    return Seen(best.note, {**_facts(best, policy), "event_id": receipt.event_id, "index": receipt.proof.index})


def consistency(
    log: LogFolder,
    policy: Policy,
    kept: str | None,
    *,
    now_s: int,
    max_age_s: int | None = None,
    quorum: bool = True,
) -> Seen:
    """The log has only grown since `kept`, the note that was kept last time (None: nothing was; this is the first).

    The age asked for by `max_age_s` is that of the newest sign of life: a witness's time, or that of the last leaf.
    `quorum` False: whoever cosigns does not wait for the others.
    """
    checked = _checked(log, policy, since=kept)
    newest = checked.newest
    before = _grown(policy, kept, newest, checked.tiles)
    witnessed = _witnessed(checked, policy)
    if quorum and witnessed is None:
        _quorum(policy, newest)
    facts = _facts(witnessed or newest, policy) | _facts(newest, policy, only=("size", "root"))
    facts["witnessed"] = None if witnessed is None or policy.quorum is None else witnessed.checkpoint.size
    if max_age_s is not None:
        signs = () if witnessed is None else policy.accept(witnessed).cosigned.values()
        life = max([*signs, _last_leaf_s(log, newest, checked.tiles)])
        facts["age_s"] = now_s - life
        if now_s - life > max_age_s:
            raise Stale(f"the last sign of life is {now_s - life} s old, more than {max_age_s} s")
    return Seen(newest.note, {**facts, "grown_from": before})


def cosign(log: LogFolder, policy: Policy, witness: Witness, *, at_s: int) -> SignedCheckpoint:
    """The checkpoint that the log puts before its witnesses, with the log's own lines and this witness's.

    It has grown from what this key cosigned last, and the folder's newest checkpoint from it; where the folder has none
    for witnesses, or one older than what the key has cosigned or than the log's key, it is the newest.  On return the
    key remembers it.
    """
    checked = _checked(log, policy)
    origin = checked.newest.checkpoint.origin
    try:
        kept = witness.kept(origin)
        if kept is not None:
            _not_smaller(checked.newest, kept)
        asked = checked.newest
        if log.has(TO_WITNESS):
            due = _beside(checked, policy, TO_WITNESS)
            if policy.signed_by_newest(due) and (kept is None or due.checkpoint.size >= kept.checkpoint.size):
                asked = due
        size = asked.checkpoint.size
        line = witness.cosign(asked, lambda old: _proof(checked, old, size), at_s=at_s)
    except Refused as refused:
        evidence = {"checkpoint": checked.newest.note} | (
            {"checkpoint.kept": refused.kept.note} if refused.kept is not None else {}
        )
        raise (Unreadable if refused.status == FORGOTTEN else Broken)(str(refused), evidence) from None
    own = tuple(each for each in asked.signatures if each.name == origin)
    return SignedCheckpoint(asked.checkpoint, (*own, line))


def gossip(heard: Mapping[str, str], log: LogFolder, policy: Policy) -> dict[str, Finding]:
    """Checkpoints that others were shown, held against the folder's; those of one log with it are not in the answer.

    Broken: the log's key signed two trees, and both notes are the evidence.  Stale: they were shown more than the
    folder holds.  Unreadable: it is no checkpoint that the log signed, which proves nothing against it.
    """
    checked = _checked(log, policy)
    wrong: dict[str, Finding] = {}
    for name, note in heard.items():
        try:
            _one_tree(note, checked, policy)
        except Finding as finding:
            wrong[name] = finding
    return wrong


def last_leaf_s(log: LogFolder, policy: Policy, size: int) -> int:
    """When the last of the first `size` entries was written, in unix seconds, proved against the folder's root."""
    checked = _checked(log, policy)
    if checked.newest.checkpoint.size < size:
        raise Stale(f"the folder has {checked.newest.checkpoint.size} leaves, fewer than {size}: fetch the log again")
    return _leaf_s(log, checked.newest, checked.tiles, size - 1)


def fsck(log: LogFolder, policy: Policy, kept: str | None = None) -> Seen:
    """Every bundle, tile and checkpoint, hashed anew from the entries up.  Names each file that is not as it should be.

    The whole folder is gone through before anything is raised: what the log published of itself (`history`) and the
    checkpoints beside its newest too.  Files of a later size than the checkpoint are passed over, and counted.
    """
    newest = _folder_checkpoint(log, policy, since=kept, hashed=False)
    before = None if kept is None else _kept(policy, kept, newest)
    rebuilt = Rebuilt(log, newest.checkpoint.size, 0 if before is None else before.checkpoint.size)
    rebuilt.run()
    found, unreadable, evidence = list(rebuilt.altered), list(rebuilt.unreadable), _notes(newest, before)
    if rebuilt.complete and newest.checkpoint.root != rebuilt.root:
        found.append("checkpoint: the entries do not hash to its root")
    if rebuilt.complete and before is not None and rebuilt.kept_root != before.checkpoint.root:
        found.append(f"history was rewritten: the first {before.checkpoint.size} entries are not those that were kept")
    checked = _Checked(log, newest, TileHashes(log, newest.checkpoint.size))
    whole = not found and not unreadable
    for finding in _beside_findings(checked, policy, whole=whole):
        (found if isinstance(finding, Broken) else unreadable).append(str(finding))
        evidence |= {name: text for name, text in finding.evidence.items() if name not in evidence}
    if found:
        raise Broken("; ".join(found + unreadable), evidence)
    if unreadable:
        raise Unreadable("; ".join(unreadable))
    if _witnessed(checked, policy) is None:
        _quorum(policy, newest)
    facts = _facts(newest, policy)
    facts |= {"entries": newest.checkpoint.size, "files": rebuilt.files, "beyond": len(rebuilt.beyond)}
    return Seen(newest.note, facts)


def _beside_findings(checked: _Checked, policy: Policy, *, whole: bool) -> Iterator[Finding]:
    """What is wrong with the files beside the folder's checkpoint.

    Not `whole`: tiles or entries are not as they should be, so against them nothing more is held.
    """
    for name in (WITNESSED, TO_WITNESS):
        if checked.log.has(name):
            try:
                _beside(checked, policy, name, proved=whole)
            except Finding as finding:
                yield finding
    if checked.log.has(HISTORY):
        try:
            _history(checked, proved=whole)
        except Finding as finding:
            yield finding


def _history(checked: _Checked, *, proved: bool) -> None:
    """What the log published of itself is in the log: each entry opened as its leaf commits to it."""
    told = checked.log.history()
    try:
        milestones = parse(told, checked.newest.checkpoint.origin)
    except HistoryInvalid as fault:
        raise Broken(f"the folder's history proves nothing: {fault}", {HISTORY: told}) from None
    for milestone in milestones if proved else ():
        if milestone.receipt.size <= checked.newest.checkpoint.size:
            try:
                _holds(milestone.receipt, checked.newest, checked.log, checked.tiles)
            except Broken as finding:
                raise Broken(f"the folder's history is not this log's: {finding}", {HISTORY: told}) from None


def receipts(
    kept: Mapping[str, LogReceipt], logs: Sequence[LogFolder], policy: Policy, states: Sequence[str] = ()
) -> dict[str, Finding]:
    """Each receipt against the newest checkpoint of its log, by name; those that hold are not in the answer.

    Broken too: what a log that followed another says was lost of that one.  Of a log whose key was compromised, and
    that the policy names no more, as `inclusion` says.  Raises as `consistency` does if a log itself is not a growth of
    its state among `states`.
    """
    by_origin: dict[str, _Checked] = {}
    unnamed: dict[str, LogFolder] = {}
    for log in logs:
        if not _named(_origin(log.note()), policy):
            unnamed[_origin(log.note())] = log
            continue
        state = next((one for one in states if log.note().startswith(one.partition("\n")[0] + "\n")), None)
        if len(logs) == 1 and states:
            state = states[0]
        checked = _checked(log, policy, since=state)
        _grown(policy, state, checked.newest, checked.tiles)
        by_origin[checked.newest.checkpoint.origin] = checked
    losses, frozen = _losses(by_origin.values()), _frozen(by_origin.values(), unnamed, policy)
    for origin, log in unnamed.items():
        if origin not in frozen:
            _checked(log, policy)  # nobody vouches for it, and that says so
    wrong: dict[str, Finding] = {}
    for name, receipt in kept.items():
        origin = receipt.proof.signed.checkpoint.origin
        try:
            if origin in frozen:
                _vouched_for(receipt, frozen[origin], unnamed.get(origin), policy)
                continue
            _proves_itself(receipt, policy)
            beside = by_origin.get(origin)
            if beside is None:
                _not_lost(receipt, losses)
                raise Unreadable("the receipt is of another log than the folder")
            _included(receipt, policy, beside, losses)
        except Finding as finding:
            wrong[name] = finding
    return wrong


@dataclass(frozen=True, slots=True)
class _Checked:
    """A folder's log: its newest checkpoint, signed as the policy says, and the tiles that hash to it."""

    log: LogFolder
    newest: SignedCheckpoint
    tiles: TileHashes


def _checked(log: LogFolder, policy: Policy, *, since: str | None = None) -> _Checked:
    newest = _folder_checkpoint(log, policy, since=since)
    return _Checked(log, newest, TileHashes(log, newest.checkpoint.size))


def _proves_itself(receipt: LogReceipt, policy: Policy) -> None:
    _signed(policy, receipt.proof.signed, "the receipt's checkpoint")
    _whole(receipt)


def _whole(receipt: LogReceipt) -> None:
    """What was opened is what the leaf commits to, in the tree of the receipt's checkpoint, whoever signed that."""
    try:
        receipt.verify_itself()
    except ReceiptInvalid as fault:
        raise Broken(f"the receipt proves nothing: {fault}", {"receipt.json": receipt.dumps()}) from None


@dataclass(frozen=True, slots=True)
class _Loss:
    """What a log's first entry says was lost of the log before it: all from entry `held` on.  `when`: as it says so."""

    held: int
    when: str
    told_by: str
    history: str


def _losses(logs: Iterable[_Checked]) -> dict[str, _Loss]:
    """By the origin of the log that lost them, as far as the folders' histories, held against their logs, say."""
    found: dict[str, _Loss] = {}
    for checked in logs:
        for each in _milestones(checked):
            follows, held = each.what.get("follows"), each.what.get("held")
            if each.type == "log.discontinuity" and isinstance(follows, Mapping) and isinstance(held, int):
                when = datetime.fromtimestamp(each.receipt.proof.leaf.at_ms // 1000, UTC).isoformat()
                by = checked.newest.checkpoint.origin
                found[str(follows.get("origin"))] = _Loss(held, when, by, checked.log.history())
    return found


@dataclass(frozen=True, slots=True)
class _Frozen:
    """A log that the policy names no more: its beginning, as entry `index` of the log that followed it cites it."""

    size: int
    root: bytes
    by: _Checked
    index: int


def _origin(note: str) -> str:
    return note.partition("\n")[0]


def _named(origin: str, policy: Policy) -> bool:
    return any(key.name == origin for key in policy.logs)


def _frozen(trusted: Iterable[_Checked], folders: Mapping[str, LogFolder], policy: Policy) -> dict[str, _Frozen]:
    """By the origin, the logs that others followed and that the policy names no more: those that a log of the policy
    cites, and those that such a one cites in its turn, as far as it is vouched for."""
    found: dict[str, _Frozen] = {}
    for checked in trusted:
        for each in _milestones(checked):
            origin, size, root = _citation(each)
            if origin and not _named(origin, policy):
                found[origin] = _Frozen(size, root, checked, each.receipt.proof.index)
    queue = [*found]
    for origin in queue:
        log, frozen = folders.get(origin), found[origin]
        for each in _told(log, origin) if log is not None else ():
            before, size, root = _citation(each)
            if before and before not in found and not _named(before, policy):
                with suppress(Finding):
                    _vouched_for(each.receipt, frozen, log, policy)
                    found[before] = _Frozen(size, root, frozen.by, frozen.index)
                    queue.append(before)
    return found


def _citation(milestone: Milestone) -> tuple[str, int, bytes]:
    """Of the log that it followed: origin, size and root; empty if it cites none.

    Only a log's first entry does: else a host could have it vouch, at any time, for a past that it made up.
    """
    if milestone.receipt.proof.index != 0 or milestone.type not in ("log.opened", "log.discontinuity"):
        return "", 0, b""
    match milestone.what.get("follows"):
        case {"origin": str(origin), "size": int(size), "root": str(root)}:
            with suppress(ValueError):
                return origin, size, base64.b64decode(root)
    return "", 0, b""


def _vouched_for(receipt: LogReceipt, frozen: _Frozen, log: LogFolder | None, policy: Policy) -> Seen:
    """The event is among what the log that followed vouches for; the frozen log's own signatures count for nothing."""
    origin, index = receipt.proof.signed.checkpoint.origin, receipt.proof.index
    by = frozen.by.newest.checkpoint.origin
    _whole(receipt)
    if index >= frozen.size:
        raise Unreadable(
            f"entry {index} of {origin} is to be doubted: the policy does not trust its key, and {by} vouches for its "
            f"first {frozen.size} entries alone"
        )
    if log is None:
        raise Unreadable(f"the policy does not trust the key of {origin}: fetch its log too, and give both folders")
    try:
        held = SignedCheckpoint.parse(log.note()).checkpoint.size
    except NoteInvalid as fault:
        raise Broken(f"the folder's checkpoint is no checkpoint: {fault}", {"checkpoint": log.note()}) from None
    if held < frozen.size:
        raise Stale(f"the folder of {origin} has {held} leaves, fewer than {frozen.size}: fetch it again")
    tiles = TileHashes(log, held)
    with Reading(frozen.by.newest):
        root, proof = root_at(tiles, frozen.size), inclusion_proof(tiles, index, frozen.size)
    evidence = _notes(frozen.by.newest, receipt.proof.signed) | {"receipt.json": receipt.dumps()}
    if root != frozen.root:
        raise Broken(f"the folder's first {frozen.size} entries of {origin} are not those that {by} cites", evidence)
    try:
        verify_inclusion(leaf_hash(receipt.proof.leaf.text), index, frozen.size, proof, root)
    except ProofInvalid:
        raise Broken(f"{origin} held another leaf in the receipt's place", evidence) from None
    witnessed = _witnessed(frozen.by, policy)
    if witnessed is None or witnessed.checkpoint.size <= frozen.index:
        _quorum(policy, frozen.by.newest)
        raise NoQuorum(f"what {by} cites is beyond what a quorum has signed")
    facts: dict[str, Json] = {
        "origin": origin, "size": frozen.size, "root": base64.b64encode(root).decode(), "vouched_for_by": by,
        "cosigned": dict(policy.cosigned(witnessed)), "event_id": receipt.event_id, "index": index,
    }  # fmt: skip
    return Seen(frozen.by.newest.note, facts)


def _milestones(checked: _Checked) -> Iterator[Milestone]:
    """What the log says of one that it followed, each entry held against its tiles."""
    for each in _told(checked.log, checked.newest.checkpoint.origin):
        if each.receipt.size <= checked.newest.checkpoint.size and "follows" in each.what:
            _holds(each.receipt, checked.newest, checked.log, checked.tiles)
            yield each


def _told(log: LogFolder, origin: str) -> tuple[Milestone, ...]:
    """What the log published of itself; nothing, if that proves nothing, as `fsck` says."""
    try:
        return parse(log.history(), origin) if log.has(HISTORY) else ()
    except HistoryInvalid:
        return ()


def _not_lost(receipt: LogReceipt, losses: Mapping[str, _Loss]) -> None:
    loss = losses.get(receipt.proof.signed.checkpoint.origin)
    if loss is not None and receipt.proof.index >= loss.held:
        raise Broken(
            f"the log lost this entry: {loss.told_by} begins, on {loss.when}, with a discontinuity and says that of "
            f"{receipt.proof.signed.checkpoint.origin} the first {loss.held} entries are left. The receipt proves "
            f"entry {receipt.proof.index}: keep it as evidence",
            {"receipt.json": receipt.dumps(), HISTORY: loss.history},
        )


def _included(receipt: LogReceipt, policy: Policy, checked: _Checked, losses: Mapping[str, _Loss]) -> SignedCheckpoint:
    """The checkpoint with a quorum that covers the receipt's entry: its own, or one of the folder's."""
    try:
        _holds(receipt, checked.newest, checked.log, checked.tiles)
    except Stale:
        _not_lost(receipt, losses)
        if receipt.proof.signed.checkpoint.origin not in losses or not _held_alone(receipt, checked):
            raise
    own = receipt.proof.signed
    if _has_quorum(policy, own):
        return own
    witnessed = _witnessed(checked, policy)
    if witnessed is None or witnessed.checkpoint.size <= receipt.proof.index:
        _quorum(policy, checked.newest)
        raise NoQuorum(f"entry {receipt.proof.index} is beyond what a quorum has signed")
    return witnessed


def _held_alone(receipt: LogReceipt, checked: _Checked) -> bool:
    """Whether the folder, which ends before the receipt's tree does, has the entry all the same.

    Raises Broken if it has another in its place.
    """
    size, index, text = checked.newest.checkpoint.size, receipt.proof.index, receipt.proof.leaf.text
    if index >= size:
        return False
    with Reading(checked.newest):
        proof = inclusion_proof(checked.tiles, index, size)
    try:
        verify_inclusion(leaf_hash(text), index, size, proof, checked.newest.checkpoint.root)
    except ProofInvalid:
        raise Broken(
            "the folder holds another leaf in the receipt's place",
            {**_notes(checked.newest, receipt.proof.signed), "receipt.json": receipt.dumps()},
        ) from None
    return True


def _witnessed(checked: _Checked, policy: Policy) -> SignedCheckpoint | None:
    """The folder's newest checkpoint that has a quorum, and with which its newest begins; None if it has none."""
    if _has_quorum(policy, checked.newest):
        return checked.newest
    if not checked.log.has(WITNESSED):
        return None
    witnessed = _beside(checked, policy, WITNESSED)
    return witnessed if _has_quorum(policy, witnessed) else None


def _beside(checked: _Checked, policy: Policy, name: str, *, proved: bool = True) -> SignedCheckpoint:
    """Another checkpoint in the folder, of the same log, with which its newest begins (`proved`: by the tiles)."""
    note = checked.log.note(name)
    try:
        signed = SignedCheckpoint.parse(note)
    except NoteInvalid as fault:
        raise Broken(f"the folder's {name} is no checkpoint: {fault}", {name: note}) from None
    _signed(policy, signed, f"the folder's {name}")
    if signed.checkpoint.origin != checked.newest.checkpoint.origin:
        raise Broken(f"the folder's {name} is of another log", _notes(checked.newest, signed))
    _not_smaller(checked.newest, signed)
    if proved:
        _begins_with(checked.newest, signed, checked.tiles)
    return signed


def _proof(checked: _Checked, old: int, new: int) -> tuple[bytes, ...]:
    with Reading(checked.newest):
        return consistency_proof(checked.tiles, old, new)


def _one_tree(note: str, checked: _Checked, policy: Policy) -> None:
    try:
        heard = SignedCheckpoint.parse(note)
        policy.signed_by_log(heard)
    except NoteInvalid as fault:
        raise Unreadable(f"it is no checkpoint of this log: {fault}") from None
    theirs, ours = heard.checkpoint, checked.newest.checkpoint
    if theirs.origin != ours.origin:
        raise Unreadable("it is another log's")
    if theirs.size > ours.size:
        raise Stale(f"others were shown {theirs.size} leaves and the folder has {ours.size}: fetch the log again")
    _not_smaller(checked.newest, heard)
    _begins_with(checked.newest, heard, checked.tiles)


def _folder_checkpoint(
    log: LogFolder, policy: Policy, *, since: str | None = None, hashed: bool = True
) -> SignedCheckpoint:
    """The folder's checkpoint, signed by a log of the policy, and (`hashed`) the root of the folder's own tiles.

    Its key is one that signed `since`, the kept note, or was handed over by it; without one, the policy's first.
    """
    note = log.note()
    try:
        signed = SignedCheckpoint.parse(note)
    except NoteInvalid as fault:
        raise Broken(f"the folder's checkpoint is no checkpoint: {fault}", {"checkpoint": note}) from None
    _signed(policy, signed, "the folder's checkpoint")
    _handed_over(log, policy, signed, since)
    if hashed:
        size = signed.checkpoint.size
        with Reading(signed):
            if root_at(TileHashes(log, size), size) != signed.checkpoint.root:
                raise Broken("the folder's tiles do not hash to its checkpoint's root", {"checkpoint": note})
    return signed


def _signed(policy: Policy, signed: SignedCheckpoint, what: str) -> None:
    try:
        policy.signed_by_log(signed)
    except NoteInvalid as fault:
        hint = "" if _named(signed.checkpoint.origin, policy) else NEWER_POLICY
        raise Broken(f"{what} is not signed as the policy says: {fault}{hint}", {"checkpoint": signed.note}) from None


def _handed_over(log: LogFolder, policy: Policy, newest: SignedCheckpoint, since: str | None) -> None:
    """The log's key is that of before, or follows from it by entries that the log published and its tiles hold.

    A key that was handed over vouches for nothing any more: not by the policy, nor by what the log says of itself.
    """
    own = [key for key in policy.logs if key.name == newest.checkpoint.origin]
    start = own[:1] if since is None else signers(_parsed(since) or newest, own)
    now = signers(newest, own)
    _not_retired(log, newest, now)
    if not _vouched(policy, newest):
        raise Stale(
            "the policy has a newer key of the log than the one that signed the folder's checkpoint: it is older than "
            "that key, or of somebody who kept the old one. Fetch the log again",
            _notes(newest, None),
        )
    if not start or set(start) & set(now):
        return
    told = log.history()
    evidence = _notes(newest, None) | {"history": told}
    try:
        milestones = parse(told, newest.checkpoint.origin)
    except HistoryInvalid as fault:
        raise Broken(f"the log's key has changed, and its history proves nothing: {fault}", evidence) from None
    covered = [each for each in milestones if each.receipt.size <= newest.checkpoint.size]
    if not set(follow(covered, start)) & set(now):
        raise Broken("the log's key has changed, and no entry of the log hands over to the new one", evidence)
    for milestone in covered:
        _holds(milestone.receipt, newest, log, TileHashes(log, newest.checkpoint.size))


def _not_retired(log: LogFolder, newest: SignedCheckpoint, now: Sequence[VerifierKey]) -> None:
    """No entry in the folder's history hands over from a key that signed to one that did not."""
    if not log.has(HISTORY):
        return
    told = log.history()
    try:
        milestones = parse(told, newest.checkpoint.origin)
    except HistoryInvalid:
        return  # `fsck` says so, and so does whoever needs it
    if retired([each for each in milestones if each.receipt.size <= newest.checkpoint.size], newest, now):
        raise Broken(
            "an entry of the log hands over to another key than the one that signed the folder's checkpoint: somebody "
            "signs with the old one",
            _notes(newest, None) | {HISTORY: told},
        )


def _vouched(policy: Policy, signed: SignedCheckpoint) -> bool:
    """Whether the log's newest key signed, or a quorum that the policy asks for."""
    return policy.signed_by_newest(signed) or (policy.quorum is not None and _has_quorum(policy, signed))


def _parsed(note: str) -> SignedCheckpoint | None:
    try:
        return SignedCheckpoint.parse(note)
    except NoteInvalid:
        return None


def _kept(policy: Policy, note: str, newest: SignedCheckpoint) -> SignedCheckpoint:
    """The kept checkpoint, if the log is not smaller, nor another tree of the same size."""
    try:
        kept = SignedCheckpoint.parse(note)
        policy.signed_by_log(kept)
    except NoteInvalid as fault:
        raise Unreadable(f"the kept state is no checkpoint under this policy: {fault}") from None
    if kept.checkpoint.origin != newest.checkpoint.origin:
        raise Unreadable("the kept state is of another log than the folder")
    _not_smaller(newest, kept)
    return kept


def _not_smaller(newest: SignedCheckpoint, kept: SignedCheckpoint) -> None:
    old, new = kept.checkpoint, newest.checkpoint
    if new.size < old.size:
        raise Broken(f"the log was cut off: it had {old.size} leaves and has {new.size}", _notes(newest, kept))
    if new.size == old.size and new.root != old.root:
        raise Broken(f"the log was forked: there are two trees of {old.size} leaves", _notes(newest, kept))


def _grown(policy: Policy, note: str | None, newest: SignedCheckpoint, tiles: TileHashes) -> int | None:
    """The size it grew from."""
    if note is None:
        return None
    kept = _kept(policy, note, newest)
    _begins_with(newest, kept, tiles)
    return kept.checkpoint.size


def _begins_with(newest: SignedCheckpoint, older: SignedCheckpoint, tiles: TileHashes) -> None:
    old, new = older.checkpoint, newest.checkpoint
    with Reading(newest):
        proof = consistency_proof(tiles, old.size, new.size)
    try:
        verify_consistency(old.size, new.size, old.root, new.root, proof)
    except ProofInvalid as fault:
        raise Broken(
            f"history was rewritten: the {new.size} leaves do not begin with the {old.size} seen before ({fault})",
            _notes(newest, older),
        ) from None


def _holds(receipt: LogReceipt, newest: SignedCheckpoint, log: LogFolder, tiles: TileHashes) -> None:
    """The folder's log begins with the receipt's, and has the leaf in its bundle."""
    then, now = receipt.proof.signed.checkpoint, newest.checkpoint
    if then.origin != now.origin:
        raise Unreadable("the receipt is of another log than the folder")
    if now.size < then.size:
        raise Stale(f"the folder has {now.size} leaves and the receipt is for {then.size}: fetch the log again")
    _begins_with(newest, receipt.proof.signed, tiles)
    if _leaf_text(log, newest, receipt.proof.index) != receipt.proof.leaf.text:
        raise Broken("the folder holds another leaf in the receipt's place", {"receipt.json": receipt.dumps()})


def _leaf_text(log: TileReader, signed: SignedCheckpoint, index: int) -> bytes:
    number, at = divmod(index, TILE_WIDTH)
    width = min(TILE_WIDTH, signed.checkpoint.size - number * TILE_WIDTH)
    with Reading(signed):
        bundle = Tile(ENTRIES, number, width)
        return decode_bundle(bundle, log.read(bundle))[at]


def _last_leaf_s(log: LogFolder, signed: SignedCheckpoint, tiles: TileHashes) -> int:
    """When the last leaf was written, in unix seconds, proved against the root; 0 for an empty log."""
    size = signed.checkpoint.size
    return _leaf_s(log, signed, tiles, size - 1) if size else 0


def _leaf_s(log: LogFolder, signed: SignedCheckpoint, tiles: TileHashes, index: int) -> int:
    size, root = signed.checkpoint.size, signed.checkpoint.root
    text = _leaf_text(log, signed, index)
    with Reading(signed):
        proof = inclusion_proof(tiles, index, size)
    try:
        verify_inclusion(leaf_hash(text), index, size, proof, root)
        return leaf_ms(text) // 1000
    except (ProofInvalid, InvalidEvent) as fault:
        raise Broken(f"the folder's entry {index} is not the log's: {fault}", _notes(signed, None)) from None


def _quorum(policy: Policy, signed: SignedCheckpoint) -> None:
    try:
        policy.accept(signed)
    except QuorumMissing as fault:
        raise NoQuorum(str(fault)) from None


def _has_quorum(policy: Policy, signed: SignedCheckpoint) -> bool:
    try:
        policy.accept(signed)
    except QuorumMissing:
        return False
    return True


def _facts(signed: SignedCheckpoint, policy: Policy, *, only: Collection[str] = ()) -> dict[str, Json]:
    origin, size, root = signed.checkpoint.text.split("\n")[:3]
    cosigned = dict(policy.cosigned(signed))
    facts: dict[str, Json] = {"origin": origin, "size": int(size), "root": root, "cosigned": cosigned}
    return {name: fact for name, fact in facts.items() if not only or name in only}


def _notes(newest: SignedCheckpoint, kept: SignedCheckpoint | None) -> dict[str, str]:
    """Two notes one key signed that can't both be true are the evidence of a fork: kept whole."""
    return {"checkpoint": newest.note} | ({} if kept is None else {"checkpoint.kept": kept.note})
