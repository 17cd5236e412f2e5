"""How whole files come to lie where they belong, and who may read them.

Knows bytes, names and modes, not what is in a file: tables are next door in `store`.
"""
