"""From verdicts to scores with standard errors: the Bradley-Terry fit and what it rests on.

Pure mathematics: no store, no settings. What a fitted scale is worth is `diagnostics`; grades are
`grading`.
"""
