"""Collections: whether near questions share answers"""

import sqlalchemy as sa
from alembic import op


revision = '0015'
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('collections', schema=None) as batch_op:
        batch_op.add_column(sa.Column('semantic_cache', sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column('semantic_threshold', sa.Float(), server_default='0.95', nullable=False))


def downgrade() -> None:
    with op.batch_alter_table('collections', schema=None) as batch_op:
        for column in ('semantic_threshold', 'semantic_cache'):
            batch_op.drop_column(column)
