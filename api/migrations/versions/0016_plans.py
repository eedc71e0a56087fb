"""Plans, overrides of their limits, what is counted, suspended tenants, and deletions"""

import sqlalchemy as sa
from alembic import op


revision = "0016"
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


def downgrade() -> None:
    for table in ('tenant_deletions', 'quota_use', 'limit_overrides'):
        op.drop_table(table)
    op.drop_index(op.f('ix_tenants_changed_at'), 'tenants')
    for column in ('changed_at', 'deleted_at', 'suspended_reads', 'suspended_at', 'metadata', 'plan'):
        op.drop_column('tenants', column)
