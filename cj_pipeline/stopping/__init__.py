"""When a batch stops, why, and how far off that is: pure decisions and forecasts.

Applying a decision to the store is `steps.decide`.
"""
