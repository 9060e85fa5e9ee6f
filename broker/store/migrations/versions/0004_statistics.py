"""Releases of planning statistics, and whose staff a person at the broker acts as.  What was released never changes."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import PlainJSON, UTCDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FIXED = "organisation, asked, period, attempt, published_as, catalogue, run, terms, figures, sealed, prepared_by"
REFUSED = {"update": f"UPDATE OF {FIXED}", "delete": "DELETE"}


def upgrade() -> None:
    op.create_table(
        "statistics_release",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("organisation", sa.String(), nullable=False),
        sa.Column("asked", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("published_as", sa.String(), nullable=False),
        sa.Column("catalogue", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("terms", PlainJSON(), nullable=False),
        sa.Column("figures", PlainJSON(), nullable=False),
        sa.Column("feeds", PlainJSON(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("prepared_by", sa.String(), nullable=False),
        sa.Column("prepared_at", UTCDateTime(), nullable=False),
        sa.Column("checked_by", sa.String(), nullable=False),
        sa.Column("checked_at", UTCDateTime(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_statistics_release")),
        sa.UniqueConstraint(
            "organisation", "asked", "period", "attempt",
            name=op.f("uq_statistics_release_organisation_asked_period_attempt"),
        ),
    )  # fmt: skip
    with op.batch_alter_table("statistics_release", schema=None) as batch_op:
        batch_op.create_index(
            "ix_statistics_release_organisation_prepared_at", ["organisation", "prepared_at"], unique=False
        )
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.add_column(sa.Column("organisation", sa.String(), nullable=False, server_default=""))
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_rereleasing() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'a release never changes'; END $$"
        )
    for act, when in REFUSED.items():
        begun = f"CREATE TRIGGER statistics_release_no_{act} BEFORE {when} ON statistics_release"
        if dialect == "postgresql":
            op.execute(f"{begun} FOR EACH ROW EXECUTE FUNCTION refuse_rereleasing()")
        else:
            op.execute(f"{begun} BEGIN SELECT RAISE(ABORT, 'a release never changes'); END")


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    for act in REFUSED:
        on = " ON statistics_release" if dialect == "postgresql" else ""
        op.execute(f"DROP TRIGGER statistics_release_no_{act}{on}")
    if dialect == "postgresql":
        op.execute("DROP FUNCTION refuse_rereleasing()")
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.drop_column("organisation")
    with op.batch_alter_table("statistics_release", schema=None) as batch_op:
        batch_op.drop_index("ix_statistics_release_organisation_prepared_at")

    op.drop_table("statistics_release")
