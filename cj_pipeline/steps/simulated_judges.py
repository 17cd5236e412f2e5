"""What simulated judges are told before they judge: the answer key, which no result may show."""

from __future__ import annotations

from cj_pipeline.errors import ProviderUnavailableError
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.records import BatchRecord
from cj_pipeline.steps.requests import BatchTexts


def tell_qualities(engine: Engine, record: BatchRecord, texts: BatchTexts) -> None:
    """Tell the emulator the latent qualities a batch gives; telling it twice changes nothing."""
    qualities = {
        texts.essays[essay_id]: quality
        for essay_id, quality in record.settings.emulator_qualities.items()
    }
    if not qualities or not any(judge.is_simulated for judge in record.judges):
        return
    address = engine.environment.get("CJ_EMULATOR_URL", "").strip()
    if address:
        _tell_over_http(address, qualities)
        return
    from cj_pipeline.emulator import EmulatorConfig, register_qualities

    register_qualities(EmulatorConfig.from_environment(engine.environment, engine.home), qualities)


def _tell_over_http(address: str, qualities: dict[str, float]) -> None:
    import httpx2

    try:
        reply = httpx2.post(f"{address.rstrip('/')}/emulator/qualities", json=qualities, timeout=30)
        reply.raise_for_status()
    except httpx2.HTTPError as error:
        msg = f"The emulator at {address} did not take the qualities: {error}"
        raise ProviderUnavailableError(msg) from error
