"""What the emulator may be configured to do: its judges, its limits, its faults.

Faults and judges can also be changed while it runs; `state` keeps those changes, and
`settings_in_force` puts them over what is here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cj_pipeline.errors import SettingsError

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]

RequestFault = Literal[
    "lost_request",
    "lost_reply",
    "hang",
    "truncated",
    "malformed",
    "status",
    "short_body",
    "web_page",
    "byte_order_mark",
    "out_of_credit",
]
JobFault = Literal[
    "expires",
    "is_cancelled",
    "fails",
    "fails_half_way",
    "stuck",
    "status_word",
    "late_file_ids",
    "empty_file_ids",
    "counts",
]
RowFault = Literal[
    "missing",
    "duplicated",
    "contradicted",
    "foreign",
    "garbled",
    "status_400",
    "status_429",
    "status_500",
    "row_without_credit",
    "no_error_told",
    "body_as_string",
    "refusal",
    "truncated_answer",
    "content_filter",
    "invalid_output",
    "keyless",
    "usage_null",
    "usage_empty",
    "usage_zero",
    "usage_text",
    "usage_adds_up_wrong",
    "usage_too_large",
    "other_model",
]
REQUEST_FAULTS: tuple[str, ...] = RequestFault.__args__  # type: ignore[attr-defined]
JOB_FAULTS: tuple[str, ...] = JobFault.__args__  # type: ignore[attr-defined]
ROW_FAULTS: tuple[str, ...] = RowFault.__args__  # type: ignore[attr-defined]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QualityJudge(_Strict):
    """How a simulated judge decides: P(A) = logistic(discrimination x difference + bias).

    Attributes:
        discrimination: How well it tells essays apart; 0 is a coin.
        position_bias: Added in logits to the essay shown first.
        tie_rate: Share of answers that are ties, where the request allows ties.
        refusal_rate: Share of requests it refuses.
        invalid_rate: Share of answers that hold no verdict.
        answer_tokens: Least tokens an answer is counted as.
        reasoning_tokens: Thought before each answer, and billed as output.
    """

    discrimination: Annotated[float, Field(ge=0)] = 1.0
    position_bias: float = 0.0
    tie_rate: Share = 0.0
    refusal_rate: Share = 0.0
    invalid_rate: Share = 0.0
    answer_tokens: Annotated[int, Field(ge=1)] = 1
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0


class Fault(_Strict):
    """Something that goes wrong: at a rate, or exactly when the script says.

    Attributes:
        kind: What goes wrong; request, job and row faults are listed above.
        on: Which requests or jobs, as a pattern over route names such as
            `openai.batches.create`; for job and row faults, of the request that creates the job.
        rate: The share that it happens to, drawn from the seed.
        at: Which ones in order, from 1 (requests and jobs are counted across processes, rows in
            their job); wins over `rate`.
        after_commit: For `status` and `hang`: the request was carried out all the same.
        status: For `status`: the HTTP status to answer with.
        retry_after: For `status`: the header's value, whatever it is.
        seconds: For `hang`, `late_file_ids`: how long.
        share: For `truncated` and `short_body`, how much of the body arrives; for `expires`,
            `is_cancelled`, `fails_half_way` and `stuck`, how many of the rows were done.
        word: For `status_word`: the status shown while running; for `fails` and
            `fails_half_way`: the error's code; for
            `counts`: `none` or `zero`, what the job tells of how many requests are done.
        at_line_end: For `short_body`: whether it ends with a whole line.
        counted_as: For `missing`: whether the job counts the row as done, and is paid for it.
    """

    kind: Literal[RequestFault, JobFault, RowFault]
    on: str = "*"
    rate: Share = 1.0
    at: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    after_commit: bool = False
    status: Annotated[int, Field(ge=400, le=599)] = 503
    retry_after: str | None = None
    seconds: Seconds = 3600.0
    share: Share = 0.5
    word: str = "scheduling"
    at_line_end: bool = True
    counted_as: Literal["completed", "failed"] = "completed"

    @model_validator(mode="before")
    @classmethod
    def _yaml_reads_on_as_true(cls, values: Any) -> Any:
        """Take `on` from a YAML file, where the bare word is a truth value."""
        if isinstance(values, dict) and True in values:
            return {("on" if key is True else key): value for key, value in values.items()}
        return values

    def concerns(self, route: str) -> bool:
        """Whether a route name fits the pattern."""
        return fnmatchcase(route, self.on)


class Limits(_Strict):
    """What the providers allow; the defaults are those of their documentation.

    Attributes:
        batch_requests: OpenAI: requests per file.
        batch_bytes: OpenAI: bytes per file.
        creations_per_hour: OpenAI: batches.
        enqueued_tokens: Prompt tokens in a model's open jobs; None is no limit.
        message_batch_requests: Anthropic: requests per batch.
        message_batch_bytes: Anthropic: bytes per batch.
        message_batch_queue: Anthropic: requests in open batches.
        gemini_inline_bytes: Gemini: bytes of an inline batch.
        gemini_open_jobs: Gemini: open batches.
    """

    batch_requests: int = 50_000
    batch_bytes: int = 200_000_000
    creations_per_hour: int = 2_000
    enqueued_tokens: int | None = None
    message_batch_requests: int = 100_000
    message_batch_bytes: int = 256_000_000
    message_batch_queue: int = 200_000
    gemini_inline_bytes: int = 20_000_000
    gemini_open_jobs: int = 100


class Settings(_Strict):
    """What can be changed while the emulator runs.

    Attributes:
        latency_s: How long a job takes; None takes each judge's own (only mock profiles have one).
        call_latency_s: How long a single call takes; None takes each judge's own: a mock profile's
            1 to 2 s, of other judges none.
        cancel_latency_s: How long a job is seen cancelling.
        list_lag_s: How long a new job is missing from lists.
        upload_lag_s: How long an uploaded file cannot be found.
        in_order: Whether result rows keep the order of the requests; providers promise nothing.
        cancelled_rows: Whether OpenAI's error file names the rows a cancellation left undone.
        cached_in_batches: Whether OpenAI's and Gemini's jobs report cached prompt tokens.
        least_cacheable_tokens: A shorter prefix is never cached.
        judges: Simulated judges by model name, next to the built-in `quality`.
        faults: What goes wrong, the first that fits wins.
    """

    latency_s: Seconds | None = 0.0
    call_latency_s: Seconds | None = None
    cancel_latency_s: Seconds = 0.0
    list_lag_s: Seconds = 0.0
    upload_lag_s: Seconds = 0.0
    in_order: bool = False
    cancelled_rows: bool = True
    cached_in_batches: bool = True
    least_cacheable_tokens: Annotated[int, Field(ge=1)] = 1024
    limits: Limits = Limits()
    judges: Mapping[str, QualityJudge] = Field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def judge_named(self, model: str) -> QualityJudge | None:
        """Return the simulated judge behind a model's name; None where it is no such judge.

        The real models' names are answered by `quality`, so that a judge definition made for a
        provider can be tried here unchanged.
        """
        if model in self.judges:
            return self.judges[model]
        if model == "quality" or model.startswith(REAL_MODEL_PREFIXES):
            return self.judges.get("quality", QualityJudge())
        return None


REAL_MODEL_PREFIXES = ("gpt-", "o1", "o3", "o4", "claude-", "gemini-")


class EmulatorConfig(_Strict):
    """Where the emulator keeps its state, its seed, and its settings at the start.

    Attributes:
        state_path: One SQLite file; uploads and results are kept in a folder next to it.
        seed: Every draw follows from it.
    """

    state_path: Path
    seed: int = 0
    settings: Settings = Settings()

    @model_validator(mode="before")
    @classmethod
    def _settings_may_be_given_flat(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        flat = {k: v for k, v in values.items() if k in Settings.model_fields}
        if not flat:
            return values
        rest = {k: v for k, v in values.items() if k not in flat}
        given = rest.get("settings", {})
        return {**rest, "settings": {**_as_mapping(given), **flat}}

    @property
    def files_folder(self) -> Path:
        """Where uploads and results are kept."""
        return self.state_path.with_name(self.state_path.name + ".files")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], home: Path) -> Self:
        """Return the embedded emulator's configuration.

        Its state is `emulator.sqlite` in `CJ_HOME`; `emulator.yaml` there may hold a seed and
        settings; `CJ_EMULATOR_SETTINGS`, a JSON object of the same keys, wins over it.

        Raises:
            SettingsError: If either cannot be used; the message gives every violation.
        """
        file = home / "emulator.yaml"
        try:
            configured = yaml.safe_load(file.read_text("utf-8")) if file.exists() else None
            explicit = json.loads(environment.get("CJ_EMULATOR_SETTINGS") or "{}")
            return cls.model_validate(
                {**(configured or {}), **explicit, "state_path": home / "emulator.sqlite"}
            )
        except (ValidationError, ValueError, yaml.YAMLError, TypeError) as error:
            msg = f"The emulator cannot use its settings ({file} or CJ_EMULATOR_SETTINGS): {error}"
            raise SettingsError(msg) from None


def _as_mapping(given: Any) -> dict[str, Any]:
    return given.model_dump() if isinstance(given, Settings) else dict(given)
