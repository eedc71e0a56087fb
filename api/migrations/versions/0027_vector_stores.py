"""Uploaded files, vector stores, and the files in them"""

import sqlalchemy as sa
from alembic import op


revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def _text(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _number(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _collection(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f'fk_{table}_collection_id_collections')
    return sa.ForeignKeyConstraint(['collection_id'], ['collections.id'], name=name)


def upgrade() -> None:
    op.create_table(
        'files',
        _text('tenant_id'),
        *(_text(name) for name in ('id', 'name', 'purpose')),
        _number('bytes'),
        _text('blob'),
        _number('created_at'),
        _number('expires_at', True),
        _number('deleted_at', True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_files')),
    )
    op.create_table(
        'vector_stores',
        _text('tenant_id'),
        *(_text(name) for name in ('id', 'collection_id', 'name')),
        _text('description', True),
        sa.Column('notes', sa.JSON(), nullable=False),
        sa.Column('expires_days', sa.Integer(), nullable=True),
        _number('last_active_at'),
        _number('created_at'),
        _number('cleared_at', True),
        _number('deleted_at', True),
        _collection('vector_stores'),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_vector_stores')),
        sa.UniqueConstraint('collection_id', name=op.f('uq_vector_stores_collection_id')),
    )
    op.create_table(
        'vector_store_files',
        _text('tenant_id'),
        *(_text(name) for name in ('collection_id', 'file_id', 'state')),
        sa.Column('revision', sa.Integer(), nullable=False),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ('attributes', 'labels', 'chunking')),
        _text('error_code', True),
        _text('error_detail', True),
        _number('created_at'),
        _number('changed_at'),
        _collection('vector_store_files'),
        sa.PrimaryKeyConstraint('collection_id', 'file_id', name=op.f('pk_vector_store_files')),
    )
    op.create_table(
        'file_batches',
        _text('tenant_id'),
        *(_text(name) for name in ('id', 'collection_id')),
        sa.Column('file_ids', sa.JSON(), nullable=False),
        _number('created_at'),
        _number('cancelled_at', True),
        _collection('file_batches'),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_file_batches')),
    )
    for table, columns in INDEXES.items():
        for column in columns:
            op.create_index(op.f(f'ix_{table}_{column}'), table, [column], unique=False)


INDEXES = {
    'files': ('tenant_id', 'blob', 'expires_at', 'deleted_at'),
    'vector_stores': ('tenant_id', 'deleted_at'),
    'vector_store_files': ('tenant_id', 'file_id', 'state'),
    'file_batches': ('tenant_id', 'collection_id'),
}


def downgrade() -> None:
    for table in ('file_batches', 'vector_store_files', 'vector_stores', 'files'):
        op.drop_table(table)
