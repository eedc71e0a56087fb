"""What is attached to sessions, vectors that are taken over, and erasures"""

import sqlalchemy as sa
from alembic import op


revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

IN_SESSION, IS_COPY = sa.text("session_id IS NOT NULL"), sa.text("copied_from IS NOT NULL")


def upgrade() -> None:
    op.add_column('collections', sa.Column('session_id', sa.String(), nullable=True))
    op.create_index(
        'ix_collections_session_id', 'collections', ['session_id'], sqlite_where=IN_SESSION, postgresql_where=IN_SESSION
    )
    op.add_column('document_versions', sa.Column('copied_from', sa.String(), nullable=True))
    op.create_index(
        'ix_document_versions_copied_from',
        'document_versions',
        ['copied_from'],
        sqlite_where=IS_COPY,
        postgresql_where=IS_COPY,
    )
    op.add_column('idempotency_records', sa.Column('subject', sa.String(), nullable=True))
    op.add_column('idempotency_records', sa.Column('session_id', sa.String(), nullable=True))
    op.create_index(
        'ix_idempotency_records_session_id',
        'idempotency_records',
        ['session_id'],
        sqlite_where=IN_SESSION,
        postgresql_where=IN_SESSION,
    )
    op.create_table(
        'erasures',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('kind', sa.String(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=True),
        sa.Column('subject', sa.String(), nullable=True),
        sa.Column('who', sa.String(), nullable=False),
        sa.Column('state', sa.String(), nullable=False),
        sa.Column('before', sa.JSON(), nullable=False),
        sa.Column('after', sa.JSON(), nullable=False),
        sa.Column('requested_at', sa.BigInteger(), nullable=False),
        sa.Column('finished_at', sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_erasures')),
    )
    op.create_index(op.f('ix_erasures_state'), 'erasures', ['state'], unique=False)
    op.create_index(op.f('ix_erasures_tenant_id'), 'erasures', ['tenant_id'], unique=False)


def downgrade() -> None:
    op.drop_table('erasures')
    op.drop_index('ix_idempotency_records_session_id', table_name='idempotency_records')
    op.drop_column('idempotency_records', 'session_id')
    op.drop_column('idempotency_records', 'subject')
    op.drop_index('ix_document_versions_copied_from', table_name='document_versions')
    op.drop_column('document_versions', 'copied_from')
    op.drop_index('ix_collections_session_id', table_name='collections')
    op.drop_column('collections', 'session_id')
