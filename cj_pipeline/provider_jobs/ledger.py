"""A provider job belongs to the account and the address it was created with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cj_pipeline.errors import AmbiguousSubmissionError
from cj_pipeline.providers.base import Provider


def require_same_account(job: Mapping[str, Any], provider: Provider) -> None:
    """Let a job be asked about only where it was created: elsewhere it would seem not to exist.

    Raises:
        AmbiguousSubmissionError: If the provider is reached with another key or address.
    """
    if job["account"] != provider.account:
        msg = (
            f"Provider job {job['submission_key'][:16]} of batch '{job['batch_id']}' was begun with"
            f" another key or address of {provider.name}. Restore those credentials, or cancel "
            "the batch: nothing is requested again under new ones."
        )
        raise AmbiguousSubmissionError(msg)
