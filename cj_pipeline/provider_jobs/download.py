"""The results of an ended job as its provider sends them, or why it does not.

A refusal proves nothing: until results expire they may be had once a key is mended, a limit is
raised or a replica has caught up. What follows from that is `missing_rows`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, islice

import structlog

from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.errors import (
    AccountRefusedError,
    CJError,
    FinalError,
    OtherAccountError,
    ProviderUnavailableError,
)
from cj_pipeline.provider_jobs.ledger import JobState, ProviderJob, waiting_for
from cj_pipeline.provider_jobs.missing_rows import Trouble
from cj_pipeline.provider_jobs.ownership import require_ours
from cj_pipeline.providers.base import JobStatus, Provider, RawLine
from cj_pipeline.runtime import Runtime

log = structlog.get_logger()


@dataclass(frozen=True)
class Download:
    """What one try to bring an ended job's results home came to.

    Attributes:
        lines: Every line, as it came; none where there is trouble.
        status: What the provider said of the job, where it was asked again.
        trouble: Why there are no lines.
        stops_the_command: What a person has to mend before any try can help.
    """

    lines: Iterable[RawLine] = ()
    status: JobStatus | None = None
    trouble: Trouble | None = None
    stops_the_command: FinalError | None = None


def download(
    runtime: Runtime, provider: Provider, job: ProviderJob, *, is_wanted: bool
) -> Download:
    """Return an ended job's lines; why there are none where its provider does not send them.

    Args:
        runtime: The pipeline's connections.
        provider: Where the job is.
        job: One that has ended.
        is_wanted: Whether its batch goes on: then a refused key stops the command.
    """
    status: JobStatus | None = None
    now = runtime.clock()
    try:
        require_ours(runtime, job, provider)
        if job.state is not JobState.ENDED:
            # Counts and files may have come late.
            status = provider.poll(job.known_job_id)
        # Nothing is yielded before all is downloaded: the store is not held while it is.
        lines = iter(provider.collect(job.known_job_id))
        first = list(islice(lines, 1))
        if _may_have_more_files(job, status):
            # Which files were read is known only now; they are deleted by their ids.
            status = provider.poll(job.known_job_id)
        return Download(chain(first, lines), status)
    except CJError as error:
        log.warning("results_not_had", submission_key=job.submission_key, error=str(error))
        is_gone = job.results_expire_at is not None and now >= job.results_expire_at
        needs_a_person = isinstance(error, AccountRefusedError | OtherAccountError) and is_wanted
        if needs_a_person and not is_gone:
            waits = waiting_for(error)
            trouble = Trouble(str(error), waits, timedelta(), may_give_up=False)
            return Download((), status, trouble, error if isinstance(error, FinalError) else None)
        asked = error.retry_after_s if isinstance(error, ProviderUnavailableError) else None
        wait = None if asked is None else timedelta(seconds=asked)
        return Download((), status, Trouble(str(error), _awaits(error), wait))


def _may_have_more_files(job: ProviderJob, status: JobStatus | None) -> bool:
    """Whether a result file's id may have come after the job was last asked about."""
    if job.input_file_id is None:
        return False  # its provider keeps no files
    known = status or job
    lacks_output = known.output_file_id is None and known.n_completed != 0
    lacks_errors = known.error_file_id is None and known.n_failed != 0
    return lacks_output or lacks_errors


def _awaits(error: CJError) -> WaitingFor:
    return waiting_for(error) or WaitingFor.ROWS
