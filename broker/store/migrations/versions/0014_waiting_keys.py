"""The key of an event that waits lies with it, and is wrapped for good by the sequencer, for many at once.

A row that waited already has its key in its place.  Back again, what waits has its key under the key-encryption key.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_outbox", sa.Column("key_wrapped", sa.LargeBinary(), nullable=True))
    op.add_column("audit_outbox", sa.Column("sole", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    waiting = sa.table("audit_outbox", sa.column("event_id"), sa.column("key_wrapped"))
    kept = sa.table("audit_key", sa.column("event_id"), sa.column("wrapped"), sa.column("subject"))
    rows = sa.select(waiting.c.event_id, waiting.c.key_wrapped, sa.literal(""))
    rows = rows.where(waiting.c.key_wrapped.is_not(None))
    op.execute(kept.insert().from_select(["event_id", "wrapped", "subject"], rows))
    op.drop_column("audit_outbox", "sole")
    op.drop_column("audit_outbox", "key_wrapped")
