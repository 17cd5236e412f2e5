"""The errors this project raises on purpose.

The tree splits on what the caller wants to know: will trying again help?

    CJError
    ├── TransientError            try again later, nothing was lost
    │   ├── ProviderUnavailableError  the provider did not answer, or told us to wait
    │   ├── UncertainOutcomeError     a request was sent and may have been carried out
    │   ├── StoreBusyError            the live file's lock was not had in time
    │   ├── LeaseLostError            another process has taken the batch over
    │   └── TrialStoppedError         a trial was told to stop; the same command goes on
    └── FinalError                a person must change something first
        ├── BatchProblemsError        the batch folder or table is wrong, all problems listed
        ├── SettingsError             a setting cannot be used
        │   └── TrialDefinitionError      a trial's own definition is wrong
        ├── TrialError                a trial could not be run
        ├── UnknownBatchError         no batch of that name in the store
        ├── UnknownEssayError         no essay of that name in the batch
        ├── UnknownPersonError        nobody of that name judged or decided in any batch
        ├── UnsettledBatchError       a batch goes on, or its bills are not in yet
        ├── UnscalableBatchError      the comparisons give no common scale
        ├── PreflightError            what a batch needs is not in order, all of it listed
        ├── FailedCheckError          what is claimed of every batch does not hold of this one
        ├── InvalidOutputError        a judge's reply holds no verdict
        ├── ProviderRefusedError      the provider will not take this request or job
        │   ├── JobTooLargeError          a job of this size; smaller ones may be taken
        │   └── AccountRefusedError       it will take nothing from this account as it is
        │       └── OutOfCreditError          until somebody pays, or raises its limit
        ├── CeilingReachedError       more than the operator lets this installation spend
        ├── JudgeHeldError            a judge gave no verdict in the answers that were paid for
        ├── AmbiguousSubmissionError  a provider job may or may not exist
        │   └── OtherAccountError         it was begun with another key or address
        ├── IllegalTransitionError    a provider job cannot go there from where it is
        ├── UnpricedModelError        no price is known for a judge's model
        └── StoreError                the store's file cannot be used as it is

`TransientError` becomes a Dagster retry; `FinalError` fails the run for good.
"""

from __future__ import annotations

from collections.abc import Sequence


class CJError(Exception):
    """Something this project knows about went wrong."""


class TransientError(CJError):
    """Trying again later may help; nothing was lost."""


class FinalError(CJError):
    """Trying again will not help until a person changes something."""


class ProviderUnavailableError(TransientError):
    """The provider did not answer, or told us to wait `retry_after_s` seconds.

    `status` is what it answered with over HTTP, if it did.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status


class UncertainOutcomeError(TransientError):
    """A request that creates something was sent, and its reply was lost or cannot be read.

    It may have been carried out: search for what it would have created before sending it again.
    `retry_after_s` and `status` are as in `ProviderUnavailableError`.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status


class StoreBusyError(TransientError):
    """The live file's lock was not had in time.

    `holders` is who has it, as program and process number; empty where that cannot be known.
    """

    def __init__(self, message: str = "", *, holders: Sequence[tuple[str, int]] = ()) -> None:
        super().__init__(message)
        self.holders = tuple(holders)


class LeaseLostError(TransientError):
    """Another process has taken the batch over, so nothing of this step was written."""


class BatchProblemsError(FinalError):
    """A batch cannot be taken in; `problems` lists everything that is wrong with it.

    `may_pass` is true where it may be taken later as it is, such as once another batch is there.
    """

    def __init__(self, batch_id: str, problems: Sequence[str], *, may_pass: bool = False) -> None:
        self.batch_id = batch_id
        self.may_pass = may_pass
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        lines = "\n".join(f"  - {problem}" for problem in problems)
        remedy = "Fix these and submit it again"
        if may_pass:
            remedy = "Put that right and submit it again; in the inbox it is tried again by itself"
        super().__init__(
            f"Batch '{batch_id}' has {count}; nothing was ingested. {remedy}:\n{lines}"
        )


class RejectedBatchError(FinalError):
    """A batch was rejected at intake, so there is nothing to take a step of."""

    def __init__(self, batch_id: str, problems: Sequence[str]) -> None:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(
            f"Batch '{batch_id}' was rejected at intake, so there is nothing to do for it. Fix its"
            f" folder and submit it again (in Dagster: `open_batch`):{lines}"
        )


class SettingsError(FinalError):
    """A setting cannot be used; the message gives every violation."""


class TrialDefinitionError(SettingsError):
    """A trial's own definition is wrong; the trial was not run."""


class TrialError(FinalError):
    """A trial could not be run to its end."""


class TrialStoppedError(TransientError):
    """A trial was told to stop before its end; nothing is lost, and the same command goes on."""


class UnknownBatchError(FinalError):
    """No batch of that name is in the store."""


class UnknownEssayError(FinalError):
    """No essay of that name is in the batch."""


class UnknownPersonError(FinalError):
    """Nobody of that name judged, graded or decided in any batch."""


class UnsettledBatchError(FinalError):
    """A batch goes on, or a provider job of it is not settled, so it cannot be removed yet."""


class UnscalableBatchError(FinalError):
    """The comparisons give no common scale."""


class PreflightError(FinalError):
    """What a batch needs is not in order, so nothing was requested; all of it is listed."""


class FailedCheckError(FinalError):
    """What is claimed of every batch does not hold of this one, so nothing of it may leave."""


class InvalidOutputError(FinalError):
    """A judge's reply holds no verdict; `kind` is the outcome it counts as."""

    def __init__(self, message: str, *, kind: str = "invalid_output") -> None:
        super().__init__(message)
        self.kind = kind


class ProviderRefusedError(FinalError):
    """The provider will not take this request or job as it is."""


class JobTooLargeError(ProviderRefusedError):
    """The provider takes no job of this size (413), whatever its documents say: split it."""


class AccountRefusedError(ProviderRefusedError):
    """The provider takes nothing from this account: its key, its rights or its credit are wrong."""


class OutOfCreditError(AccountRefusedError):
    """The account's credit is used up, or its spending limit is reached: nothing is lost by it."""


class CeilingReachedError(FinalError):
    """It would cost more than the operator lets this installation spend; nothing was sent."""


class JudgeHeldError(FinalError):
    """A judge gave no verdict in the answers that were paid for, so no more are bought."""


class AmbiguousSubmissionError(FinalError):
    """A provider job may or may not exist; a person has to check before more is paid."""


class OtherAccountError(AmbiguousSubmissionError):
    """A provider job was begun with another key or address: under this one nothing proves it."""


class IllegalTransitionError(FinalError):
    """A provider job is in a state from which it cannot go where it was to; nothing changed."""


class UnpricedModelError(FinalError):
    """No price is known for a judge's model, so its cost cannot be bounded."""


class StoreError(FinalError):
    """The store's file cannot be used as it is."""
