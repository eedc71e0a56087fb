"""Sessions, their tags, and turns"""

import sqlalchemy as sa
from alembic import op


revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

IS_GONE = sa.text("state IN ('expired', 'erased')")


def upgrade() -> None:
    op.create_table(
        'sessions',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('subject', sa.String(), nullable=False),
        sa.Column('title', sa.String(), nullable=True),
        sa.Column('tags', sa.JSON(), nullable=False),
        sa.Column('data', sa.JSON(), nullable=False),
        sa.Column('state', sa.String(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.Column('last_active_at', sa.BigInteger(), nullable=False),
        sa.Column('idle_ttl_s', sa.Integer(), nullable=True),
        sa.Column('absolute_ttl_s', sa.Integer(), nullable=True),
        sa.Column('expires_at', sa.BigInteger(), nullable=True),
        sa.Column('turns', sa.Integer(), nullable=False),
        sa.Column('tokens', sa.BigInteger(), nullable=False),
        sa.Column('archived_turns', sa.Integer(), nullable=False),
        sa.Column('archived_tokens', sa.BigInteger(), nullable=False),
        sa.Column('max_turns', sa.Integer(), nullable=True),
        sa.Column('max_tokens', sa.Integer(), nullable=True),
        sa.Column('when_full', sa.String(), nullable=False),
        sa.Column('budget_tokens', sa.BigInteger(), nullable=True),
        sa.Column('budget_micro_usd', sa.BigInteger(), nullable=True),
        sa.Column('spent_tokens', sa.BigInteger(), nullable=False),
        sa.Column('spent_cost', sa.BigInteger(), nullable=False),
        sa.Column('forked_from', sa.String(), nullable=True),
        sa.Column('forked_at_seq', sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_sessions')),
    )
    op.create_index(op.f('ix_sessions_tenant_id'), 'sessions', ['tenant_id'], unique=False)
    op.create_index('ix_sessions_tenant_id_id', 'sessions', ['tenant_id', 'id'], unique=False)
    op.create_index('ix_sessions_tenant_id_subject_id', 'sessions', ['tenant_id', 'subject', 'id'], unique=False)
    op.create_index(op.f('ix_sessions_expires_at'), 'sessions', ['expires_at'], unique=False)
    op.create_index('ix_sessions_gone', 'sessions', ['state'], unique=False, sqlite_where=IS_GONE, postgresql_where=IS_GONE)

    op.create_table(
        'session_tags',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=False),
        sa.Column('tag', sa.String(), nullable=False),
        sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_session_tags_session_id_sessions')),
        sa.PrimaryKeyConstraint('session_id', 'tag', name=op.f('pk_session_tags')),
    )
    op.create_index(op.f('ix_session_tags_tenant_id'), 'session_tags', ['tenant_id'], unique=False)
    op.create_index(
        'ix_session_tags_tenant_id_tag_session_id', 'session_tags', ['tenant_id', 'tag', 'session_id'], unique=False
    )

    op.create_table(
        'turns',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=False),
        sa.Column('seq', sa.Integer(), nullable=False),
        sa.Column('role', sa.String(), nullable=False),
        sa.Column('speaker', sa.String(), nullable=True),
        sa.Column('content', sa.String(), nullable=False),
        sa.Column('tool_calls', sa.JSON(none_as_null=True), nullable=True),
        sa.Column('data', sa.JSON(), nullable=False),
        sa.Column('files', sa.JSON(), nullable=False),
        sa.Column('tokens', sa.Integer(), nullable=False),
        sa.Column('said_at', sa.BigInteger(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.Column('content_hash', sa.String(), nullable=False),
        sa.Column('idempotency_key', sa.String(), nullable=True),
        sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_turns_session_id_sessions')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_turns')),
        sa.UniqueConstraint('session_id', 'seq', name=op.f('uq_turns_session_id_seq')),
        sa.UniqueConstraint('session_id', 'idempotency_key', name=op.f('uq_turns_session_id_idempotency_key')),
    )
    op.create_index(op.f('ix_turns_tenant_id'), 'turns', ['tenant_id'], unique=False)


def downgrade() -> None:
    op.drop_table('turns')
    op.drop_table('session_tags')
    op.drop_table('sessions')
