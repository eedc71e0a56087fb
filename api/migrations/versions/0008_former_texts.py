"""What the cache still holds of a document's former versions: erased with the document"""

import sqlalchemy as sa
from alembic import op


revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'former_texts',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('document_id', sa.String(), nullable=False),
        sa.Column('key', sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint('document_id', 'key', name=op.f('pk_former_texts')),
    )
    op.create_index(op.f('ix_former_texts_tenant_id'), 'former_texts', ['tenant_id'])


def downgrade() -> None:
    op.drop_index(op.f('ix_former_texts_tenant_id'), table_name='former_texts')
    op.drop_table('former_texts')
