"""What the store knows, as frozen values; nothing is written here.

A statement that changes a table stands with the table's owner in `provider_jobs`, `steps`,
`operations` or `store`.
"""
