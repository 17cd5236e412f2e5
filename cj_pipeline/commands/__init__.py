"""The commands of `cj`, a module for each group; `cj_pipeline.cli` assembles them.

A command reads what it was given, calls a step, and shows what came of it. What it needs for that
is imported inside it: `cj --help` must not wait for numpy.
"""
