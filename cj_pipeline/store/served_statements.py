"""What a session of the store's server may run: statements on the store's rows, and no others.

Everybody who has a token writes SQL that runs on the server's machine, in the server's process.
So what is not known to be harmless is refused: by the kind of a statement, and by the functions
that it calls, as DuckDB itself reads them. `quack_store` asks this for every statement.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import duckdb

_KINDS_OF_READERS = frozenset({"SELECT", "TRANSACTION", "EXECUTE"})
_KINDS_OF_WRITERS = _KINDS_OF_READERS | {"INSERT", "UPDATE", "DELETE", "MERGE_INTO"}
_AROUND_OTHERS = re.compile(
    r"\s*(?:PREPARE\s+\w+\s+AS|EXPLAIN(?:\s+ANALYZE)?)\s+(?P<inner>.+)", re.IGNORECASE | re.DOTALL
)
_ARRIVING = re.compile(
    r"\s*(?:CREATE\s+TABLE\s+arriving_[0-9a-f]{32}\s+AS\s+SELECT\s(?P<select>[^;]+)"
    r"|DROP\s+TABLE\s+arriving_[0-9a-f]{32})\s*",
    re.IGNORECASE,
)
"""The one table that a writer makes: rows that have arrived and are not yet where they belong."""

_HARMLESS = frozenset(
    {
        *("range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree"),
        *("histogram", "histogram_values", "icu_calendar_names", "pg_timezone_names"),
        *("duckdb_columns", "duckdb_constraints", "duckdb_databases", "duckdb_dependencies"),
        *("duckdb_functions", "duckdb_indexes", "duckdb_keywords", "duckdb_schemas"),
        *("duckdb_sequences", "duckdb_tables", "duckdb_types", "duckdb_views"),
        *("duckdb_extensions", "duckdb_optimizers", "duckdb_settings", "duckdb_memory"),
        *("pragma_table_info", "pragma_version", "pragma_platform", "pragma_collations"),
        *("pragma_show", "pragma_database_size", "pragma_storage_info", "pragma_user_agent"),
        *("show_tables", "show_databases", "show_tables_expanded"),
        *("current_connection_id", "current_query", "current_query_id", "current_transaction_id"),
        *("error", "gen_random_uuid", "uuid", "uuidv4", "uuidv7", "random", "setseed", "stats"),
    }
)
"""Of the functions that could read more than values, or do something: those that do not."""

_NAME = re.compile(rb'"(?:[^"]|"")*"|[^\s"(/]+')


class ServedRights:
    """Who may do what on a server; its methods are what the server asks.

    Args:
        token: What full sessions present.
        reading_token: What sessions that only look present; None where there is no such token.
    """

    def __init__(self, token: str, reading_token: str | None = None) -> None:
        self._writing = {token}
        self._reading = {as_reader(token)}
        if reading_token:
            self._reading |= {reading_token, as_reader(reading_token)}
        self._readers: set[str] = set()
        # Statements are read here, where nothing can be opened: reading IMPORT DATABASE opens a
        # file already.
        self._grammar = duckdb.connect(config={"enable_external_access": "false"})
        self._refused = frozenset[str]()

    @contextmanager
    def guarding(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Let a server that runs on a connection ask here, and close its machine's files to it."""
        names = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE function_type IN ('table', 'table_macro') OR has_side_effects"
        ).fetchall()
        self._refused = frozenset(str(name).lower() for (name,) in names) - _HARMLESS
        for name, ask, n_arguments in (
            ("cj_may_enter", self.may_enter, 3),
            ("cj_may_run", self.may_run, 2),
        ):
            connection.create_function(
                name,
                ask,
                ["VARCHAR"] * n_arguments,
                "BOOLEAN",
                side_effects=True,
            )
        connection.execute("SET GLOBAL quack_authentication_function = 'cj_may_enter'")
        connection.execute("SET GLOBAL quack_authorization_function = 'cj_may_run'")
        # DuckDB still opens the store's own file, its log and what it spills.
        connection.execute("SET GLOBAL enable_external_access = false")
        connection.execute("SET GLOBAL lock_configuration = true")
        try:
            yield
        finally:
            self._grammar.close()

    def may_enter(self, session: str, presented: str, _served: str) -> bool:
        """Return whether a session may begin, and remember if it may only look."""
        if _is_one_of(presented, self._reading):
            self._readers.add(session)
            return True
        return _is_one_of(presented, self._writing)

    def may_run(self, session: str, sql: str) -> bool:
        """Return whether a session may run a statement."""
        try:
            return self._is_harmless(sql, only_reads=session in self._readers)
        except (duckdb.Error, ValueError):
            return False

    def _is_harmless(self, sql: str, *, only_reads: bool) -> bool:
        if self._refused & set(_called(sql)):
            return False
        if around := _AROUND_OTHERS.fullmatch(sql):
            return self._is_harmless(around["inner"], only_reads=only_reads)
        if not only_reads and (arriving := _ARRIVING.fullmatch(sql)):
            select = arriving["select"]
            return select is None or self._is_harmless(f"SELECT {select}", only_reads=True)
        kinds = {statement.type.name for statement in self._grammar.extract_statements(sql)}
        return bool(kinds) and kinds <= (_KINDS_OF_READERS if only_reads else _KINDS_OF_WRITERS)


def as_reader(token: str) -> str:
    """Return what the holder of a token presents for a session that only looks."""
    return f"reading {token}"


def _is_one_of(presented: str, tokens: set[str]) -> bool:
    alike = [hmac.compare_digest(presented.encode(), token.encode()) for token in tokens]
    return True in alike


def _called(sql: str) -> Iterator[str]:
    """Yield the names that stand before an opening parenthesis, as DuckDB's own lexer sees them."""
    raw = sql.encode()
    tokens = [(at, kind.name) for at, kind in duckdb.tokenize(sql) if kind.name != "comment"]
    for (at, _), (following, _) in pairwise(tokens):
        if raw[following : following + 1] == b"(" and (name := _NAME.match(raw, at)):
            yield name[0].strip(b'"').replace(b'""', b'"').decode().lower()
