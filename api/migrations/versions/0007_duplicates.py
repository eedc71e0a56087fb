"""Near-duplicates: what versions are compared by, and what was found; and jobs that run after others"""

import sqlalchemy as sa
from alembic import op


revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('collections', schema=None) as batch_op:
        batch_op.add_column(sa.Column('near_duplicates', sa.String(), server_default='keep', nullable=False))
        batch_op.add_column(sa.Column('near_threshold', sa.Float(), server_default='0.9', nullable=False))

    with op.batch_alter_table('document_versions', schema=None) as batch_op:
        batch_op.add_column(sa.Column('near_document_id', sa.String(), nullable=True))
        batch_op.add_column(sa.Column('near_version_id', sa.String(), nullable=True))
        batch_op.add_column(sa.Column('near_similarity', sa.Float(), nullable=True))
        batch_op.add_column(sa.Column('linked', sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.create_index(batch_op.f('ix_document_versions_near_document_id'), ['near_document_id'])

    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.add_column(sa.Column('outcome', sa.String(), nullable=True))
        batch_op.add_column(sa.Column('after', sa.JSON(), server_default='[]', nullable=False))
        batch_op.add_column(sa.Column('after_policy', sa.String(), server_default='all_succeeded', nullable=False))
        batch_op.add_column(sa.Column('held', sa.Boolean(), server_default=sa.false(), nullable=False))

    op.create_table(
        'sketches',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('version_id', sa.String(), nullable=False),
        sa.Column('signature', sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ['version_id'], ['document_versions.id'], name=op.f('fk_sketches_version_id_document_versions')
        ),
        sa.PrimaryKeyConstraint('version_id', name=op.f('pk_sketches')),
    )
    op.create_index(op.f('ix_sketches_tenant_id'), 'sketches', ['tenant_id'])

    op.create_table(
        'sketch_bands',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('version_id', sa.String(), nullable=False),
        sa.Column('band', sa.Integer(), nullable=False),
        sa.Column('collection_id', sa.String(), nullable=False),
        sa.Column('hash', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(['version_id'], ['sketches.version_id'], name=op.f('fk_sketch_bands_version_id_sketches')),
        sa.PrimaryKeyConstraint('version_id', 'band', name=op.f('pk_sketch_bands')),
    )
    op.create_index('ix_sketch_bands_lookup', 'sketch_bands', ['tenant_id', 'collection_id', 'hash', 'version_id'])

    op.create_table(
        'job_dependencies',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('job_id', sa.String(), nullable=False),
        sa.Column('needs_id', sa.String(), nullable=False),
        sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_job_dependencies_job_id_jobs')),
        sa.ForeignKeyConstraint(['needs_id'], ['jobs.id'], name=op.f('fk_job_dependencies_needs_id_jobs')),
        sa.PrimaryKeyConstraint('job_id', 'needs_id', name=op.f('pk_job_dependencies')),
    )
    op.create_index(op.f('ix_job_dependencies_tenant_id'), 'job_dependencies', ['tenant_id'])
    op.create_index(op.f('ix_job_dependencies_needs_id'), 'job_dependencies', ['needs_id'])


def downgrade() -> None:
    for table in ('job_dependencies', 'sketch_bands', 'sketches'):
        op.drop_table(table)

    with op.batch_alter_table('jobs', schema=None) as batch_op:
        for column in ('held', 'after_policy', 'after', 'outcome'):
            batch_op.drop_column(column)

    with op.batch_alter_table('document_versions', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_document_versions_near_document_id'))
        for column in ('linked', 'near_similarity', 'near_version_id', 'near_document_id'):
            batch_op.drop_column(column)

    with op.batch_alter_table('collections', schema=None) as batch_op:
        batch_op.drop_column('near_threshold')
        batch_op.drop_column('near_duplicates')
