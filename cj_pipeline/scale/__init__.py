"""From verdicts to scores with standard errors: the Bradley-Terry fit and what it rests on.

Pure mathematics: no store, no settings. How good a fitted scale is, is `diagnostics`; grades are
`grading`.
"""
