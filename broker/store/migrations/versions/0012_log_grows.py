"""The log's head only grows, a tile is only widened, and of an event only the body goes.

As with rows that are only added to: hygiene, not proof.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_FACTS = ("event_id", "log_id", "seq", "t_ms", "type", "op", "org", "actor_ref", "role", "purpose", "outcome")
REFUSED = {
    "audit_head": ("only_grows", "NEW.log_id <> OLD.log_id OR NEW.size < OLD.size OR NEW.epoch < OLD.epoch"),
    "audit_tile": (
        "only_widens",
        "NEW.log_id <> OLD.log_id OR NEW.level <> OLD.level OR NEW.n <> OLD.n OR NEW.width < OLD.width"
        " OR substr(NEW.data, 1, length(OLD.data)) <> OLD.data",
    ),
    "audit_event": (
        "only_emptied",
        " OR ".join(f"NEW.{fact} <> OLD.{fact}" for fact in _FACTS)
        + " OR (OLD.sections IS NULL AND NEW.sections IS NOT NULL) OR (OLD.detail IS NULL AND NEW.detail IS NOT NULL)",
    ),
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        refuse = "EXECUTE FUNCTION refuse_change()"
    else:
        refuse = "BEGIN SELECT RAISE(ABORT, 'this table is only added to'); END"
    for table, (name, change) in REFUSED.items():
        op.execute(f"CREATE TRIGGER {table}_{name} BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({change}) {refuse}")


def downgrade() -> None:
    for table, (name, _) in REFUSED.items():
        on = f" ON {table}" if op.get_bind().dialect.name == "postgresql" else ""
        op.execute(f"DROP TRIGGER {table}_{name}{on}")
