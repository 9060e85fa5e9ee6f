"""The log's rows are only added to.  Hygiene, not proof: who owns the database can drop a trigger, and is found out."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REFUSED = {
    "audit_entry": ("UPDATE", "DELETE"),
    "audit_event": ("DELETE",),
    "audit_checkpoint": ("UPDATE", "DELETE"),
    "audit_head": ("DELETE",),
    "audit_tile": ("DELETE",),
    "agreement_status": ("UPDATE", "DELETE"),
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'this table is only added to'; END $$"
        )
    for table, acts in REFUSED.items():
        for act in acts:
            name = f"{table}_no_{act.lower()}"
            if dialect == "postgresql":
                op.execute(
                    f"CREATE TRIGGER {name} BEFORE {act} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
                )
            else:
                op.execute(
                    f"CREATE TRIGGER {name} BEFORE {act} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'this table is only added to'); END"
                )
        if dialect == "postgresql":  # which fires no trigger of a row; SQLite has no TRUNCATE
            op.execute(
                f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} EXECUTE FUNCTION refuse_change()"
            )


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    for table, acts in REFUSED.items():
        for act in acts:
            on = f" ON {table}" if dialect == "postgresql" else ""
            op.execute(f"DROP TRIGGER {table}_no_{act.lower()}{on}")
        if dialect == "postgresql":
            op.execute(f"DROP TRIGGER {table}_no_truncate ON {table}")
    if dialect == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
