"""Passages that are returned in place of chunks"""

import sqlalchemy as sa
from alembic import op


revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('version_chunks', schema=None) as batch_op:
        batch_op.add_column(sa.Column('parent_start', sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column('parent_end', sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column('gap', sa.String(), nullable=True))
        batch_op.create_index('ix_version_chunks_parent', ['version_id', 'parent_start'], unique=False, sqlite_where=sa.text('parent_start IS NOT NULL'), postgresql_where=sa.text('parent_start IS NOT NULL'))


def downgrade() -> None:
    with op.batch_alter_table('version_chunks', schema=None) as batch_op:
        batch_op.drop_index('ix_version_chunks_parent')
        batch_op.drop_column('gap')
        batch_op.drop_column('parent_end')
        batch_op.drop_column('parent_start')
