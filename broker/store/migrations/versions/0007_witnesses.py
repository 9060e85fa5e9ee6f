"""Witnesses of the log, and what the log's key has signed that can't be."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import UTCDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_witness",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("vkey", sa.String(), nullable=False),
        sa.Column("organisation", sa.String(), nullable=False),
        sa.Column("enrolled_at", UTCDateTime(), nullable=False),
        sa.Column("removed_at", UTCDateTime(), nullable=True),
        sa.Column("late_since", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_witness")),
    )
    with op.batch_alter_table("audit_witness", schema=None) as batch_op:
        batch_op.create_index("ix_audit_witness_name", ["name"], unique=False)
    with op.batch_alter_table("audit_cosig", schema=None) as batch_op:
        batch_op.create_index("ix_audit_cosig_log_id_witness_size", ["log_id", "witness", "size"], unique=False)
    op.create_table(
        "audit_conflict",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("presented", sa.LargeBinary(), nullable=False),
        sa.Column("ours", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", UTCDateTime(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_conflict")),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER audit_conflict_no_delete BEFORE DELETE ON audit_conflict "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    else:
        op.execute(
            "CREATE TRIGGER audit_conflict_no_delete BEFORE DELETE ON audit_conflict "
            "BEGIN SELECT RAISE(ABORT, 'this table is only added to'); END"
        )


def downgrade() -> None:
    op.drop_table("audit_conflict")
    with op.batch_alter_table("audit_cosig", schema=None) as batch_op:
        batch_op.drop_index("ix_audit_cosig_log_id_witness_size")
    with op.batch_alter_table("audit_witness", schema=None) as batch_op:
        batch_op.drop_index("ix_audit_witness_name")
    op.drop_table("audit_witness")
