"""${message}"""

# ruff: noqa: PLR0915

import sqlalchemy as sa
from alembic import op

from broker.store.columns import PlainJSON, UTCDateTime

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
