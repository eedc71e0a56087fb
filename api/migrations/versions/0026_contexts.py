"""Contexts of sessions: pinned turns, and what turns that left the window came to"""

import sqlalchemy as sa
from alembic import op


revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'session_pins',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=False),
        sa.Column('seq', sa.Integer(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_session_pins_session_id_sessions')),
        sa.PrimaryKeyConstraint('session_id', 'seq', name=op.f('pk_session_pins')),
    )
    op.create_index(op.f('ix_session_pins_tenant_id'), 'session_pins', ['tenant_id'], unique=False)
    op.create_table(
        'session_recaps',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=False),
        sa.Column('first_seq', sa.Integer(), nullable=False),
        sa.Column('last_seq', sa.Integer(), nullable=False),
        sa.Column('text', sa.String(), nullable=False),
        sa.Column('method', sa.String(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_session_recaps_session_id_sessions')),
        sa.PrimaryKeyConstraint('session_id', 'first_seq', 'last_seq', name=op.f('pk_session_recaps')),
    )
    op.create_index(op.f('ix_session_recaps_tenant_id'), 'session_recaps', ['tenant_id'], unique=False)


def downgrade() -> None:
    op.drop_table('session_recaps')
    op.drop_table('session_pins')
