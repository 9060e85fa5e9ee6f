"""Indexes by which information governance asks the log."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ASKED_BY = ("op", "purpose", "outcome")


def upgrade() -> None:
    for column in ASKED_BY:
        op.create_index(f"ix_audit_event_{column}_t_ms", "audit_event", [column, "t_ms"], unique=False)
    op.create_index(
        "ix_audit_event_broken_glass", "audit_event", ["t_ms"], unique=False,
        sqlite_where=sa.text("break_glass = 1"), postgresql_where=sa.text("break_glass"),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_index("ix_audit_event_broken_glass", "audit_event")
    for column in reversed(ASKED_BY):
        op.drop_index(f"ix_audit_event_{column}_t_ms", "audit_event")
