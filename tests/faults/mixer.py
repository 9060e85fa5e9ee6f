"""A partnership lives through its days, in an order and with kills that a seed decides, beside a small model of it.

python -m tests.faults.mixer FOLDER SEED STEPS

Each step is a process of its own, forked from this one before it has opened anything: an agency encodes and hands in a
night, an analyst asks, a party suspends or resumes its part in the agreement, two officers erase somebody, the night is
linked.  In every other step the process is killed at its Nth touch of the disk or the database (a statement, a commit, a
sync, a name), N drawn from as many as the same kind of step took before.  What a step was told it writes to a pipe as it is
told; the model takes that in, and what a killed step leaves open is settled by what is found: it is done or not done.

After each step the broker is started as it stands and compared with the model.  Prints a line of JSON a step, and at the
end one with the counts; exits 1 where an invariant is broken, having said which and after which steps.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine

from agreements import read, sign_event
from agreements.signing import Act
from broker import clock, erasure, register
from broker.linked import InService, clusters_of
from broker.store.agencies import AgencyFlowRow
from broker.store.batches import BatchRow
from broker.store.documents import AgreementStatusRow
from broker.store.erasures import ErasureRow
from broker.store.log import EntryRow, EventRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.store.tombstones import Tombstones
from linkage.agency import client
from linkage.agency import clock as agency_clock
from linkage.agency.batch import encode_extract
from linkage.agency.codes import load as load_codes
from tests.broker.test_erasure import officer
from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import AGREEMENTS, MORNING, OPERATOR, Area, the_time
from tests.builders_families import KIT, ROBIN, extracts
from tests.faults.points import Half, Harm, Lost, Unentered
from tests.faults.test_kill import check_log

FLOWS: Final = ((COUNCIL, "housing"), (COUNCIL, "early_help"), (POLICE, "police"), (COUNCIL, "social_care"))
MASH: Final = "northshire-mash@3.0.0"
GUESS: Final = 200  # touches of a kind of step, before one was counted
Say = Callable[..., None]


@dataclass
class Model:
    """What the partnership was promised."""

    sealed: dict[str, str] = field(default_factory=dict)  # batch: its flow, as agency/flow
    waiting: dict[str, str] = field(
        default_factory=dict
    )  # flow: the folder of a batch that is encoded and not acknowledged
    paused: dict[str, bool | None] = field(default_factory=lambda: {COUNCIL: False, ICB: False, POLICE: False})
    once_paused: set[str] = field(default_factory=set)  # parties whose batches may be held
    erased: dict[str, bool] = field(default_factory=dict)  # an erasure: whether it is known to be carried out
    gone: set[str] = field(default_factory=set)  # records that no later night may link, as agency/flow/record_ref
    entries: dict[str, str] = field(default_factory=dict)  # an event whose answer has left: what it was
    version: int = 1  # of the view, at least

    def take(self, what: str, told: dict[str, Any]) -> None:
        """What a step was told."""
        match what:
            case "encoded":
                self.waiting[told["flow"]] = told["folder"]
            case "sealed":
                self.sealed[told["batch"]] = told["flow"]
                self.waiting.pop(told["flow"], None)
            case "left":
                self.entries[told["event"]] = told["of"]
            case "asked" if told["organisations"]:
                for party in told["organisations"]:
                    if self.paused[party]:
                        raise Unentered(f"{party} has suspended its part, and is shown under it")
            case "pausing":
                self.paused[told["party"]] = None
                self.once_paused.add(told["party"])
            case "paused":
                self.paused[told["party"]] = told["do"] == "suspend"
            case "proposed":
                self.erased[told["erasure"]] = False
            case "erased":
                self.erased[told["erasure"]] = True
                self.gone |= set(told["records"])
            case "night":
                self.version = max(self.version, told["version"])


# --- Steps: each in a process of its own ------------------------------------------------------------------------------


def hand_in(area: Area, say: Say, *, chance: random.Random, model: Model, number: int) -> None:
    """A flow's full night, encoded and handed in; or one that broke off, handed in to its end."""
    agency, flow = chance.choice(FLOWS)
    name, home = f"{agency}/{flow}", area.home(agency)
    folder = Path(model.waiting.get(name, ""))
    if name not in model.waiting:
        place = area.folder / "extracts" / "mixed" / f"{number}"
        extract = extracts()[agency, flow]
        for rows in extract.items.values():
            rows[0] = {**rows[0], "recorded_on": f"2026-11-{chance.randint(1, 20):02}"}
        made = encode_extract(
            extract.write(place, agency, flow), home, place / "batch", codes=load_codes(), now=clock.now()
        )
        folder = made.folder
        say("encoded", flow=name, folder=str(folder))
    caller = client.Broker(home, now=agency_clock.now, http=area.http, sleep=lambda _: None)
    done = client.submit(folder, home, caller)
    say("sealed", flow=name, batch=done.batch)


def ask(area: Area, say: Say, *, chance: random.Random, model: Model, number: int) -> None:
    """A search and a family view, whose answers leave."""
    child = chance.choice((ROBIN, KIT))
    asker = area.asker()
    found = asker.search(child.typed(), case=f"mixed-{number}")
    say("left", event=found["receipt"]["opening"]["what"]["body"]["id"], of="search")
    if not found["candidates"]:
        return
    view = asker.open(found)
    say("left", event=view["receipt"]["opening"]["what"]["body"]["id"], of="view")
    shown = {
        tile["organisation"] for tile in view["tiles"] for category in tile["categories"]
        if any(clause["agreement"] == MASH for clause in category["under"])
    }  # fmt: skip
    say("asked", organisations=sorted(shown))


def change(area: Area, say: Say, *, chance: random.Random, model: Model, number: int) -> None:
    """A party suspends its part in the agreement, or resumes it."""
    party = chance.choice(sorted(model.paused))
    do: Act = "resume" if model.paused[party] else "suspend"
    say("pausing", party=party)
    broker, at = area.broker, clock.now().replace(microsecond=0)
    umbrella = read((AGREEMENTS / "northshire-tier1.toml").read_bytes())
    document = read((AGREEMENTS / "northshire-mash.toml").read_bytes(), umbrellas=[umbrella])
    jws = sign_event(document, do, kid=f"{party}/signatory-1", key=area.signatory(party), at=at)
    register.add_party_event(broker.store, broker.trail, document.ref, jws, who=OPERATOR, at=at)
    say("paused", party=party, do=do)


def erase(area: Area, say: Say, *, chance: random.Random, model: Model, number: int) -> None:
    """Two officers erase somebody whom schools and health alone know."""
    broker, kept = area.broker, Tombstones(area.settings.data_dir)
    linked = InService(broker.store, broker.vault).area()
    assert linked is not None
    flows: dict[str, set[str]] = {}
    for row in linked.clusters.to_pylist():
        flows.setdefault(row["person_id"], set()).add(row["flow"])
    person = chance.choice(sorted(one for one, of in flows.items() if of == {"education", "health"}))
    with broker.store.reading() as reading:
        ids = erasure.subject_ids(reading, linked, person)
    at = clock.now()
    one = erasure.propose(
        broker.store, broker.trail, broker.keys, officer(), ids=ids, authority="subject_request", at=at
    ).answer
    say("proposed", erasure=one.erasure)
    erasure.approve(broker.store, broker.trail, broker.keys, kept, officer("ig-2"), erasure=one.erasure, at=at)
    say("erased", erasure=one.erasure, records=[one for one in ids if "/" in one])


def night(area: Area, say: Say, *, chance: random.Random, model: Model, number: int) -> None:
    """What was handed in is decided on, linked and published."""
    done = area.link()
    assert done["state"] in ("published", "unchanged"), done
    with area.broker.store.reading() as reading:
        pointer = reading.one(PublishedRow)
    assert pointer is not None
    say("night", version=pointer.version)


STEPS: Final[dict[str, tuple[Callable[..., None], int]]] = {
    "hand_in": (hand_in, 5), "ask": (ask, 5), "change": (change, 3), "erase": (erase, 2), "night": (night, 3),
}  # fmt: skip
"""What may happen, and how often."""


# --- What must hold after each ----------------------------------------------------------------------------------------


def compare(area: Area, model: Model) -> None:
    """The broker as it stands, started again, has all that was promised, and nothing by halves; settles what was open."""
    broker = area.broker
    check_log(broker)
    with broker.store.reading() as reading:
        logged = {row.event_id for row in reading.all(EntryRow)}
        types = Counter(row.type for row in reading.all(EventRow))
        batches = {row.id: row for row in reading.all(BatchRow)}
        flows = {f"{row.agency}/{row.flow}": row for row in reading.all(AgencyFlowRow)}
        erasures = {row.id: row.state for row in reading.all(ErasureRow)}
        changes = reading.all(AgreementStatusRow, agreement=MASH, order=("number",))
        pointer = reading.one(PublishedRow)
        assert pointer is not None
        run = reading.one(LinkRunRow, id=pointer.run)
    if missing := [what for event_id, what in model.entries.items() if event_id not in logged]:
        raise Unentered(f"answers left without an entry: {missing}")
    for batch, flow in model.sealed.items():
        state = batches[batch].state if batch in batches else "gone"
        held = state == "quarantined" and flow.split("/")[0] in model.once_paused
        if state in ("gone", "open", "rejected") or (state == "quarantined" and not held):
            raise Lost(f"a batch of {flow} that was acknowledged is {state}")
    for flow in {*model.sealed.values()}:
        last = max((batches[one] for one, of in model.sealed.items() if of == flow), key=lambda row: row.sequence)
        if last.state in ("accepted", "linked") and flows[flow].last_sequence < last.sequence:
            raise Half(f"{flow}: a batch is accepted, and the flow is of before")
    said = {"suspend": 0, "resume": 0}
    for party in model.paused:
        acts = [row.status for row in changes if row.by == party and row.status in said]
        now = bool(acts) and acts[-1] == "suspend"
        if model.paused[party] not in (None, now):
            raise Lost(f"{party} was told that its part is {'suspended' if model.paused[party] else 'resumed'}")
        model.paused[party] = now
        for act in acts:
            said[act] += 1
    if [types["agreement.suspended"], types["agreement.resumed"]] != [said["suspend"], said["resume"]]:
        raise Half(f"changes of the agreement and their entries differ: {said}")
    for one, done in model.erased.items():
        if done and erasures.get(one) != "erased":
            raise Lost("an erasure that was acknowledged is undone")
    if {one.erasure for one in Tombstones(area.settings.data_dir).read()} != {
        one for one, state in erasures.items() if state == "erased"
    }:
        raise Half("the file of tombstones and the erasures differ")
    assert run is not None
    if pointer.version < model.version:
        raise Lost("a view that was published is taken back")
    model.version = pointer.version
    view = clusters_of(broker.vault, run)
    if view.num_rows != run.counts["records"]:
        raise Half("the view in service is none that a run made")


def at_the_end(area: Area, model: Model) -> None:
    """Every batch that waited arrives, a last night takes all in, and nobody who was erased is linked."""
    for name, folder in model.waiting.items():
        home = area.home(name.split("/")[0])
        done = client.submit(
            Path(folder), home, client.Broker(home, now=agency_clock.now, http=area.http, sleep=lambda _: None)
        )
        model.sealed[done.batch] = name
    model.waiting.clear()
    assert area.link()["state"] in ("published", "unchanged")
    compare(area, model)
    broker = area.broker
    with broker.store.reading() as reading:
        batches = {row.id: row for row in reading.all(BatchRow)}
        pointer = reading.one(PublishedRow)
        assert pointer is not None
        run = reading.one(LinkRunRow, id=pointer.run)
    for flow in {*model.sealed.values()}:
        last = max((batches[one] for one, of in model.sealed.items() if of == flow), key=lambda row: row.sequence)
        held = last.state == "quarantined" and flow.split("/")[0] in model.once_paused
        if last.state != "linked" and not held:
            raise Lost(f"the last batch of {flow} is {last.state}, after a night that took all in")
    assert run is not None
    rows = clusters_of(broker.vault, run).to_pylist()
    if back := model.gone & {f"{row['agency']}/{row['flow']}/{row['record_ref']}" for row in rows}:
        raise Lost(f"{len(back)} records that were erased are linked again")


# --- The runner -------------------------------------------------------------------------------------------------------


def touched(kill_at: int) -> Iterator[int]:
    """Counts this process's touches of disk and database from now on, and kills it at the given one; each `next` says how many."""
    count = 0

    def touch(*_: object, **__: object) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(does: Callable[..., Any]) -> Callable[..., Any]:
        def then(*given: Any, **named: Any) -> Any:
            touch()
            return does(*given, **named)

        return then

    for name in ("fsync", "fdatasync", "rename", "replace", "unlink", "write"):
        setattr(os, name, before(getattr(os, name)))
    event.listen(Engine, "before_cursor_execute", touch)
    event.listen(Engine, "commit", touch)
    while True:
        yield count


def forked(folder: Path, does: Callable[[Area, Say], None], *, kill_at: int = 0) -> tuple[int, list[dict[str, Any]]]:
    """One process: how it ended (negative: by a signal), and what it said."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        write = os.write

        def say(what: str, **told: Any) -> None:
            write(into, json.dumps({"what": what, **told}).encode() + b"\n")

        code = 0
        try:
            touches = touched(kill_at)
            next(touches)
            does(Area(folder), say)
            say("touches", count=next(touches))
        except Harm as harm:
            say("harm", kind=harm.kind, says=str(harm))
        except BaseException as wrong:  # whatever it was, the parent tells it
            say("failed", says=f"{type(wrong).__name__}: {wrong}", trace=traceback.format_exc()[-3000:])
            code = 1
        os._exit(code)
    os.close(into)
    with os.fdopen(out, "rb") as told:
        said = [json.loads(line) for line in told.read().splitlines()]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def live(folder: Path, seed: int, steps: int) -> Iterable[dict[str, Any]]:
    """Steps one after another; the last line has the counts."""
    chance, model = random.Random(seed), Model()
    counts: Counter[str] = Counter()
    touches: dict[str, int] = {}
    for number in range(steps):
        [name] = chance.choices(list(STEPS), [weight for _, weight in STEPS.values()])
        kill = chance.random() < 0.5
        kill_at = chance.randint(1, touches.get(name, GUESS)) if kill else 0
        own = random.Random(chance.random())
        does = partial(STEPS[name][0], chance=own, model=model, number=number)
        code, said = forked(folder, does, kill_at=kill_at)
        line = {"step": number, "does": name, "kill_at": kill_at, "ended": code, "said": [one["what"] for one in said]}
        harm = wrong = None
        for one in said:
            match one:
                case {"what": "touches", "count": int(count)}:
                    touches[name] = count
                case {"what": "harm"}:
                    harm = one
                case {"what": "failed"}:
                    wrong = one
                case {"what": what, **told}:
                    try:
                        model.take(what, told)
                    except Harm as broken:
                        harm = {"kind": broken.kind, "says": str(broken)}
        if code == -signal.SIGKILL:
            counts["killed"] += 1
        if wrong is None and harm is None:
            harm, wrong = told_back(model, *forked(folder, lambda area, say: settled(area, model, say)))
        counts["points"] += 1
        if harm is not None or wrong is not None:
            if harm is not None:
                counts[harm["kind"]] += 1
            yield {**line, "harm": harm, "failed": wrong}
            break
        counts["survived"] += 1
        yield line
    else:
        counts["points"] += 1
        harm, wrong = told_back(model, *forked(folder, lambda area, say: at_the_end(area, model)))
        if harm is not None:
            counts[harm["kind"]] += 1
        counts["survived"] += harm is None and wrong is None
        yield {"step": "end", "harm": harm, "failed": wrong}
    yield {"seed": seed, "counts": dict(counts), "batches": len(model.sealed), "answers": len(model.entries)}


def settled(area: Area, model: Model, say: Say) -> None:
    """Compare; and tell the parent's model what was open and is settled."""
    compare(area, model)
    say("settled", paused=model.paused, version=model.version)


def told_back(model: Model, code: int, said: list[dict[str, Any]]) -> tuple[Any, Any]:
    """What a comparison found: harm, or that it failed."""
    harm = wrong = None
    for one in said:
        if one["what"] == "settled":
            model.paused, model.version = one["paused"], one["version"]
        elif one["what"] == "harm":
            harm = one
        elif one["what"] == "failed":
            wrong = one
    if code and wrong is None:
        wrong = {"says": f"the comparison ended by itself: {code}"}
    return harm, wrong


def main(arguments: list[str]) -> int:
    bad = False
    with the_time(MORNING):
        for line in live(Path(arguments[0]), int(arguments[1]), int(arguments[2])):
            bad = bad or bool(line.get("harm") or line.get("failed"))
            print(json.dumps(line), flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
