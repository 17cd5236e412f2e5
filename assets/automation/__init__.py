"""What keeps the assets fresh: one module per Dagster concept."""
