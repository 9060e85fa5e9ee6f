"""Rules, flags, samples and reviews of what the log holds."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import PlainJSON, UTCDateTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ADDED = {
    "audit_flag": (("version", sa.Integer(), "0"), ("figures", PlainJSON(), "{}"), ("recorded", sa.String(), "")),
    "audit_review": (("recorded", sa.String(), ""), ("second", sa.String(), "")),
}
"""Columns, and what they are of rows that are there."""


def upgrade() -> None:
    for table, columns in ADDED.items():
        for name, kind, default in columns:
            op.add_column(table, sa.Column(name, kind, nullable=False, server_default=default))
        with op.batch_alter_table(table) as batch_op:
            for name, kind, default in columns:
                batch_op.alter_column(name, existing_type=kind, existing_server_default=default, server_default=None)
    with op.batch_alter_table("audit_flag") as batch_op:
        batch_op.create_unique_constraint("uq_audit_flag_event_id_rule", ["event_id", "rule"])
        batch_op.create_index("ix_audit_flag_raised_at", ["raised_at"], unique=False)
    with op.batch_alter_table("audit_review") as batch_op:
        batch_op.drop_column("note")
        batch_op.create_index(op.f("ix_audit_review_reviewer"), ["reviewer"], unique=False)
    op.create_index("ix_audit_checkpoint_at", "audit_checkpoint", ["at"], unique=False)
    op.drop_table("audit_rollup")
    op.create_table(
        "audit_rollup",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("org", sa.String(), nullable=False),
        sa.Column("actor_ref", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("subjects", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "org", "actor_ref", "type", "purpose", name=op.f("pk_audit_rollup")),
    )
    op.create_index("ix_audit_rollup_actor_ref_hour", "audit_rollup", ["actor_ref", "hour"], unique=False)
    op.create_table(
        "audit_mark",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_mark")),
    )
    op.create_table(
        "audit_case",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("opened_at", UTCDateTime(), nullable=False),
        sa.Column("due_at", UTCDateTime(), nullable=False),
        sa.Column("taken_by", sa.String(), nullable=False),
        sa.Column("taken_at", UTCDateTime(), nullable=True),
        sa.Column("review", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_audit_case")),
    )
    op.create_index("ix_audit_case_state_due_at", "audit_case", ["state", "due_at"], unique=False)
    op.create_table(
        "audit_rule_change",
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("before", sa.Integer(), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_rule_change")),
    )
    op.create_table(
        "audit_sample",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("since", UTCDateTime(), nullable=False),
        sa.Column("until", UTCDateTime(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("least", sa.Integer(), nullable=False),
        sa.Column("candidates", sa.Integer(), nullable=False),
        sa.Column("drawn", sa.Integer(), nullable=False),
        sa.Column("candidates_sha256", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("witnessed", sa.Boolean(), nullable=False),
        sa.Column("drawn_by", sa.String(), nullable=False),
        sa.Column("drawn_at", UTCDateTime(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("by_reason", PlainJSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_sample")),
        sa.UniqueConstraint("since", "until", name=op.f("uq_audit_sample_since_until")),
    )


def downgrade() -> None:
    op.drop_index("ix_audit_checkpoint_at", "audit_checkpoint")
    for table in ("audit_sample", "audit_rule_change", "audit_case", "audit_mark", "audit_rollup"):
        op.drop_table(table)
    op.create_table(
        "audit_rollup",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("org", sa.String(), nullable=False),
        sa.Column("actor_ref", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "org", "actor_ref", "type", name=op.f("pk_audit_rollup")),
    )
    with op.batch_alter_table("audit_review") as batch_op:
        batch_op.drop_index(op.f("ix_audit_review_reviewer"))
        batch_op.add_column(sa.Column("note", sa.LargeBinary(), nullable=True))
    with op.batch_alter_table("audit_flag") as batch_op:
        batch_op.drop_index("ix_audit_flag_raised_at")
        batch_op.drop_constraint("uq_audit_flag_event_id_rule", type_="unique")
    for table, columns in ADDED.items():
        with op.batch_alter_table(table) as batch_op:
            for name, _, _ in columns:
                batch_op.drop_column(name)
