"""What all assets of a batch share: the partition, the owner, and how our errors end a step."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from cj_pipeline.errors import FinalError, TransientError

batches = dg.DynamicPartitionsDefinition(name="batches")

OWNERS = ["team:assessment"]
STORED = {"duckdb"}


@contextmanager
def errors_as_dagster_knows_them() -> Iterator[None]:
    """Let what may help again be tried again, and what will not fail for good."""
    try:
        yield
    except TransientError as error:
        raise dg.RetryRequested(max_retries=3, seconds_to_wait=5) from error
    except FinalError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
