"""C2SP tlog-policy: whom a verifier trusts, and how many of them it takes."""

from __future__ import annotations

import pytest

from audit.checkpoint import NoteInvalid, Signature
from audit.policy import Policy, PolicyInvalid, QuorumMissing
from tests.builders_log import ORIGIN, START_S, ALog, a_key, a_policy, a_witness

LOG = a_policy().splitlines()[0]
X = [f"witness X{n} {a_witness(n)}" for n in range(3)]
Y = [f"witness Y{n} {a_witness(n)} https://w{n}.example/" for n in range(3, 6)]
TWO_LEVELS = "\n".join([
    LOG, "", "# the example of the specification", *X, "group X 2 X0 X1 X2", *Y, "\tgroup  Y any Y3 Y4 Y5 ", "group both all X Y",
    "quorum both", "",
])  # fmt: skip


@pytest.mark.parametrize(
    ("cosigners", "enough"),
    [((), False), ((0, 1), False), ((0, 1, 2), False), ((0, 3), False), ((0, 2, 5), True), (range(6), True)],
)
def test_the_specifications_example_takes_two_of_x_and_one_of_y(cosigners: tuple[int, ...], enough: bool) -> None:
    policy, signed = Policy.parse(TWO_LEVELS.encode()), ALog().add(3).signed(cosigners)
    if enough:
        assert set(policy.accept(signed).cosigned.values()) == {START_S}
    else:
        with pytest.raises(QuorumMissing):
            policy.accept(signed)


def test_without_witnesses_the_logs_signature_is_enough_and_needed() -> None:
    policy = Policy.parse(a_policy().encode())
    assert policy.accept(ALog().add(3).signed()).checkpoint.size == 3
    unsigned = ALog().add(3).signed().__class__(ALog().add(3).signed().checkpoint, ())
    with pytest.raises(NoteInvalid, match="no log key"):
        policy.accept(unsigned)
    with pytest.raises(NoteInvalid, match="origin"):
        policy.accept(ALog(origin="elsewhere.example/audit/2026").add(3).signed())


def test_one_witness_may_be_the_quorum() -> None:
    policy = Policy.parse("\n".join([LOG, *X, "quorum X1"]).encode())
    assert policy.accept(ALog().add(1).signed([1])).cosigned == {"X1": START_S}
    with pytest.raises(QuorumMissing):
        policy.accept(ALog().add(1).signed([0, 2]))


def test_a_witness_line_that_does_not_verify_spoils_nothing_and_counts_for_nothing() -> None:
    policy = Policy.parse("\n".join([LOG, *X, "group g 2 X0 X1 X2", "quorum g"]).encode())
    bad = Signature(a_witness(2).name, a_witness(2).key_id, b"\0" * 72)
    assert set(policy.accept(ALog().add(1).signed([0, 1]).with_signature(bad)).cosigned) == {"X0", "X1"}
    with pytest.raises(QuorumMissing):
        policy.accept(ALog().add(1).signed([0]).with_signature(bad))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([LOG], "no quorum"),
        ([LOG, "quorum none", "quorum none"], "line 2|two quorum"),
        ([LOG, "quorum X0", *X], "before the line"),
        ([LOG, LOG, "quorum none"], "twice"),
        ([*X, X[0].replace("X0", "Z"), "quorum none"], "twice"),
        ([*X, "group X0 any X1", "quorum none"], "twice"),
        ([*X, "group none any X1", "quorum none"], "none"),
        ([*X, "group g 4 X0 X1 X2", "quorum g"], "threshold"),
        ([*X, "group g 0 X0", "quorum g"], "threshold"),
        ([*X, "group g most X0", "quorum g"], "threshold"),
        ([*X, "group g any X0 X0", "quorum g"], "twice"),
        ([*X, "group g any X0", "group h any X0", "quorum h"], "twice"),
        ([*X, "group g any", "quorum g"], "not a line"),
        ([f"log {a_witness(0)}", "quorum none"], "type"),
        ([LOG.replace("log", "witness w"), "quorum none"], "type"),
        ([LOG[:-4], "quorum none"], "line 1"),
        (["LOG x", "quorum none"], "not a line"),
        ([LOG, "quorum\u00a0none"], "not a line"),
        ([LOG + "\r", "quorum none"], "control"),
    ],
)
def test_a_policy_that_could_be_misread_is_refused(lines: list[str], says: str) -> None:
    with pytest.raises(PolicyInvalid, match=says):
        Policy.parse("\n".join(lines).encode())


def test_during_a_rotation_either_log_key_will_do() -> None:
    policy = Policy.parse(a_policy(keys=[1, 2]).encode())
    old, new = ALog().add(3).signed(), ALog(key=a_key(2)).add(3).signed()
    assert policy.accept(old).checkpoint == policy.accept(new).checkpoint
    assert policy.accept(new).checkpoint.origin == ORIGIN
