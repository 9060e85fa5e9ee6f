"""When a flow's client was heard of last."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import UTCDateTime

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agency_flow", sa.Column("heard_at", UTCDateTime(), nullable=True))


def downgrade() -> None:
    op.drop_column("agency_flow", "heard_at")
