"""The first tables."""

# ruff: noqa: PLR0915

import sqlalchemy as sa
from alembic import op

from broker.store.columns import PlainJSON, UTCDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agency",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("party_type", sa.String(), nullable=False),
        sa.Column("sector", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("partnership", sa.String(), nullable=False),
        sa.Column("key_epoch", sa.String(), nullable=False),
        sa.Column("key_fingerprint", sa.String(), nullable=False),
        sa.Column("canaries", PlainJSON(), nullable=False),
        sa.Column("roles", PlainJSON(), nullable=False),
        sa.Column("contacts", PlainJSON(), nullable=False),
        sa.Column("enrolled_at", UTCDateTime(), nullable=False),
        sa.Column("changed_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agency")),
    )
    op.create_table(
        "agreement",
        sa.Column("ref", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("under", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("imported_at", UTCDateTime(), nullable=False),
        sa.Column("changed_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_agreement")),
    )
    with op.batch_alter_table("agreement", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_agreement_digest"), ["digest"], unique=False)
        batch_op.create_index(batch_op.f("ix_agreement_id"), ["id"], unique=False)
        batch_op.create_index(batch_op.f("ix_agreement_owner"), ["owner"], unique=False)

    op.create_table(
        "audit_blob",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "name", name=op.f("pk_audit_blob")),
    )
    op.create_table(
        "audit_checkpoint",
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("log_id", "size", name=op.f("pk_audit_checkpoint")),
    )
    op.create_table(
        "audit_cosig",
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("witness", sa.String(), nullable=False),
        sa.Column("t_s", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("log_id", "size", "witness", name=op.f("pk_audit_cosig")),
    )
    op.create_table(
        "audit_entry",
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("log_id", "seq", name=op.f("pk_audit_entry")),
        sa.UniqueConstraint("event_id", name=op.f("uq_audit_entry_event_id")),
    )
    op.create_table(
        "audit_event",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("t_ms", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("op", sa.String(), nullable=False),
        sa.Column("org", sa.String(), nullable=False),
        sa.Column("actor_ref", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("case_hmac", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("break_glass", sa.Boolean(), nullable=False),
        sa.Column("sections", sa.LargeBinary(), nullable=True),
        sa.Column("detail", sa.LargeBinary(), nullable=True),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("erased_at", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_audit_event")),
    )
    with op.batch_alter_table("audit_event", schema=None) as batch_op:
        batch_op.create_index("ix_audit_event_actor_ref_t_ms", ["actor_ref", "t_ms"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_event_case_hmac"), ["case_hmac"], unique=False)
        batch_op.create_index("ix_audit_event_log_id_seq", ["log_id", "seq"], unique=False)
        batch_op.create_index("ix_audit_event_org_t_ms", ["org", "t_ms"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_event_t_ms"), ["t_ms"], unique=False)
        batch_op.create_index("ix_audit_event_type_t_ms", ["type", "t_ms"], unique=False)

    op.create_table(
        "audit_flag",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("raised_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_flag")),
    )
    with op.batch_alter_table("audit_flag", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_flag_event_id"), ["event_id"], unique=False)

    op.create_table(
        "audit_head",
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "audit_outbox",
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("idem_key", sa.String(), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("commitment", sa.LargeBinary(), nullable=False),
        sa.Column("columns", PlainJSON(), nullable=False),
        sa.Column("sections", sa.LargeBinary(), nullable=False),
        sa.Column("detail", sa.LargeBinary(), nullable=False),
        sa.Column("key_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("subjects", PlainJSON(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_audit_outbox_event_id")),
        sa.UniqueConstraint("idem_key", name=op.f("uq_audit_outbox_idem_key")),
    )
    op.create_table(
        "audit_review",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("decision", sa.String(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=True),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("signed_off_by", sa.String(), nullable=True),
        sa.Column("signed_off_at", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_review")),
    )
    with op.batch_alter_table("audit_review", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_review_event_id"), ["event_id"], unique=False)

    op.create_table(
        "audit_rollup",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("org", sa.String(), nullable=False),
        sa.Column("actor_ref", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "org", "actor_ref", "type", name=op.f("pk_audit_rollup")),
    )
    op.create_table(
        "audit_subject",
        sa.Column("idx_hmac", sa.String(), nullable=False),
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("idx_hmac", "log_id", "seq", name=op.f("pk_audit_subject")),
    )
    op.create_table(
        "audit_tile",
        sa.Column("log_id", sa.String(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log_id", "level", "n", name=op.f("pk_audit_tile")),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_installation_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.create_table(
        "link_run",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("night", sa.Date(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("previous", sa.String(), nullable=True),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("segments", PlainJSON(), nullable=False),
        sa.Column("model_sha256", sa.String(), nullable=True),
        sa.Column("counts", PlainJSON(), nullable=False),
        sa.Column("failure", sa.String(), nullable=True),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("lease_until", UTCDateTime(), nullable=False),
        sa.Column("started_at", UTCDateTime(), nullable=False),
        sa.Column("finished_at", UTCDateTime(), nullable=True),
        sa.Column("published_at", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link_run")),
    )
    with op.batch_alter_table("link_run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_link_run_night"), ["night"], unique=False)

    op.create_table(
        "linkage_model",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("profile", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("comparison", PlainJSON(), nullable=True),
        sa.Column("accepted_by", sa.String(), nullable=True),
        sa.Column("trained_at", UTCDateTime(), nullable=False),
        sa.Column("in_service_from", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_linkage_model")),
    )
    op.create_table(
        "session",
        sa.Column("id_sha256", sa.String(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("csrf", sa.String(), nullable=False),
        sa.Column("started_at", UTCDateTime(), nullable=False),
        sa.Column("seen_at", UTCDateTime(), nullable=False),
        sa.Column("ends_at", UTCDateTime(), nullable=False),
        sa.Column("revoked_at", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id_sha256", name=op.f("pk_session")),
    )
    op.create_table(
        "spent_token",
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("use", sa.String(), nullable=False),
        sa.Column("jti_sha256", sa.String(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "use", "jti_sha256", name=op.f("pk_spent_token")),
    )
    with op.batch_alter_table("spent_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_spent_token_expires_at"), ["expires_at"], unique=False)

    op.create_table(
        "agency_flow",
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("flow", sa.String(), nullable=False),
        sa.Column("expected_by", sa.String(), nullable=False),
        sa.Column("contact", sa.String(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("last_sequence", sa.Integer(), nullable=False),
        sa.Column("last_manifest_sha256", sa.String(), nullable=False),
        sa.Column("last_batch", sa.String(), nullable=True),
        sa.Column("last_accepted_at", UTCDateTime(), nullable=True),
        sa.Column("as_of", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_agency_flow_agency_agency")),
        sa.PrimaryKeyConstraint("agency", "flow", name=op.f("pk_agency_flow")),
    )
    op.create_table(
        "agency_key",
        sa.Column("kid", sa.String(), nullable=False),
        sa.Column("use", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("public", sa.String(), nullable=False),
        sa.Column("enrolled_at", UTCDateTime(), nullable=False),
        sa.Column("revoked_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_agency_key_agency_agency")),
        sa.PrimaryKeyConstraint("kid", "use", name=op.f("pk_agency_key")),
    )
    with op.batch_alter_table("agency_key", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_agency_key_agency"), ["agency"], unique=False)

    op.create_table(
        "agreement_signature",
        sa.Column("agreement", sa.String(), nullable=False),
        sa.Column("party", sa.String(), nullable=False),
        sa.Column("kid", sa.String(), nullable=False),
        sa.Column("jws", sa.String(), nullable=False),
        sa.Column("received_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["agreement"], ["agreement.ref"], name=op.f("fk_agreement_signature_agreement_agreement")
        ),
        sa.PrimaryKeyConstraint("agreement", "party", name=op.f("pk_agreement_signature")),
    )
    op.create_table(
        "agreement_status",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("agreement", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("jws", sa.String(), nullable=True),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["agreement"], ["agreement.ref"], name=op.f("fk_agreement_status_agreement_agreement")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_agreement_status")),
    )
    with op.batch_alter_table("agreement_status", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_agreement_status_agreement"), ["agreement"], unique=False)

    op.create_table(
        "batch",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("flow", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("manifest_sha256", sa.String(), nullable=False),
        sa.Column("signature", sa.String(), nullable=False),
        sa.Column("profile", sa.String(), nullable=False),
        sa.Column("key_epoch", sa.String(), nullable=False),
        sa.Column("dek_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("first_status", sa.Integer(), nullable=False),
        sa.Column("first_response", sa.LargeBinary(), nullable=False),
        sa.Column("counts", PlainJSON(), nullable=False),
        sa.Column("verdict", PlainJSON(), nullable=True),
        sa.Column("received_event", sa.String(), nullable=True),
        sa.Column("verdict_event", sa.String(), nullable=True),
        sa.Column("extracted_at", UTCDateTime(), nullable=False),
        sa.Column("opened_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.Column("sealed_at", UTCDateTime(), nullable=True),
        sa.Column("decided_at", UTCDateTime(), nullable=True),
        sa.Column("linked_run", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_batch_agency_agency")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint("agency", "idempotency_key", name=op.f("uq_batch_agency_idempotency_key")),
    )
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_batch_linked_run"), ["linked_run"], unique=False)
        batch_op.create_index("ix_batch_state", ["state"], unique=False)
        batch_op.create_index(
            "uq_batch_live_sequence",
            ["agency", "flow", "sequence"],
            unique=True,
            sqlite_where=sa.text("state <> 'rejected'"),
            postgresql_where=sa.text("state <> 'rejected'"),
        )

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

    op.create_table(
        "published",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_published_single")),
        sa.ForeignKeyConstraint(["run"], ["link_run.id"], name=op.f("fk_published_run_link_run")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_published")),
    )
    op.create_table(
        "person_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("after", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["link_run.id"], name=op.f("fk_person_event_run_link_run")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person_event")),
    )
    with op.batch_alter_table("person_event", schema=None) as batch_op:
        batch_op.create_index("ix_person_event_after", ["after"], unique=False)
        batch_op.create_index("ix_person_event_before_seq", ["before", "seq"], unique=False)
        batch_op.create_index(batch_op.f("ix_person_event_run"), ["run"], unique=False)

    op.create_table(
        "search",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("session", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("basis", PlainJSON(), nullable=False),
        sa.Column("case_hmac", sa.String(), nullable=False),
        sa.Column("household", PlainJSON(), nullable=False),
        sa.Column("family_informed", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=True),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_search_agency_agency")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search")),
    )
    with op.batch_alter_table("search", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_search_case_hmac"), ["case_hmac"], unique=False)
        batch_op.create_index(batch_op.f("ix_search_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_search_person"), ["person"], unique=False)

    op.create_table(
        "batch_chunk",
        sa.Column("batch", sa.String(), nullable=False),
        sa.Column("table", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("arrived_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batch.id"], name=op.f("fk_batch_chunk_batch_batch")),
        sa.PrimaryKeyConstraint("batch", "table", "number", name=op.f("pk_batch_chunk")),
    )
    op.create_table(
        "batch_rejection",
        sa.Column("batch", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("table", sa.String(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=True),
        sa.Column("column", sa.String(), nullable=True),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batch.id"], name=op.f("fk_batch_rejection_batch_batch")),
        sa.PrimaryKeyConstraint("batch", "position", name=op.f("pk_batch_rejection")),
    )
    op.create_table(
        "item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("flow", sa.String(), nullable=False),
        sa.Column("record_ref", sa.String(), nullable=False),
        sa.Column("item_ref", sa.String(), nullable=False),
        sa.Column("category", sa.String(), nullable=False),
        sa.Column("occurred_on", sa.Date(), nullable=True),
        sa.Column("recorded_on", sa.Date(), nullable=True),
        sa.Column("retain_until", sa.Date(), nullable=True),
        sa.Column("batch", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["agency"], ["agency.id"], name=op.f("fk_item_agency_agency")),
        sa.ForeignKeyConstraint(["batch"], ["batch.id"], name=op.f("fk_item_batch_batch")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item")),
        sa.UniqueConstraint("agency", "flow", "item_ref", name=op.f("uq_item_agency_flow_item_ref")),
    )
    with op.batch_alter_table("item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_item_batch"), ["batch"], unique=False)
        batch_op.create_index("ix_item_record", ["agency", "flow", "record_ref"], unique=False)

    op.create_table(
        "search_candidate",
        sa.Column("search", sa.String(), nullable=False),
        sa.Column("candidate", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("band", sa.String(), nullable=False),
        sa.Column("upper", sa.Boolean(), nullable=False),
        sa.Column("agreed", PlainJSON(), nullable=False),
        sa.Column("differs", PlainJSON(), nullable=False),
        sa.Column("records", PlainJSON(), nullable=False),
        sa.ForeignKeyConstraint(["search"], ["search.id"], name=op.f("fk_search_candidate_search_search")),
        sa.PrimaryKeyConstraint("search", "candidate", name=op.f("pk_search_candidate")),
    )
    with op.batch_alter_table("search_candidate", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_search_candidate_person_id"), ["person_id"], unique=False)

    op.create_table(
        "threshold",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("case_hmac", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("search", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("grounds", sa.String(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["search"], ["search.id"], name=op.f("fk_threshold_search_search")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threshold")),
    )
    with op.batch_alter_table("threshold", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_threshold_case_hmac"), ["case_hmac"], unique=False)

    op.create_table(
        "view",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("search", sa.String(), nullable=False),
        sa.Column("candidate", sa.String(), nullable=False),
        sa.Column("agency", sa.String(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("ends_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["search"], ["search.id"], name=op.f("fk_view_search_search")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_view")),
    )
    with op.batch_alter_table("view", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_view_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_view_person"), ["person"], unique=False)
        batch_op.create_index(batch_op.f("ix_view_search"), ["search"], unique=False)

    op.create_table(
        "view_person",
        sa.Column("view", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["view"], ["view.id"], name=op.f("fk_view_person_view_view")),
        sa.PrimaryKeyConstraint("view", "person_id", name=op.f("pk_view_person")),
    )
    with op.batch_alter_table("view_person", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_view_person_person_id"), ["person_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("view_person", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_view_person_person_id"))

    op.drop_table("view_person")
    with op.batch_alter_table("view", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_view_search"))
        batch_op.drop_index(batch_op.f("ix_view_person"))
        batch_op.drop_index(batch_op.f("ix_view_at"))

    op.drop_table("view")
    with op.batch_alter_table("threshold", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_threshold_case_hmac"))

    op.drop_table("threshold")
    with op.batch_alter_table("search_candidate", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_search_candidate_person_id"))

    op.drop_table("search_candidate")
    with op.batch_alter_table("item", schema=None) as batch_op:
        batch_op.drop_index("ix_item_record")
        batch_op.drop_index(batch_op.f("ix_item_batch"))

    op.drop_table("item")
    op.drop_table("batch_rejection")
    op.drop_table("batch_chunk")
    with op.batch_alter_table("search", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_search_person"))
        batch_op.drop_index(batch_op.f("ix_search_created_at"))
        batch_op.drop_index(batch_op.f("ix_search_case_hmac"))

    op.drop_table("search")
    with op.batch_alter_table("person_event", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_person_event_run"))
        batch_op.drop_index("ix_person_event_before_seq")
        batch_op.drop_index("ix_person_event_after")

    op.drop_table("person_event")
    op.drop_table("linkage_model")
    op.drop_table("published")
    with op.batch_alter_table("notice", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_notice_due_at"))
        batch_op.drop_index(batch_op.f("ix_notice_agency"))

    op.drop_table("notice")
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_batch_live_sequence",
            sqlite_where=sa.text("state <> 'rejected'"),
            postgresql_where=sa.text("state <> 'rejected'"),
        )
        batch_op.drop_index("ix_batch_state")
        batch_op.drop_index(batch_op.f("ix_batch_linked_run"))

    op.drop_table("batch")
    with op.batch_alter_table("agreement_status", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_agreement_status_agreement"))

    op.drop_table("agreement_status")
    op.drop_table("agreement_signature")
    with op.batch_alter_table("agency_key", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_agency_key_agency"))

    op.drop_table("agency_key")
    op.drop_table("agency_flow")
    with op.batch_alter_table("spent_token", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_spent_token_expires_at"))

    op.drop_table("spent_token")
    op.drop_table("session")
    with op.batch_alter_table("link_run", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_link_run_night"))

    op.drop_table("link_run")
    op.drop_table("installation")
    op.drop_table("audit_tile")
    op.drop_table("audit_subject")
    op.drop_table("audit_rollup")
    with op.batch_alter_table("audit_review", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_review_event_id"))

    op.drop_table("audit_review")
    op.drop_table("audit_outbox")
    op.drop_table("audit_head")
    with op.batch_alter_table("audit_flag", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_flag_event_id"))

    op.drop_table("audit_flag")
    with op.batch_alter_table("audit_event", schema=None) as batch_op:
        batch_op.drop_index("ix_audit_event_type_t_ms")
        batch_op.drop_index(batch_op.f("ix_audit_event_t_ms"))
        batch_op.drop_index("ix_audit_event_org_t_ms")
        batch_op.drop_index("ix_audit_event_log_id_seq")
        batch_op.drop_index(batch_op.f("ix_audit_event_case_hmac"))
        batch_op.drop_index("ix_audit_event_actor_ref_t_ms")

    op.drop_table("audit_event")
    op.drop_table("audit_entry")
    op.drop_table("audit_cosig")
    op.drop_table("audit_checkpoint")
    op.drop_table("audit_blob")
    with op.batch_alter_table("agreement", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_agreement_owner"))
        batch_op.drop_index(batch_op.f("ix_agreement_id"))
        batch_op.drop_index(batch_op.f("ix_agreement_digest"))

    op.drop_table("agreement")
    op.drop_table("agency")
