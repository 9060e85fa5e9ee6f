"""Overrides, sever markers and the review queue.  A sever is never changed and never deleted."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import PlainJSON, UTCDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FOR_GOOD = {"link_override": "OLD.kind = 'sever'", "sever_mark": "OLD.marker_index <> ''"}
"""Rows that nobody undoes, and when: by table.  Deleting or changing one fails, whoever tries."""


def upgrade() -> None:
    op.create_table(
        "link_override",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("pair_index", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("evidence", PlainJSON(), nullable=False),
        sa.Column("organisation", sa.String(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("second_due", sa.Boolean(), nullable=False),
        sa.Column("second", sa.String(), nullable=False),
        sa.Column("review", sa.String(), nullable=True),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("valid_from", UTCDateTime(), nullable=False),
        sa.Column("valid_to", UTCDateTime(), nullable=True),
        sa.Column("made_at", UTCDateTime(), nullable=False),
        sa.Column("changed_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link_override")),
    )
    with op.batch_alter_table("link_override", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_link_override_kind"), ["kind"], unique=False)
        batch_op.create_index(batch_op.f("ix_link_override_pair_index"), ["pair_index"], unique=False)

    op.create_table(
        "review",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("pair_index", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("agency_l", sa.String(), nullable=False),
        sa.Column("agency_r", sa.String(), nullable=False),
        sa.Column("reference_l", sa.String(), nullable=False),
        sa.Column("reference_r", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("override", sa.String(), nullable=True),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("since", UTCDateTime(), nullable=False),
        sa.Column("changed_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
        sa.UniqueConstraint("pair_index", name=op.f("uq_review_pair_index")),
    )
    with op.batch_alter_table("review", schema=None) as batch_op:
        batch_op.create_index("ix_review_queue", ["state", "since", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_review_reference_l"), ["reference_l"], unique=False)
        batch_op.create_index(batch_op.f("ix_review_reference_r"), ["reference_r"], unique=False)

    op.create_table(
        "review_act",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("review", sa.String(), nullable=True),
        sa.Column("act", sa.String(), nullable=False),
        sa.Column("organisation", sa.String(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_act")),
    )
    with op.batch_alter_table("review_act", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_review_act_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_review_act_person"), ["person"], unique=False)
        batch_op.create_index(batch_op.f("ix_review_act_review"), ["review"], unique=False)

    op.create_table(
        "sever_mark",
        sa.Column("marker_index", sa.String(), nullable=False),
        sa.Column("record_index", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("marker_index", "record_index", name=op.f("pk_sever_mark")),
    )
    op.create_table(
        "link_override_record",
        sa.Column("override", sa.String(), nullable=False),
        sa.Column("record_index", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["override"], ["link_override.id"], name=op.f("fk_link_override_record_override_link_override")
        ),
        sa.PrimaryKeyConstraint("override", "record_index", name=op.f("pk_link_override_record")),
    )
    with op.batch_alter_table("link_override_record", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_link_override_record_record_index"), ["record_index"], unique=False)
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_unsevering() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'a sever is for good'; END $$"
        )
    for table, when in FOR_GOOD.items():
        for act in ("UPDATE", "DELETE"):
            name = f"{table}_for_good_{act.lower()}"
            if dialect == "postgresql":
                op.execute(
                    f"CREATE TRIGGER {name} BEFORE {act} ON {table} FOR EACH ROW WHEN ({when}) "
                    "EXECUTE FUNCTION refuse_unsevering()"
                )
            else:
                op.execute(
                    f"CREATE TRIGGER {name} BEFORE {act} ON {table} FOR EACH ROW WHEN {when} "
                    "BEGIN SELECT RAISE(ABORT, 'a sever is for good'); END"
                )


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    for table in FOR_GOOD:
        for act in ("update", "delete"):
            on = f" ON {table}" if dialect == "postgresql" else ""
            op.execute(f"DROP TRIGGER {table}_for_good_{act}{on}")
    if dialect == "postgresql":
        op.execute("DROP FUNCTION refuse_unsevering()")
    with op.batch_alter_table("link_override_record", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_link_override_record_record_index"))

    op.drop_table("link_override_record")
    op.drop_table("sever_mark")
    with op.batch_alter_table("review_act", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_review_act_review"))
        batch_op.drop_index(batch_op.f("ix_review_act_person"))
        batch_op.drop_index(batch_op.f("ix_review_act_at"))

    op.drop_table("review_act")
    with op.batch_alter_table("review", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_review_reference_r"))
        batch_op.drop_index(batch_op.f("ix_review_reference_l"))
        batch_op.drop_index("ix_review_queue")

    op.drop_table("review")
    with op.batch_alter_table("link_override", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_link_override_pair_index"))
        batch_op.drop_index(batch_op.f("ix_link_override_kind"))

    op.drop_table("link_override")
