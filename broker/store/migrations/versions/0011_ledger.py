"""What each holder is told of the use of its own data, and which answers are recalled.

The older table of notices was never filled.
"""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import UTCDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("notice")
    op.create_table(
        "notice",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("ended", sa.String(), nullable=False),
        sa.Column("collected_at", UTCDateTime(), nullable=True),
        sa.Column("collected_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_notice_agency_agency")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
    )
    op.create_index("ix_notice_agency_at_id", "notice", ["agency", "at", "id"], unique=False)
    op.create_index(
        "ix_notice_agency_collected_at_at_id", "notice", ["agency", "collected_at", "at", "id"], unique=False
    )
    op.create_index("ix_notice_event_id_agency", "notice", ["event_id", "agency"], unique=True)
    op.create_table(
        "notice_record",
        sa.Column("notice", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("record_index", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["notice"], ["notice.id"], name=op.f("fk_notice_record_notice_notice")),
        sa.PrimaryKeyConstraint("notice", "n", name=op.f("pk_notice_record")),
    )
    op.create_index(op.f("ix_notice_record_record_index"), "notice_record", ["record_index"], unique=False)
    op.create_table(
        "recall",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("shown_at", UTCDateTime(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("recalled_by", sa.String(), nullable=False),
        sa.Column("collected_at", UTCDateTime(), nullable=True),
        sa.Column("collected_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_recall_agency_agency")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recall")),
    )
    op.create_index(
        "ix_recall_agency_collected_at_at_id", "recall", ["agency", "collected_at", "at", "id"], unique=False
    )
    op.create_index("ix_recall_event_id_run", "recall", ["event_id", "run"], unique=True)
    op.create_index(op.f("ix_recall_recalled_by"), "recall", ["recalled_by"], unique=False)


def downgrade() -> None:
    for table in ("recall", "notice_record", "notice"):
        op.drop_table(table)
    op.create_table(
        "notice",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("due_at", UTCDateTime(), nullable=False),
        sa.Column("logged_at", UTCDateTime(), nullable=True),
        sa.Column("collected_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_notice_agency_agency")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
    )
    with op.batch_alter_table("notice", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_notice_agency"), ["agency"], unique=False)
        batch_op.create_index(batch_op.f("ix_notice_due_at"), ["due_at"], unique=False)
