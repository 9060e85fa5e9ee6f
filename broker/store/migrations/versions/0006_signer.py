"""The log's shards, each under keys of its own; and how far the rounds of what to consider are in which of them."""

import sqlalchemy as sa
from alembic import op

from broker.store.columns import PlainJSON, UTCDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_shard",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("opened_at", UTCDateTime(), nullable=False),
        sa.Column("closed_at", UTCDateTime(), nullable=True),
        sa.Column("frozen", sa.Boolean(), nullable=False),
        sa.Column("follows", sa.String(), nullable=True),
        sa.Column("follows_size", sa.BigInteger(), nullable=True),
        sa.Column("follows_root", sa.LargeBinary(), nullable=True),
        sa.Column("keys", PlainJSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_shard")),
        sa.UniqueConstraint("log_id", name=op.f("uq_audit_shard_log_id")),
    )
    with op.batch_alter_table("consideration_round", schema=None) as batch_op:
        batch_op.add_column(sa.Column("log_id", sa.String(), nullable=True))
    # rounds held so far are of the one log that there was
    op.execute("UPDATE consideration_round SET log_id = (SELECT max(log_id) FROM audit_head)")
    op.execute("DELETE FROM consideration_round WHERE log_id IS NULL")
    with op.batch_alter_table("consideration_round", schema=None) as batch_op:
        batch_op.alter_column("log_id", existing_type=sa.String(), nullable=False)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER audit_shard_no_delete BEFORE DELETE ON audit_shard "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    else:
        op.execute(
            "CREATE TRIGGER audit_shard_no_delete BEFORE DELETE ON audit_shard "
            "BEGIN SELECT RAISE(ABORT, 'this table is only added to'); END"
        )


def downgrade() -> None:
    with op.batch_alter_table("consideration_round", schema=None) as batch_op:
        batch_op.drop_column("log_id")
    op.drop_table("audit_shard")
