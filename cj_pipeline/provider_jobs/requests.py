"""The requests of a batch, rebuilt from its rows: the same rows give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from cj_pipeline.batch.comparisons import content_of, custom_id
from cj_pipeline.errors import ProviderUnavailableError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt, fence_nonce, render_prompt
from cj_pipeline.providers.base import Provider
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.identity import Identity
from cj_pipeline.store.session import Session


@dataclass(frozen=True)
class RequestSpec:
    """One attempt at a comparison: who is shown what, for the how-manieth time."""

    batch_id: str
    wave: int
    comparison_id: str
    attempt: int
    judge_id: str
    prompt: Prompt

    def custom_id(self, submission_key: str) -> str:
        """Return the id that brings this attempt's reply home."""
        return custom_id(submission_key, self.comparison_id, self.attempt)


@dataclass(frozen=True)
class BatchTexts:
    """What prompts are made of."""

    instructions: str
    rubric: str
    essays: dict[str, str]


def load_texts(db: Session, batch_id: str) -> BatchTexts:
    """Return the texts of a batch's documents and essays."""
    documents = {
        row["kind"]: row["content"]
        for row in db.rows("SELECT kind, content FROM documents WHERE batch_id = ?", [batch_id])
    }
    essays = db.rows(
        "SELECT essay_id, coalesce(masked_text, text) AS text FROM essays WHERE batch_id = ?",
        [batch_id],
    )
    return BatchTexts(
        instructions=documents.get("instructions", ""),
        rubric=documents.get("rubric", ""),
        essays={row["essay_id"]: row["text"] for row in essays},
    )


def prompt_for(record: BatchRecord, judge: Judge, texts: BatchTexts, row: dict[str, str]) -> Prompt:
    """Return the prompt for a row that names a comparison and its two essays in order."""
    return render_prompt(
        judge.template,
        instructions=texts.instructions,
        rubric=texts.rubric,
        text_a=texts.essays[row["essay_a"]],
        text_b=texts.essays[row["essay_b"]],
        nonce=fence_nonce(record.fence_secret, row["comparison_id"]),
    )


def request_line(provider: Provider, judge: Judge, ask: RequestSpec, key: str) -> bytes:
    """Return one request as the line of JSON its provider takes."""
    request = provider.build_request(ask.prompt, judge, ask.custom_id(key))
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def requests_sha256(asks: Sequence[RequestSpec], judge: Judge, provider: Provider, key: str) -> str:
    """Return the checksum of a job's requests, as its request file holds or would hold them."""
    digest = hashlib.sha256()
    for ask in asks:
        digest.update(request_line(provider, judge, ask, key))
    return digest.hexdigest()


def submission_key(
    batch_id: str, judge_id: str, asks: Sequence[RequestSpec], identity: Identity
) -> str:
    """Return the key a shard is known by: what is asked, then which store asks it.

    The same shard begins with the same digits on any machine, whatever key it goes out with.
    """
    content = [[ask.comparison_id, ask.attempt, ask.prompt.sha256] for ask in asks]
    digest = hashlib.sha256(json.dumps([batch_id, judge_id, content]).encode()).hexdigest()
    return content_of(digest) + identity.suffix


def key_without_identity(
    batch_id: str, judge_id: str, account: str, asks: Sequence[RequestSpec]
) -> str:
    """Return the key the same shard had before keys bore an identity: jobs may still bear it."""
    content = [[ask.comparison_id, ask.attempt, ask.prompt.sha256] for ask in asks]
    text = json.dumps([batch_id, judge_id, account, content])
    return hashlib.sha256(text.encode()).hexdigest()


def requests_of_job(
    db: Session, record: BatchRecord, judge: Judge, key: str, texts: BatchTexts | None = None
) -> list[RequestSpec]:
    """Return the asks a recorded submission key stands for, in the order of its request file.

    The batch's texts are loaded where they are not given.
    """
    rows = db.rows(
        "SELECT a.comparison_id, a.attempt, a.wave, a.prompt_sha256, p.essay_a, p.essay_b"
        " FROM attempts a JOIN comparison_pairs p USING (comparison_id)"
        " WHERE a.submission_key = ? ORDER BY a.comparison_id",
        [key],
    )
    texts = texts or load_texts(db, record.batch_id)
    return [
        RequestSpec(
            batch_id=record.batch_id,
            wave=row["wave"],
            comparison_id=row["comparison_id"],
            attempt=row["attempt"],
            judge_id=judge.judge_id,
            prompt=prompt_for(record, judge, texts, row),
        )
        for row in rows
    ]


def tell_qualities(runtime: Runtime, record: BatchRecord, texts: BatchTexts) -> None:
    """Tell the emulator the latent qualities a batch gives; telling it twice changes nothing."""
    qualities = {
        texts.essays[essay_id]: quality
        for essay_id, quality in record.settings.emulator_qualities.items()
    }
    if any(judge.is_simulated for judge in record.judges):
        tell_emulator(runtime, qualities)


def tell_emulator(runtime: Runtime, qualities: dict[str, float]) -> None:
    """Tell the emulator the latent quality of each text; telling it twice changes nothing."""
    if not qualities:
        return
    address = runtime.environment.get("CJ_EMULATOR_URL", "").strip()
    if address:
        _tell_over_http(address, runtime.environment.get("CJ_EMULATOR_TOKEN", ""), qualities)
        return
    from cj_pipeline.emulator import register_qualities
    from cj_pipeline.emulator.config import EmulatorConfig

    register_qualities(
        EmulatorConfig.from_environment(runtime.environment, runtime.home), qualities
    )


def _tell_over_http(address: str, token: str, qualities: dict[str, float]) -> None:
    import httpx2

    try:
        reply = httpx2.post(
            f"{address.rstrip('/')}/emulator/qualities",
            json=qualities,
            timeout=30,
            headers={"Authorization": f"Bearer {token.strip()}"} if token.strip() else {},
        )
        reply.raise_for_status()
    except httpx2.HTTPError as error:
        msg = f"The emulator at {address} did not take the qualities: {error}"
        raise ProviderUnavailableError(msg) from error
