"""Memories: their versions, where they come from, and the row of each subject that writers hold"""

import sqlalchemy as sa
from alembic import op


revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

IN_FORCE = sa.column('replaced_at').is_(None) & sa.column('valid_to').is_(None) & sa.column('key').is_not(None)


def upgrade() -> None:
    op.create_table(
        'memory_versions',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('memory_id', sa.String(), nullable=False),
        sa.Column('number', sa.Integer(), nullable=False),
        sa.Column('subject', sa.String(), nullable=False),
        sa.Column('agent', sa.String(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=False),
        sa.Column('key', sa.String(), nullable=True),
        sa.Column('text', sa.String(), nullable=False),
        sa.Column('said', sa.String(), nullable=False),
        sa.Column('tags', sa.JSON(), nullable=False),
        sa.Column('data', sa.JSON(), nullable=False),
        sa.Column('valid_from', sa.BigInteger(), nullable=False),
        sa.Column('valid_to', sa.BigInteger(), nullable=True),
        sa.Column('superseded_by', sa.String(), nullable=True),
        sa.Column('conflicts_with', sa.JSON(), nullable=False),
        sa.Column('confirmations', sa.Integer(), nullable=False),
        sa.Column('confirmed_at', sa.BigInteger(), nullable=True),
        sa.Column('expires_at', sa.BigInteger(), nullable=True),
        sa.Column('action', sa.String(), nullable=False),
        sa.Column('reason', sa.String(), nullable=True),
        sa.Column('changed_by', sa.String(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.Column('recorded_at', sa.BigInteger(), nullable=False),
        sa.Column('replaced_at', sa.BigInteger(), nullable=True),
        sa.Column('deleted', sa.Boolean(), nullable=False),
        sa.Column('space', sa.String(), nullable=True),
        sa.Column('vector', sa.LargeBinary(), nullable=True),
        sa.Column('terms', sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint('memory_id', 'number', name=op.f('pk_memory_versions')),
    )
    op.create_index(op.f('ix_memory_versions_tenant_id'), 'memory_versions', ['tenant_id'])
    op.create_index(op.f('ix_memory_versions_expires_at'), 'memory_versions', ['expires_at'])
    op.create_index('ix_memory_versions_tenant_id_memory_id', 'memory_versions', ['tenant_id', 'memory_id'])
    op.create_index(
        'ix_memory_versions_tenant_id_subject_replaced_at', 'memory_versions', ['tenant_id', 'subject', 'replaced_at']
    )
    op.create_index('ix_memory_versions_tenant_id_session_id', 'memory_versions', ['tenant_id', 'session_id'])
    op.create_index(
        'uq_memory_versions_in_force',
        'memory_versions',
        ['tenant_id', 'subject', 'agent', 'session_id', 'key'],
        unique=True,
        sqlite_where=IN_FORCE,
        postgresql_where=IN_FORCE,
    )
    op.create_table(
        'memory_sources',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('memory_id', sa.String(), nullable=False),
        sa.Column('number', sa.Integer(), nullable=False),
        sa.Column('place', sa.Integer(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=True),
        sa.Column('seq', sa.Integer(), nullable=True),
        sa.Column('document_id', sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ['memory_id', 'number'],
            ['memory_versions.memory_id', 'memory_versions.number'],
            name=op.f('fk_memory_sources_memory_id_number_memory_versions'),
        ),
        sa.PrimaryKeyConstraint('memory_id', 'number', 'place', name=op.f('pk_memory_sources')),
    )
    op.create_index(op.f('ix_memory_sources_tenant_id'), 'memory_sources', ['tenant_id'])
    op.create_index('ix_memory_sources_tenant_id_session_id', 'memory_sources', ['tenant_id', 'session_id'])
    op.create_table(
        'memory_subjects',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('subject', sa.String(), nullable=False),
        sa.Column('changed_at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('tenant_id', 'subject', name=op.f('pk_memory_subjects')),
    )


def downgrade() -> None:
    op.drop_table('memory_subjects')
    op.drop_table('memory_sources')
    op.drop_table('memory_versions')
