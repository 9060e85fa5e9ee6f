"""Erasure, legal holds and the keys of events.

Back again, what was sealed under a subject's key can't be opened: there is no place for that key in the older schema.
"""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import PlainJSON, UTCDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
KEY = sa.table("audit_key", sa.column("event_id"), sa.column("wrapped"), sa.column("subject"))


def upgrade() -> None:
    op.create_table(
        "audit_key",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_audit_key")),
    )
    op.create_index(op.f("ix_audit_key_subject"), "audit_key", ["subject"], unique=False)
    op.create_table(
        "audit_subject_key",
        sa.Column("idx_hmac", sa.String(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("idx_hmac", name=op.f("pk_audit_subject_key")),
    )
    op.create_table(
        "audit_hold",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("idx_hmac", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.Column("set_at", UTCDateTime(), nullable=False),
        sa.Column("lifted_by", sa.String(), nullable=False),
        sa.Column("lifted_at", UTCDateTime(), nullable=True),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", "idx_hmac", name=op.f("pk_audit_hold")),
    )
    op.create_index(op.f("ix_audit_hold_idx_hmac"), "audit_hold", ["idx_hmac"], unique=False)
    op.create_table(
        "audit_erasure",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("authority", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("proposed_by", sa.String(), nullable=False),
        sa.Column("proposed_at", UTCDateTime(), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("decided_at", UTCDateTime(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("counts", PlainJSON(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_erasure")),
    )
    op.create_index(op.f("ix_audit_erasure_state"), "audit_erasure", ["state"], unique=False)
    op.create_table(
        "audit_tombstone",
        sa.Column("erasure", sa.String(), nullable=False),
        sa.Column("idx_hmac", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("erasure", "idx_hmac", name=op.f("pk_audit_tombstone")),
    )
    op.create_index("ix_audit_subject_log_id_seq", "audit_subject", ["log_id", "seq"], unique=False)
    for name in ("audit_event", "audit_outbox"):
        old = sa.table(name, sa.column("event_id"), sa.column("key_wrapped"))
        rows = sa.select(old.c.event_id, old.c.key_wrapped, sa.literal("")).where(old.c.key_wrapped.is_not(None))
        op.execute(KEY.insert().from_select(["event_id", "wrapped", "subject"], rows))
    for table in ("audit_event", "audit_outbox", "audit_blob"):
        op.drop_column(table, "key_wrapped")
    op.add_column("audit_event", sa.Column("erased_under", sa.String(), nullable=True))
    op.add_column("audit_event", sa.Column("withheld_at", UTCDateTime(), nullable=True))
    op.create_index(op.f("ix_audit_event_erased_under"), "audit_event", ["erased_under"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_audit_subject_log_id_seq", "audit_subject")
    op.drop_index(op.f("ix_audit_event_erased_under"), "audit_event")
    op.drop_column("audit_event", "withheld_at")
    op.drop_column("audit_event", "erased_under")
    for table, nullable in (("audit_event", True), ("audit_outbox", False), ("audit_blob", False)):
        op.add_column(
            table,
            sa.Column("key_wrapped", sa.LargeBinary(), nullable=nullable, server_default=None if nullable else ""),
        )
        old = sa.table(table, sa.column("event_id"), sa.column("key_wrapped"))
        kept = sa.select(KEY.c.wrapped).where(KEY.c.event_id == old.c.event_id, KEY.c.subject == "").scalar_subquery()
        ours = sa.select(KEY.c.event_id).where(KEY.c.subject == "")
        op.execute(old.update().where(old.c.event_id.in_(ours)).values(key_wrapped=kept))
    for table in ("audit_tombstone", "audit_erasure", "audit_hold", "audit_subject_key", "audit_key"):
        op.drop_table(table)
