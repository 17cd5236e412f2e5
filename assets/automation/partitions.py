"""What all assets of a batch share: the partition, the owner, and how our errors end a step."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from cj_pipeline.errors import BatchProblemsError, FinalError, TransientError
from cj_pipeline.queries.batch_record import refuse_rejected
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.step_failures import recorded

warnings.filterwarnings("ignore", message=".*partitions_def.* on an AssetCheckSpec")

BATCHES = "batches"
batches = dg.DynamicPartitionsDefinition(name=BATCHES)

OWNERS = ["team:assessment"]
STORED = {"duckdb"}


@contextmanager
def errors_as_dagster_knows_them() -> Iterator[None]:
    """Let what may help again be tried again, and what will not fail for good."""
    try:
        yield
    except TransientError as error:
        raise dg.RetryRequested(max_retries=3, seconds_to_wait=5) from error
    except BatchProblemsError as error:
        problems = dg.MetadataValue.json(list(error.problems))
        raise dg.Failure(str(error), {"problems": problems}, allow_retries=False) from error
    except FinalError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


@contextmanager
def batch_step(runtime: Runtime, batch_id: str, step: str) -> Iterator[None]:
    """Take a step of a batch: its errors as Dagster knows them, its failure in the store."""
    with errors_as_dagster_knows_them():
        with runtime.store.read() as db:
            refuse_rejected(db, batch_id)
        with recorded(runtime, batch_id, step):
            yield
