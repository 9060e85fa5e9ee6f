"""What each item that comes in paid for and nothing asked: found by its batch, and its agency looked up beside it.

A batch is of an agency that is there, and an item of a batch that is there.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("item", schema=None) as batch_op:
        batch_op.drop_index("ix_item_batch")
        batch_op.drop_constraint("fk_item_agency_agency", type_="foreignkey")


def downgrade() -> None:
    with op.batch_alter_table("item", schema=None) as batch_op:
        batch_op.create_foreign_key("fk_item_agency_agency", "agency", ["agency"], ["id"])
        batch_op.create_index("ix_item_batch", ["batch"], unique=False)
