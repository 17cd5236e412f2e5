"""What the store knows, as frozen values; nothing is written here.

A statement that changes a table is with the table's owner in `provider_jobs`, `steps`,
`operations` or `store`.
"""
