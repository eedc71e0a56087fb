"""Money beside tokens: prices and costs of the ledger, parts of a hold, texts whose vector was known"""

import sqlalchemy as sa
from alembic import op


revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WHERE = sa.text('part_of IS NOT NULL')


def upgrade() -> None:
    with op.batch_alter_table('budget_windows', schema=None) as batch_op:
        batch_op.add_column(sa.Column('cost', sa.BigInteger(), server_default='0', nullable=False))

    with op.batch_alter_table('ledger', schema=None) as batch_op:
        batch_op.add_column(sa.Column('price', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('cost', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('part_of', sa.String(), nullable=True))
        batch_op.create_index('ix_ledger_part_of', ['tenant_id', 'part_of'], unique=False, sqlite_where=WHERE, postgresql_where=WHERE)

    with op.batch_alter_table('usage_days', schema=None) as batch_op:
        for name in ('hits', 'cost', 'saved_cost'):
            batch_op.add_column(sa.Column(name, sa.BigInteger(), server_default='0', nullable=False))


def downgrade() -> None:
    with op.batch_alter_table('usage_days', schema=None) as batch_op:
        for name in ('saved_cost', 'cost', 'hits'):
            batch_op.drop_column(name)

    with op.batch_alter_table('ledger', schema=None) as batch_op:
        batch_op.drop_index('ix_ledger_part_of')
        for name in ('part_of', 'cost', 'price'):
            batch_op.drop_column(name)

    with op.batch_alter_table('budget_windows', schema=None) as batch_op:
        batch_op.drop_column('cost')
