"""Dagster's assets, one thin module each; `automation` holds what keeps them fresh."""
