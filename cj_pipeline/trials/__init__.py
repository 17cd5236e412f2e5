"""Batches with a known outcome, run again and again: definitions, runs, figures, drift.

The shipped ones are in `suites/`.
"""
