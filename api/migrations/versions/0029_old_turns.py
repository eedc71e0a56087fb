"""What was said in old turns lies packed"""

import zlib

import orjson
import sqlalchemy as sa
from alembic import op

from config.database import SYSTEM_ROLE


revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

IS_COMPACTABLE = sa.text("archived_turns - compacted_turns >= 100")
HAS_VECTORS = sa.text("packed_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        'turn_archives',
        sa.Column('tenant_id', sa.String(), nullable=False),
        sa.Column('session_id', sa.String(), nullable=False),
        sa.Column('last_seq', sa.Integer(), nullable=False),
        sa.Column('first_seq', sa.Integer(), nullable=False),
        sa.Column('checksum', sa.LargeBinary(), nullable=False),
        sa.Column('packed', sa.LargeBinary(), nullable=False),
        sa.Column('packed_at', sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_turn_archives_session_id_sessions')),
        sa.PrimaryKeyConstraint('session_id', 'last_seq', name=op.f('pk_turn_archives')),
    )
    op.create_index(op.f('ix_turn_archives_tenant_id'), 'turn_archives', ['tenant_id'], unique=False)
    op.create_index(
        'ix_turn_archives_vectors', 'turn_archives', ['tenant_id', 'packed_at'], unique=False,
        sqlite_where=HAS_VECTORS, postgresql_where=HAS_VECTORS,
    )
    op.add_column('sessions', sa.Column('compacted_turns', sa.Integer(), nullable=False, server_default='0'))
    op.create_index(
        'ix_sessions_compactable', 'sessions', ['id'], unique=False,
        sqlite_where=IS_COMPACTABLE, postgresql_where=IS_COMPACTABLE,
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == 'postgresql':  # the owner of the tables sees no rows
        op.execute(f"SET LOCAL ROLE {SYSTEM_ROLE}")
        _give_back()
        op.execute("SET LOCAL ROLE NONE")
    else:
        _give_back()
    op.drop_index('ix_sessions_compactable', table_name='sessions')
    op.drop_column('sessions', 'compacted_turns')
    op.drop_table('turn_archives')


def _give_back() -> None:
    """To the turns' own rows; a piece that is damaged stops it, and nothing is lost."""
    connection = op.get_bind()
    archives = sa.table('turn_archives', *map(sa.column, ('session_id', 'last_seq', 'first_seq', 'packed')))
    json = [sa.column(name, sa.JSON(none_as_null=name == 'tool_calls')) for name in ('tool_calls', 'data', 'files')]
    turns = sa.table('turns', sa.column('session_id'), sa.column('seq'), sa.column('content'), *json)
    place = archives.c.session_id, archives.c.last_seq
    after = ('', 0)
    while True:
        page = sa.select(archives).where(sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after))).order_by(*place).limit(1)
        archive = connection.execute(page).one_or_none()
        if archive is None:
            return
        after = archive.session_id, archive.last_seq
        for seq, said in enumerate(orjson.loads(zlib.decompress(archive.packed)), archive.first_seq):
            own = turns.c.session_id == archive.session_id, turns.c.seq == seq
            values = dict(zip(('content', 'tool_calls', 'data', 'files'), said))
            connection.execute(sa.update(turns).where(*own).values(values))
