"""Lexical features of chunks, and how many chunks of a collection have each"""

import sqlalchemy as sa
from alembic import op


revision = '0011'
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('chunks', schema=None) as batch_op:
        batch_op.add_column(sa.Column('terms', sa.LargeBinary(), nullable=True))

    op.create_table(
        'term_counts',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('collection_id', sa.String(), nullable=False),
        sa.Column('number', sa.BigInteger(), nullable=False),
        sa.Column('counts', sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(['collection_id'], ['collections.id'], name=op.f('fk_term_counts_collection_id_collections')),
        sa.PrimaryKeyConstraint('collection_id', 'number', name=op.f('pk_term_counts')),
    )
    op.create_index(op.f('ix_term_counts_tenant_id'), 'term_counts', ['tenant_id'], unique=False)


def downgrade() -> None:
    op.drop_index(op.f('ix_term_counts_tenant_id'), table_name='term_counts')
    op.drop_table('term_counts')

    with op.batch_alter_table('chunks', schema=None) as batch_op:
        batch_op.drop_column('terms')
