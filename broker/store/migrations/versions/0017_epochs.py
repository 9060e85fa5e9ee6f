"""The linkage key may be rotated: epochs side by side, and batches that are of the one being prepared."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import PlainJSON, UTCDateTime

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "key_epoch",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("canaries", PlainJSON(), nullable=False),
        sa.Column("opened_by", sa.String(), nullable=False),
        sa.Column("opened_at", UTCDateTime(), nullable=False),
        sa.Column("report", PlainJSON(), nullable=True),
        sa.Column("proposed_by", sa.String(), nullable=False),
        sa.Column("proposed_at", UTCDateTime(), nullable=True),
        sa.Column("flipped_by", sa.String(), nullable=False),
        sa.Column("in_service_from", UTCDateTime(), nullable=True),
        sa.Column("ended_at", UTCDateTime(), nullable=True),
        sa.Column("held_until", UTCDateTime(), nullable=True),
        sa.Column("held", PlainJSON(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_key_epoch")),
    )
    for state in ("prepared", "in_service", "held"):
        where = sa.text(f"state = '{state}'")
        op.create_index(
            f"uq_key_epoch_{state}", "key_epoch", ["state"], unique=True, sqlite_where=where, postgresql_where=where
        )
    op.add_column("batch", sa.Column("shadow", sa.String(), nullable=False, server_default=""))
    _live_sequence("agency", "flow", "shadow", "sequence")


def downgrade() -> None:
    op.execute("UPDATE batch SET state = 'rejected' WHERE shadow <> ''")  # else two batches may have one number
    _live_sequence("agency", "flow", "sequence")
    op.drop_column("batch", "shadow")
    op.drop_table("key_epoch")


def _live_sequence(*columns: str) -> None:
    where = sa.text("state <> 'rejected'")
    op.drop_index("uq_batch_live_sequence", "batch")
    op.create_index(
        "uq_batch_live_sequence", "batch", [*columns], unique=True, sqlite_where=where, postgresql_where=where
    )
