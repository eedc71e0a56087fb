"""The audit record: places in a chain, checkpoints, what was begun, sums by hour; and what tenants have, as counted"""

import sqlalchemy as sa
from alembic import op


revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No batch: SQLite would copy every entry. What is there already is sealed like what comes, from the oldest on.
    op.add_column('audit_entries', sa.Column('position', sa.BigInteger(), nullable=True))
    op.add_column('audit_entries', sa.Column('hash', sa.LargeBinary(), nullable=True))
    op.drop_index(op.f('ix_audit_entries_tenant_id'), table_name='audit_entries')
    op.create_index('ix_audit_entries_time', 'audit_entries', ['tenant_id', 'at', 'id'], unique=False)
    op.create_index('ix_audit_entries_chain', 'audit_entries', ['tenant_id', 'position'], unique=False)
    unsealed = sa.text('position IS NULL')
    op.create_index(
        'ix_audit_entries_unsealed', 'audit_entries', ['tenant_id', 'id'], unique=False,
        sqlite_where=unsealed, postgresql_where=unsealed,
    )

    op.create_table(
        'audit_intents',
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('tenant_id', sa.String(), nullable=True),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.Column('request_id', sa.String(), nullable=False),
        sa.Column('principal_kind', sa.String(), nullable=False),
        sa.Column('principal_id', sa.String(), nullable=False),
        sa.Column('action', sa.String(), nullable=False),
        sa.Column('target', sa.String(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_intents')),
    )
    op.create_index(op.f('ix_audit_intents_at'), 'audit_intents', ['at'], unique=False)

    op.create_table(
        'audit_checkpoints',
        sa.Column('chain', sa.String(), nullable=False),
        sa.Column('first', sa.BigInteger(), nullable=False),
        sa.Column('tenant_id', sa.String(), nullable=True),
        sa.Column('last', sa.BigInteger(), nullable=False),
        sa.Column('before', sa.LargeBinary(), nullable=False),
        sa.Column('head', sa.LargeBinary(), nullable=False),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.Column('key', sa.LargeBinary(), nullable=False),
        sa.Column('signature', sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint('chain', 'first', name=op.f('pk_audit_checkpoints')),
    )
    op.create_index('ix_audit_checkpoints_last', 'audit_checkpoints', ['chain', 'last'], unique=False)

    op.create_table(
        'audit_hours',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('hour', sa.BigInteger(), nullable=False),
        sa.Column('requests', sa.BigInteger(), nullable=False),
        sa.Column('queries', sa.BigInteger(), nullable=False),
        sa.Column('denied', sa.BigInteger(), nullable=False),
        sa.Column('failed', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('tenant_id', 'hour', name=op.f('pk_audit_hours')),
    )
    op.create_index(op.f('ix_audit_hours_hour'), 'audit_hours', ['hour'], unique=False)


def downgrade() -> None:
    for table in ('audit_hours', 'audit_checkpoints', 'audit_intents'):
        op.drop_table(table)
    for name in ('unsealed', 'chain', 'time'):
        op.drop_index(f'ix_audit_entries_{name}', table_name='audit_entries')
    op.create_index(op.f('ix_audit_entries_tenant_id'), 'audit_entries', ['tenant_id'], unique=False)
    for column in ('hash', 'position'):
        op.drop_column('audit_entries', column)
