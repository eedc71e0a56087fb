"""Profiles: of collections, of the versions brought under them, and the priority of their jobs"""

import sqlalchemy as sa
from alembic import op


revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# How every version was cut before there were profiles.
FORMER = '{"chunk_tokens": 212, "context_tokens": 40, "overlap_tokens": 0, "splitter": "auto"}'


def upgrade() -> None:
    with op.batch_alter_table('collections', schema=None) as batch_op:
        batch_op.add_column(sa.Column('profile', sa.String(), server_default='standard', nullable=False))

    with op.batch_alter_table('document_versions', schema=None) as batch_op:
        batch_op.add_column(sa.Column('profile', sa.String(), server_default='standard', nullable=False))
        batch_op.add_column(sa.Column('chunking', sa.JSON(), server_default=FORMER, nullable=False))

    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.add_column(sa.Column('priority', sa.Integer(), server_default='2', nullable=False))


def downgrade() -> None:
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.drop_column('priority')

    with op.batch_alter_table('document_versions', schema=None) as batch_op:
        batch_op.drop_column('chunking')
        batch_op.drop_column('profile')

    with op.batch_alter_table('collections', schema=None) as batch_op:
        batch_op.drop_column('profile')
