"""The HTTP service: batches are submitted, watched, cancelled and fetched over one API.

It decides nothing and moves nothing: what is submitted goes to the inbox that Dagster's sensor
watches, and everything shown is read from the store, so Dagster's UI, `cj` and this always agree.
"""
