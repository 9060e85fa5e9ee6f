"""The line that a witness put first under a checkpoint is kept beside its newest: a sample is drawn by a first one."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_cosig", sa.Column("first_t_s", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("audit_cosig", sa.Column("first_line", sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE audit_cosig SET first_t_s = t_s, first_line = line")


def downgrade() -> None:
    """Raises RuntimeError where a first line is not the newest too: it is kept nowhere else, and samples hang on it."""
    lost = sa.text("SELECT count(*) FROM audit_cosig WHERE first_line <> line")
    if count := op.get_bind().execute(lost).scalar_one():
        raise RuntimeError(
            f"going back below 0016 would lose the first lines of {count} cosignatures: keep this version"
        )
    op.drop_column("audit_cosig", "first_line")
    op.drop_column("audit_cosig", "first_t_s")
