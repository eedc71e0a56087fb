"""Collections: the kinds of their documents' attributes; numeric slots for times"""

import sqlalchemy as sa
from alembic import op


revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No batch: SQLite would make the tables anew, which others refer to.
    op.add_column('collections', sa.Column('attribute_types', sa.JSON(), server_default='{}', nullable=False))
    op.add_column('numeric_slots', sa.Column('kind', sa.String(), server_default='number', nullable=False))
