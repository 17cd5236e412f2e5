"""The flags of a batch: each has its column, and is set once for good."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.steps.batch_flags import BatchFlag, set_flag
from cj_pipeline.store.file_store import FileStore
from tests.support.finished_batches import SPRING, insert_all, spring_rows

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize("flag", BatchFlag)
def test_a_flag_is_read_as_the_field_of_its_name(flag: BatchFlag) -> None:
    """One flag more is one column and one field more, and no flag sets another."""
    with FileStore.in_memory().write() as db:
        insert_all(db, spring_rows())
        before = load_batch(db, SPRING)

        set_flag(db, SPRING, flag, NOW)
        set_flag(db, SPRING, flag, NOW)

        after = load_batch(db, SPRING)
        assert [getattr(before, name) for name in BatchFlag] == [False] * len(BatchFlag)
        assert [name for name in BatchFlag if getattr(after, name)] == [flag]
        assert after.metadata == before.metadata
