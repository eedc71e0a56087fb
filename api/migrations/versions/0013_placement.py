"""Whether an operator chose where a collection's points lie"""

import sqlalchemy as sa
from alembic import op


revision = '0013'
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No batch: SQLite would make the table anew, which others refer to.
    op.add_column('collections', sa.Column('placement_chosen', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index('ix_collections_placement', 'collections', ['placement'])


def downgrade() -> None:
    op.drop_index('ix_collections_placement', 'collections')
    op.drop_column('collections', 'placement_chosen')
