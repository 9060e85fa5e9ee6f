"""Who was erased may be linked again, if two people say so."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import UTCDateTime

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_lift",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("idx_hmac", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("proposed_by", sa.String(), nullable=False),
        sa.Column("proposed_at", UTCDateTime(), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("decided_at", UTCDateTime(), nullable=True),
        sa.Column("refused", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", "idx_hmac", name=op.f("pk_audit_lift")),
    )
    op.create_index(op.f("ix_audit_lift_state"), "audit_lift", ["state"], unique=False)


def downgrade() -> None:
    op.drop_table("audit_lift")
