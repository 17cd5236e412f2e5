"""A provider job from intent to settlement, paid once.

The only package that writes `provider_jobs`, `callbacks` and `ledger`. What a provider's API is
called with is `providers`; which pairs are requested is decided in `steps`.
"""
