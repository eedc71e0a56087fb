"""Keys: read-only, allowed addresses, expiry, rotation, last use, and when they changed; rate limits of several processes"""

import sqlalchemy as sa
from alembic import op


revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('api_keys', sa.Column('read_only', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('api_keys', sa.Column('allowed_addresses', sa.JSON(), nullable=True))
    op.add_column('api_keys', sa.Column('replaces', sa.String(), nullable=True))
    op.add_column('api_keys', sa.Column('expires_at', sa.BigInteger(), nullable=True))
    op.add_column('api_keys', sa.Column('last_used_at', sa.BigInteger(), nullable=True))
    op.add_column('api_keys', sa.Column('changed_at', sa.BigInteger(), server_default='0', nullable=False))
    op.create_index(op.f('ix_api_keys_changed_at'), 'api_keys', ['changed_at'], unique=False)
    op.create_table(
        'rate_buckets',
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('ahead_until', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_rate_buckets')),
    )
    op.create_index(op.f('ix_rate_buckets_ahead_until'), 'rate_buckets', ['ahead_until'], unique=False)


def downgrade() -> None:
    op.drop_table('rate_buckets')
    op.drop_index(op.f('ix_api_keys_changed_at'), table_name='api_keys')
    for column in ('changed_at', 'last_used_at', 'expires_at', 'replaces', 'allowed_addresses', 'read_only'):
        op.drop_column('api_keys', column)
