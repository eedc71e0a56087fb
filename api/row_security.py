"""The wall inside PostgreSQL: who may touch which rows, derived from the tables so that none can be forgotten.

Nobody logs in as TENANT_ROLE or SYSTEM_ROLE: each transaction takes one on (`config.database`). The tenant's sees rows of
the tenant that the transaction names, and nothing without one. FORCE makes the rules hold for the tables' owner too, who
has no rule and so sees nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError
from sqlmodel import SQLModel

from config.database import SYSTEM_ROLE, TENANT_ROLE, TENANT_SETTING, TenantOwned
from config.errors import SetupError
from tenants.identity.keys import FIND_KEY

ALL = "SELECT, INSERT, UPDATE, DELETE"
#: Tables that are not `TenantOwned`: what the tenant's role may do, and the column that says whose a row is (None: nobody's).
OTHERS: dict[str, tuple[str | None, str | None]] = {
    "tenants": ("SELECT", "id"),
    "audit_entries": ("SELECT, INSERT", "tenant_id"),
    "audit_intents": ("SELECT, INSERT, DELETE", "tenant_id"),
    "audit_checkpoints": ("SELECT", "tenant_id"),
    "idempotency_records": (ALL, "tenant_id"),
    "api_keys": (None, "tenant_id"),  # reached through FIND_KEY alone
    "instances": (None, None),
    "tenant_deletions": (None, "tenant_id"),
    "rate_buckets": (None, None),
    "spaces": ("SELECT", None),
}
LEAST_VERSION = 16  # of PostgreSQL: the first in which a membership may be used without being inherited
LACKING_RIGHTS = """The database user may not make the two roles that separate tenants. Let an administrator run this once:
  {statements}"""


def raise_walls(connection: sa.Connection) -> None:
    """Give rights and policies as the tables of this version need them. Run again, it changes nothing."""
    for table in SQLModel.metadata.sorted_tables:
        for statement in _statements(table):
            connection.exec_driver_sql(statement)
    for statement in (*_FIND_KEY, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {TENANT_ROLE}, {SYSTEM_ROLE}"):
        connection.exec_driver_sql(statement)


def make_roles(connection: sa.Connection) -> None:
    """Raise SetupError, saying what an administrator must run, where this user may not."""
    version = connection.scalar(sa.select(sa.func.current_setting("server_version_num"))) or "0"
    if int(version) < LEAST_VERSION * 10_000:
        raise SetupError(f"PostgreSQL {LEAST_VERSION} or newer is needed.")
    missing = _missing(connection)
    try:
        for statement in missing:
            connection.exec_driver_sql(statement)
    except ProgrammingError as error:
        raise SetupError(LACKING_RIGHTS.format(statements="\n  ".join(f"{each};" for each in missing))) from error
    if left := _missing(connection):  # another has granted more than this user can take back
        raise SetupError(LACKING_RIGHTS.format(statements="\n  ".join(f"{each};" for each in left)))


def _missing(connection: sa.Connection) -> list[str]:
    """What is left to be run. A role must be taken on to count: inherited, its rules would hold for every statement."""
    name, is_superuser = sa.column("rolname", sa.String), sa.column("rolsuper", sa.Boolean)
    roles = {row.rolname: row.rolsuper for row in connection.execute(sa.select(name, is_superuser).select_from(_ROLES))}
    user, statements = connection.scalar(sa.select(sa.func.current_user())), []
    for role in (TENANT_ROLE, SYSTEM_ROLE):
        if role not in roles:
            statements.append(f"CREATE ROLE {role} NOLOGIN")
        elif roles[user] or _is_taken_on(connection, role):
            continue
        statements.append(f'GRANT {role} TO "{user}" WITH INHERIT FALSE, SET TRUE')
    return statements


def _is_taken_on(connection: sa.Connection, role: str) -> bool:
    may_set, inherits = (sa.func.pg_has_role(role, kind, type_=sa.Boolean) for kind in ("SET", "USAGE"))
    return connection.scalar(sa.select(may_set & ~inherits)) or False


_ROLES = sa.table("pg_roles")


def _statements(table: sa.Table) -> list[str]:
    rights, owner = _rules()[table.name]
    statements = [
        f"REVOKE ALL ON {table.name} FROM {TENANT_ROLE}, PUBLIC",
        f"GRANT {ALL} ON {table.name} TO {SYSTEM_ROLE}",
    ]
    if rights is not None:
        statements.append(f"GRANT {rights} ON {table.name} TO {TENANT_ROLE}")
    if owner is None:
        return statements
    own = f"{owner} = current_setting('{TENANT_SETTING}', true)"
    return [
        *statements,
        f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS own_rows ON {table.name}",
        f"CREATE POLICY own_rows ON {table.name} TO {TENANT_ROLE} USING ({own}) WITH CHECK ({own})",
        f"DROP POLICY IF EXISTS all_rows ON {table.name}",
        f"CREATE POLICY all_rows ON {table.name} TO {SYSTEM_ROLE} USING (true) WITH CHECK (true)",
    ]


def _rules() -> dict[str, tuple[str | None, str | None]]:
    """A table that is neither TenantOwned nor in OTHERS has no rule, and the service does not start with it."""
    mappers = TenantOwned._sa_registry.mappers
    owned = [mapper.class_.__tablename__ for mapper in mappers if issubclass(mapper.class_, TenantOwned)]
    return {str(name): (ALL, "tenant_id") for name in owned} | OTHERS


#: Finding out whose key it is comes before any tenant is known: one function that gives the one row of one id.
_FIND_KEY = (
    # Its owner decides what it sees, and to own something in a schema one must be allowed to create there.
    f"GRANT CREATE, USAGE ON SCHEMA public TO {SYSTEM_ROLE}",
    f"SET LOCAL ROLE {SYSTEM_ROLE}",
    "CREATE OR REPLACE FUNCTION " + FIND_KEY + "(wanted text) RETURNS SETOF api_keys LANGUAGE sql STABLE SECURITY DEFINER "
    "SET search_path = public, pg_temp BEGIN ATOMIC SELECT * FROM api_keys WHERE id = wanted; END",
    f"REVOKE ALL ON FUNCTION {FIND_KEY}(text) FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION {FIND_KEY}(text) TO {TENANT_ROLE}",
    "SET LOCAL ROLE NONE",
    f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM_ROLE}",
    f"GRANT USAGE ON SCHEMA public TO {TENANT_ROLE}",
)
