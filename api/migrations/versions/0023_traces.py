"""Traces of questions, and what of them was erased"""

import sqlalchemy as sa
from alembic import op


revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'traces',
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.Column('kind', sa.String(), nullable=False),
        sa.Column('subject', sa.String(), nullable=True),
        sa.Column('session_id', sa.String(), nullable=True),
        sa.Column('contents', sa.String(), nullable=False),
        sa.Column('body', sa.LargeBinary(), nullable=False),
        sa.Column('space', sa.String(), nullable=True),
        sa.Column('vectors', sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_traces')),
    )
    op.create_index('ix_traces_time', 'traces', ['tenant_id', 'at', 'id'], unique=False)
    for column in ('subject', 'session_id'):
        some = sa.column(column).is_not(None)
        columns = ['tenant_id', column, 'at']
        name = f"ix_traces_{column.removesuffix('_id')}"
        op.create_index(name, 'traces', columns, unique=False, sqlite_where=some, postgresql_where=some)
    op.create_table(
        'trace_erasures',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('kind', sa.String(), nullable=False),
        sa.Column('name', sa.String(), nullable=False),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('tenant_id', 'kind', 'name', name=op.f('pk_trace_erasures')),
    )
    op.create_index(op.f('ix_trace_erasures_at'), 'trace_erasures', ['at'], unique=False)


def downgrade() -> None:
    op.drop_table('trace_erasures')
    op.drop_table('traces')
