"""Sessions that end are found by when they do, and an erased subject is known by a pseudonym"""

import sqlalchemy as sa
from alembic import op


revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

IS_GONE, IS_LIVING = sa.text("state IN ('expired', 'erased')"), sa.text("state NOT IN ('expired', 'erased')")


def upgrade() -> None:
    op.drop_index(op.f('ix_sessions_expires_at'), table_name='sessions')
    op.drop_index('ix_sessions_gone', table_name='sessions')
    if op.get_bind().dialect.name == 'postgresql':  # the tables' owner sees no row, until the walls are raised again
        op.execute('ALTER TABLE sessions NO FORCE ROW LEVEL SECURITY')
    op.execute("UPDATE sessions SET expires_at = 0 WHERE state IN ('expired', 'erased') AND expires_at IS NULL")
    _some('ix_sessions_due', ['expires_at'], IS_LIVING)
    _some('ix_sessions_gone', ['expires_at', 'id'], IS_GONE)
    _fences('who')


def downgrade() -> None:
    op.drop_index('ix_sessions_gone', table_name='sessions')
    op.drop_index('ix_sessions_due', table_name='sessions')
    _some('ix_sessions_gone', ['state'], IS_GONE)
    op.create_index(op.f('ix_sessions_expires_at'), 'sessions', ['expires_at'], unique=False)
    _fences('kind', 'name')


def _some(name: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, 'sessions', columns, unique=False, sqlite_where=where, postgresql_where=where)


def _fences(*keys: str) -> None:
    """Made anew: what is in it is looked at for an hour."""
    op.drop_table('trace_erasures')
    op.create_table(
        'trace_erasures',
        sa.Column('tenant_id', sa.String(), nullable=False),
        *(sa.Column(key, sa.String(), nullable=False) for key in keys),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('tenant_id', *keys, name=op.f('pk_trace_erasures')),
    )
    op.create_index(op.f('ix_trace_erasures_at'), 'trace_erasures', ['at'], unique=False)
