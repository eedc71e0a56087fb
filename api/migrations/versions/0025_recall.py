"""Vectors of turns"""

import sqlalchemy as sa
from alembic import op


revision = "0025"
down_revision = "0023"
branch_labels = None
depends_on = None

IS_BEHIND = sa.text("turns > embedded_turns")


def upgrade() -> None:
    op.create_table(
        'turn_vectors',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('turn_id', sa.String(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=False),
        sa.Column('seq', sa.Integer(), nullable=False),
        sa.Column('space', sa.String(), nullable=False),
        sa.Column('vector', sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_turn_vectors_session_id_sessions')),
        sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_turn_vectors_turn_id_turns')),
        sa.PrimaryKeyConstraint('turn_id', name=op.f('pk_turn_vectors')),
        sa.UniqueConstraint('session_id', 'seq', name=op.f('uq_turn_vectors_session_id_seq')),
    )
    op.create_index(op.f('ix_turn_vectors_tenant_id'), 'turn_vectors', ['tenant_id'], unique=False)
    op.add_column('sessions', sa.Column('embedded_turns', sa.Integer(), nullable=False, server_default='0'))
    op.create_index(
        'ix_sessions_behind', 'sessions', ['tenant_id', 'id'], unique=False, sqlite_where=IS_BEHIND, postgresql_where=IS_BEHIND
    )


def downgrade() -> None:
    op.drop_index('ix_sessions_behind', table_name='sessions')
    op.drop_column('sessions', 'embedded_turns')
    op.drop_table('turn_vectors')
