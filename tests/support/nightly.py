"""How much is tried: a fast sample by default, everything by `make nightly`."""

import os

IS_NIGHTLY = os.environ.get("CJ_TESTS") == "nightly"


def many(usually: int, nightly: int) -> int:
    """Return how many cases to try."""
    return nightly if IS_NIGHTLY else usually
