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
from tenants.keys import FIND_KEY

ALL = "SELECT, INSERT, UPDATE, DELETE"
#: Tables that are not `TenantOwned`: what the tenant's role may do, and the column that says whose a row is (None: nobody's).
OTHERS: dict[str, tuple[str | None, str | None]] = {
    "tenants": ("SELECT", "id"),
    "audit_entries": ("SELECT, INSERT", "tenant_id"),
    "idempotency_records": (ALL, "tenant_id"),
    "api_keys": (None, "tenant_id"),  # reached through FIND_KEY alone
    "instances": (None, None),
    "spaces": ("SELECT", None),
}
LACKING_RIGHTS = f"""The database user may not make the two roles that separate tenants. Let an administrator run this once:
  CREATE ROLE {TENANT_ROLE} NOLOGIN; CREATE ROLE {SYSTEM_ROLE} NOLOGIN; GRANT {TENANT_ROLE}, {SYSTEM_ROLE} TO "{{user}}";"""


def raise_walls(connection: sa.Connection) -> None:
    """Give rights and policies as the tables of this version need them. Run again, it changes nothing."""
    for table in SQLModel.metadata.sorted_tables:
        for statement in _statements(table):
            connection.exec_driver_sql(statement)
    for statement in (*_FIND_KEY, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {TENANT_ROLE}, {SYSTEM_ROLE}"):
        connection.exec_driver_sql(statement)


def make_roles(connection: sa.Connection) -> None:
    """Raise SetupError, saying what an administrator must run, where this user may not."""
    known: set[str] = set(connection.scalars(sa.select(sa.column("rolname")).select_from(sa.table("pg_roles"))))
    user = connection.scalar(sa.select(sa.func.current_user()))
    try:
        for role in (TENANT_ROLE, SYSTEM_ROLE):
            if role not in known:
                connection.exec_driver_sql(f"CREATE ROLE {role} NOLOGIN")
            if not connection.scalar(sa.select(sa.func.pg_has_role(user, role, "SET"))):
                connection.exec_driver_sql(f'GRANT {role} TO "{user}"')
    except ProgrammingError as error:
        raise SetupError(LACKING_RIGHTS.format(user=user)) from error


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
    "CREATE OR REPLACE FUNCTION " + FIND_KEY + "(wanted text) RETURNS SETOF api_keys LANGUAGE sql STABLE SECURITY DEFINER "
    "SET search_path = public, pg_temp BEGIN ATOMIC SELECT * FROM api_keys WHERE id = wanted; END",
    f"REVOKE ALL ON FUNCTION {FIND_KEY}(text) FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION {FIND_KEY}(text) TO {TENANT_ROLE}",
    # Its owner decides what it sees, and to own something in a schema one must be allowed to create there.
    f"GRANT CREATE ON SCHEMA public TO {SYSTEM_ROLE}",
    f"ALTER FUNCTION {FIND_KEY}(text) OWNER TO {SYSTEM_ROLE}",
    f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM_ROLE}",
)
