"""Collections: whether near questions share answers, and how long former versions are kept; when versions were live"""

import sqlalchemy as sa
from alembic import op


revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No batch: SQLite would make the tables anew, which others refer to.
    op.add_column('collections', sa.Column('semantic_cache', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('collections', sa.Column('semantic_threshold', sa.Float(), server_default='0.95', nullable=False))
    op.add_column('collections', sa.Column('keep_versions_days', sa.Integer(), server_default='0', nullable=False))
    op.add_column('collections', sa.Column('versions_kept_since', sa.BigInteger(), nullable=True))
    op.add_column('document_versions', sa.Column('live_from', sa.BigInteger(), nullable=True))
    op.add_column('document_versions', sa.Column('live_until', sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for column in ('live_until', 'live_from'):
        op.drop_column('document_versions', column)
    for column in ('versions_kept_since', 'keep_versions_days', 'semantic_threshold', 'semantic_cache'):
        op.drop_column('collections', column)
