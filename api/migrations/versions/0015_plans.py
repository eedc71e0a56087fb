"""Plans, overrides of their limits, what is counted, suspended tenants, and deletions"""

import sqlalchemy as sa
from alembic import op

from config.database import SYSTEM_ROLE

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

COUNTED = ('documents', 'chunks', 'bytes', 'collections', 'sessions')


def upgrade() -> None:
    # No batch: SQLite would make the table anew, which others refer to.
    op.add_column('tenants', sa.Column('plan', sa.String(), nullable=True))
    op.add_column('tenants', sa.Column('metadata', sa.JSON(), server_default='{}', nullable=False))
    op.add_column('tenants', sa.Column('suspended_at', sa.BigInteger(), nullable=True))
    op.add_column('tenants', sa.Column('suspended_reads', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('tenants', sa.Column('deleted_at', sa.BigInteger(), nullable=True))
    op.add_column('tenants', sa.Column('changed_at', sa.BigInteger(), server_default='0', nullable=False))
    op.create_index(op.f('ix_tenants_changed_at'), 'tenants', ['changed_at'], unique=False)

    op.create_table(
        'limit_overrides',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('name', sa.String(), nullable=False),
        sa.Column('value', sa.String(), nullable=False),
        sa.Column('until', sa.BigInteger(), nullable=True),
        sa.Column('reason', sa.String(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('tenant_id', 'name', name=op.f('pk_limit_overrides')),
    )
    op.create_table(
        'quota_use',
        sa.Column('tenant_id', sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTED),
        sa.Column('closed', sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint('tenant_id', name=op.f('pk_quota_use')),
    )
    op.create_table(
        'tenant_deletions',
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('name', sa.String(), nullable=False),
        sa.Column('state', sa.String(), nullable=False),
        sa.Column('step', sa.String(), nullable=False),
        sa.Column('before', sa.JSON(), nullable=False),
        sa.Column('after', sa.JSON(), nullable=False),
        sa.Column('requested_at', sa.BigInteger(), nullable=False),
        sa.Column('finished_at', sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_tenant_deletions')),
        sa.UniqueConstraint('tenant_id', name=op.f('uq_tenant_deletions_tenant_id')),
    )
    op.add_column('documents', sa.Column('counted', sa.Boolean(), server_default=sa.false(), nullable=False))
    for name in ('counted_bytes', 'counted_chunks'):
        op.add_column('documents', sa.Column(name, sa.BigInteger(), server_default='0', nullable=False))
    _count()


def _count() -> None:
    """What there is already. On PostgreSQL the owner of the tables sees no rows: the role that sees all of them does it."""
    walled = op.get_bind().dialect.name == "postgresql"
    if walled:
        tables = "tenants, collections, documents, document_versions, version_chunks, quota_use"
        op.execute(f"GRANT SELECT, INSERT, UPDATE ON {tables} TO {SYSTEM_ROLE}")
        op.execute(f"SET LOCAL ROLE {SYSTEM_ROLE}")
    waits = "document_versions.document_id = documents.id AND document_versions.state IN ('queued', 'live')"
    op.execute(
        f"UPDATE documents SET counted = true, "
        f"counted_bytes = (SELECT SUM(bytes) FROM document_versions WHERE {waits}), "
        "counted_chunks = (SELECT COUNT(*) FROM version_chunks WHERE version_id = documents.live_version_id) "
        f"WHERE deleted_at IS NULL AND EXISTS (SELECT 1 FROM document_versions WHERE {waits})"
    )
    op.execute(
        "INSERT INTO quota_use (tenant_id, documents, chunks, bytes, collections, sessions, closed) SELECT id, "
        "(SELECT COUNT(*) FROM documents WHERE tenant_id = tenants.id AND counted), "
        "COALESCE((SELECT SUM(counted_chunks) FROM documents WHERE tenant_id = tenants.id), 0), "
        "COALESCE((SELECT SUM(counted_bytes) FROM documents WHERE tenant_id = tenants.id), 0), "
        "(SELECT COUNT(*) FROM collections WHERE tenant_id = tenants.id), 0, false FROM tenants"
    )
    if walled:
        op.execute("SET LOCAL ROLE NONE")


def downgrade() -> None:
    for column in ('counted_chunks', 'counted_bytes', 'counted'):
        op.drop_column('documents', column)
    for table in ('tenant_deletions', 'quota_use', 'limit_overrides'):
        op.drop_table(table)
    op.drop_index(op.f('ix_tenants_changed_at'), 'tenants')
    for column in ('changed_at', 'deleted_at', 'suspended_reads', 'suspended_at', 'metadata', 'plan'):
        op.drop_column('tenants', column)
