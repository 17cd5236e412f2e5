"""One place of state, and the three ways to hold it: a DuckDB file, a served one, a lake.

Knows tables and files, not what a batch means: reading it as values is `queries`, and a statement
that changes a table stands with the table's owner.
"""
