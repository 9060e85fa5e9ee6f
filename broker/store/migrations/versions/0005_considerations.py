"""What a holder is to consider, and the rounds in which that is raised."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import UTCDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "consideration",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("mark", sa.String(), nullable=False),
        sa.Column("record_index", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("raised_at", UTCDateTime(), nullable=False),
        sa.Column("last_at", UTCDateTime(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("decided_at", UTCDateTime(), nullable=True),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_consideration_agency_agency")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consideration")),
        sa.UniqueConstraint("mark", name=op.f("uq_consideration_mark")),
    )
    with op.batch_alter_table("consideration", schema=None) as batch_op:
        batch_op.create_index("ix_consideration_queue", ["agency", "state", "raised_at", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_consideration_record_index"), ["record_index"], unique=False)

    op.create_table(
        "consideration_round",
        sa.Column("slot", UTCDateTime(), nullable=False),
        sa.Column("through", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("slot", name=op.f("pk_consideration_round")),
    )


def downgrade() -> None:
    op.drop_table("consideration_round")
    with op.batch_alter_table("consideration", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_consideration_record_index"))
        batch_op.drop_index("ix_consideration_queue")

    op.drop_table("consideration")
