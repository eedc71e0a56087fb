"""What users say of answers: question sets, feedback, and what collections were tuned to"""

import sqlalchemy as sa
from alembic import op


revision = "0013"
down_revision = "0012"
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

    op.create_table(
        'feedback',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('collection_id', sa.String(), nullable=False),
        sa.Column('document_id', sa.String(), nullable=False),
        sa.Column('passage_id', sa.String(), nullable=True),
        sa.Column('request', sa.String(), nullable=False),
        sa.Column('query', sa.String(), nullable=False),
        sa.Column('useful', sa.Boolean(), nullable=True),
        sa.Column('rating', sa.Integer(), nullable=True),
        sa.Column('comment', sa.String(), nullable=True),
        sa.Column('subject', sa.String(), nullable=True),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(['collection_id'], ['collections.id'], name=op.f('fk_feedback_collection_id_collections')),
        sa.ForeignKeyConstraint(['document_id'], ['documents.id'], name=op.f('fk_feedback_document_id_documents')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_feedback')),
        sa.UniqueConstraint('tenant_id', 'request', name=op.f('uq_feedback_tenant_id_request')),
    )
    op.create_index('ix_feedback_tenant_id_id', 'feedback', ['tenant_id', 'id'], unique=False)
    op.create_index(op.f('ix_feedback_tenant_id'), 'feedback', ['tenant_id'], unique=False)
    op.create_index(op.f('ix_feedback_collection_id'), 'feedback', ['collection_id'], unique=False)
    op.create_index(op.f('ix_feedback_document_id'), 'feedback', ['document_id'], unique=False)

    op.create_table(
        'tunings',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('collection_id', sa.String(), nullable=False),
        sa.Column('version', sa.Integer(), nullable=False),
        sa.Column('replaces', sa.Integer(), nullable=False),
        sa.Column('parameters', sa.JSON(), nullable=False),
        sa.Column('figures', sa.JSON(), nullable=False),
        sa.Column('applied_at', sa.BigInteger(), nullable=False),
        sa.Column('rolled_back_at', sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(['collection_id'], ['collections.id'], name=op.f('fk_tunings_collection_id_collections')),
        sa.PrimaryKeyConstraint('collection_id', 'version', name=op.f('pk_tunings')),
    )
    op.create_index(op.f('ix_tunings_tenant_id'), 'tunings', ['tenant_id'], unique=False)

    with op.batch_alter_table('collections', schema=None) as batch_op:
        batch_op.add_column(sa.Column('tuning', sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table('collections', schema=None) as batch_op:
        batch_op.drop_column('tuning')

    op.drop_table('tunings')
    op.drop_table('feedback')
    op.drop_table('question_sets')
