"""What users say of answers: question sets, feedback, and what collections were tuned to"""

import sqlalchemy as sa
from alembic import op


revision = '0014'
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'question_sets',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('collection_id', sa.String(), nullable=False),
        sa.Column('name', sa.String(), nullable=False),
        sa.Column('count', sa.Integer(), nullable=False),
        sa.Column('questions', sa.JSON(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(['collection_id'], ['collections.id'], name=op.f('fk_question_sets_collection_id_collections')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_question_sets')),
        sa.UniqueConstraint('tenant_id', 'collection_id', 'name', name=op.f('uq_question_sets_tenant_id_collection_id_name')),
    )
    op.create_index(op.f('ix_question_sets_tenant_id'), 'question_sets', ['tenant_id'], unique=False)
    op.create_index(op.f('ix_question_sets_collection_id'), 'question_sets', ['collection_id'], unique=False)


def downgrade() -> None:
    op.drop_table('question_sets')
