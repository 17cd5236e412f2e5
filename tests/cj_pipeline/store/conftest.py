"""The store's own tests make their stores as users do, from nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.template_store import migrated_for_real


@pytest.fixture(autouse=True)
def stores_migrated_for_real() -> Iterator[None]:
    """Every migration runs, in every store."""
    with migrated_for_real():
        yield
