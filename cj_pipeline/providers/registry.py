"""Which adapter a judge needs, where its provider is, and with which key.

SDKs are imported here, inside functions, because each takes longer to import than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.addresses import origin_of
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.provider_definitions import (
    BATCH_SHAPES,
    OWN_FOLDER,
    ProviderDefinition,
    provider_definition,
)
from cj_pipeline.providers.base import (
    Parser,
    Provider,
    ProviderLimits,
    account_fingerprint,
    require_key,
)
from cj_pipeline.providers.keys import TokenSource, token_source
from cj_pipeline.providers.transport import POLL_TIMEOUT, bound_body, keep_key_at

if TYPE_CHECKING:
    from cj_pipeline.providers.openai import OpenAIBatches

_EMBEDDED = "http://emulator.invalid"
"""The embedded emulator's address: never resolved, because nothing leaves the process."""

_EMULATED_AT: Mapping[str, str] = {
    "chat_completions": "/v1",
    "responses": "/v1",
    "mistral": "/mistral/v1",
    "xai": "/xai/v1",
    "openrouter": "/openrouter/api/v1",
}
"""Where the emulator has each service, below its own address."""


@dataclass(frozen=True)
class _Connection:
    """What an adapter is made of; `client` is None where the SDK's own will do."""

    judge: Judge
    address: str
    key: str
    client: httpx2.Client | None
    clock: Callable[[], datetime]
    source: TokenSource | None = None

    @property
    def account(self) -> str:
        """What the account is known by: its name here, where its keys come from, or its key."""
        if self.judge.account is not None:
            known_by = f"account {self.judge.account}"
        elif self.source is not None:
            known_by = f"source {self.source.variable}"
        else:
            known_by = self.key
        return account_fingerprint(self.judge.provider, self.address, known_by)

    def hooks(self) -> dict[str, list[Callable[..., object]]]:
        """Return what each request and each answer passes through."""
        signs = [] if self.source is None else [self.source.sign]
        dressed = partial(_dress, self.judge.service, self.source is not None)
        keeps = partial(
            keep_key_at, origin_of(self.address), own_header=self.judge.service.key_header
        )
        return {"request": [*signs, dressed, keeps], "response": [bound_body]}

    @property
    def name(self) -> str:
        """What failures call it: its definition, and its host where a judge names another."""
        host = urlsplit(self.address).netloc if self.judge.has_own_address else ""
        return f"{self.judge.provider} at {host}" if host else self.judge.provider

    def limits(self, usual: ProviderLimits) -> ProviderLimits:
        """Return a provider's limits, with its definition's and this account's before them."""
        service = self.judge.service
        stated = ("max_requests", "max_bytes", "creates_per_hour", "results_kept_s")
        told = {name: getattr(service, name) for name in stated}
        known = {name: value for name, value in told.items() if value is not None}
        return replace(usual, **(known | dict(self.judge.limits)))


def _dress(service: ProviderDefinition, is_token: bool, request: httpx2.Request) -> None:
    """Give a request the headers that its service wants; a token goes the usual way."""
    for name, value in service.extra_headers.items():
        request.headers[name] = value
    bearer = request.headers.get("authorization", "")
    if service.key_header is not None and bearer.startswith("Bearer ") and not is_token:
        del request.headers["authorization"]
        request.headers[service.key_header] = bearer.removeprefix("Bearer ")


def open_provider(
    judge: Judge,
    environment: Mapping[str, str],
    home: Path,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Provider:
    """Return the provider a judge is reached through.

    Args:
        judge: Names the provider, its dialect, and the variable that holds the key.
        environment: Where keys are, and `CJ_EMULATOR_URL` for an emulator reached over HTTP, and
            `CJ_EMULATOR_TOKEN` if that one asks for it.
        home: Where the embedded emulator keeps its state.
        clock: Gives the time.

    Raises:
        SettingsError: If the judge needs a key that is not set.
    """
    source = token_source(judge, environment, _token_command(judge, home))
    key = require_key(judge, environment) if source is None else source.current()
    if judge.provider == "emulator":
        key = environment.get("CJ_EMULATOR_TOKEN", "").strip() or key
    address, client = _address(judge, environment, home)
    connection = _Connection(judge, address, key, client, clock, source)
    return _ADAPTERS[_spoken(judge)](connection)


def missing_key(judge: Judge, environment: Mapping[str, str], home: Path) -> str:
    """Return what to do about a key that nothing would yield; empty where there is none missing.

    A file or a command that should yield it is not asked for it. Arguments as `open_provider`.
    """
    if token_source(judge, environment, _token_command(judge, home)) is not None:
        return ""
    try:
        require_key(judge, environment)
    except SettingsError as error:
        return str(error)
    return ""


def open_parser(judge: Judge) -> Parser:
    """Return what reads a judge's replies; it makes no call and needs no key."""
    return _PARSERS[_spoken(judge)](judge)


def _spoken(judge: Judge) -> str:
    """Return what decides how a judge is reached: the shape of its batches, or its endpoint."""
    return judge.service.batch if judge.service.batch in BATCH_SHAPES else judge.api


def open_pool(
    judge: Judge, environment: Mapping[str, str], home: Path, n_connections: int
) -> httpx2.AsyncClient:
    """Return the connections that a provider's single calls share; see `Provider.live`."""
    if judge.provider == "emulator" and not environment.get("CJ_EMULATOR_URL", "").strip():
        from cj_pipeline.emulator import in_process_async_client
        from cj_pipeline.emulator.config import EmulatorConfig

        return in_process_async_client(EmulatorConfig.from_environment(environment, home))
    source = token_source(judge, environment, _token_command(judge, home))
    address, _ = _address(judge, environment, home)

    async def keep(request: httpx2.Request) -> None:
        _dress(judge.service, source is not None, request)
        keep_key_at(origin_of(address), request, judge.service.key_header)

    return httpx2.AsyncClient(
        event_hooks={"request": [*([] if source is None else [source.sign_later()]), keep]},
        limits=httpx2.Limits(
            max_connections=n_connections, max_keepalive_connections=n_connections
        ),
        follow_redirects=True,
    )


def _token_command(judge: Judge, home: Path) -> str | None:
    """Return the command of the installation's own definition, as it is now; none is stored."""
    if judge.defined is None:
        return None
    try:
        return provider_definition(judge.provider, home / OWN_FOLDER).token_command
    except SettingsError:
        return None  # its file is gone: the key has to stand in its variable


def _address(
    judge: Judge, environment: Mapping[str, str], home: Path
) -> tuple[str, httpx2.Client | None]:
    """Return a provider's address, and the HTTP client that reaches it if it is a special one."""
    if judge.provider != "emulator":
        address = judge.base_url or judge.service.base_url
        if address is None:
            msg = f"Judge '{judge.name}' has no address: give it a base_url."
            raise SettingsError(msg)
        return address, None
    prefix = _EMULATED_AT.get(judge.api, "")
    if served := environment.get("CJ_EMULATOR_URL", "").strip():
        return served.rstrip("/") + prefix, None
    from cj_pipeline.emulator import in_process_client
    from cj_pipeline.emulator.config import EmulatorConfig

    config = EmulatorConfig.from_environment(environment, home)
    return _EMBEDDED + prefix, in_process_client(config)


def _openai_words(judge: Judge) -> ModuleType:
    from cj_pipeline.providers import chat_completions, responses

    return responses if judge.api == "responses" else chat_completions


def _openai_parser(judge: Judge) -> Parser:
    from cj_pipeline.providers.openai import parse_row

    words = judge.service.error_words
    return partial(parse_row, read_body=_openai_words(judge).read_body, words=words)


def _openai(connection: _Connection) -> Provider:
    from cj_pipeline.providers import openai as openai_batches

    return _with_openai_sdk(connection, openai_batches.OpenAIBatches, openai_batches.LIMITS)


def _mistral(connection: _Connection) -> Provider:
    from cj_pipeline.providers import mistral

    return _with_openai_sdk(connection, mistral.MistralBatches, mistral.LIMITS)


def _xai(connection: _Connection) -> Provider:
    from cj_pipeline.providers import xai

    return _with_openai_sdk(connection, xai.XAIBatches, xai.LIMITS)


def _openrouter(connection: _Connection) -> Provider:
    from cj_pipeline.providers import openrouter

    return _with_openai_sdk(connection, openrouter.OpenRouterBatches, openrouter.LIMITS)


def _with_openai_sdk(
    connection: _Connection, adapter: type[OpenAIBatches], limits: ProviderLimits
) -> Provider:
    """Return an adapter over OpenAI's SDK, which carries calls to whoever answers them so."""
    import openai

    service = connection.judge.service
    return adapter(
        client=openai.OpenAI(
            api_key=connection.key,
            base_url=connection.address,
            max_retries=0,
            timeout=POLL_TIMEOUT,
            http_client=connection.client
            or openai.DefaultHttpxClient(event_hooks=connection.hooks()),
        ),
        name=connection.name,
        account=connection.account,
        words=_openai_words(connection.judge),
        batch_body=service.batch_body,
        may_expire=service.batch_expiry and _spoken(connection.judge) not in BATCH_SHAPES,
        error_words=service.error_words,
        streaming=service.streaming,
        limits=connection.limits(limits),
        has_jobs=connection.judge.has_jobs,
        clock=connection.clock,
    )


def _anthropic(connection: _Connection) -> Provider:
    import anthropic

    from cj_pipeline.providers import anthropic as anthropic_batches

    return anthropic_batches.AnthropicBatches(
        client=anthropic.Anthropic(
            api_key=connection.key,
            base_url=connection.address,
            max_retries=0,
            timeout=POLL_TIMEOUT,  # also of the look that `results` makes before its own request
            http_client=connection.client
            or anthropic.DefaultHttpxClient(event_hooks=connection.hooks()),
        ),
        name=connection.name,
        account=connection.account,
        limits=connection.limits(anthropic_batches.LIMITS),
        clock=connection.clock,
        error_words=connection.judge.service.error_words,
    )


def _xai_parser(judge: Judge) -> Parser:
    from cj_pipeline.providers.xai import parse_result

    words = judge.service.error_words
    return partial(parse_result, read_body=_openai_words(judge).read_body, words=words)


def _anthropic_parser(judge: Judge) -> Parser:
    from cj_pipeline.providers.anthropic import parse_result

    return partial(parse_result, words=judge.service.error_words)


def _gemini(connection: _Connection) -> Provider:
    from google import genai
    from google.genai import types

    from cj_pipeline.providers import gemini

    bodies = gemini.BodyRecorder()
    client = connection.client or httpx2.Client()
    hooks = connection.hooks()
    client.event_hooks = {**hooks, "response": [*hooks["response"], bodies]}
    options = types.HttpOptions(base_url=connection.address, httpx_client=client)

    def reopen(http: httpx2.AsyncClient) -> genai.Client:
        over = types.HttpOptions(base_url=connection.address, httpx_async_client=http)
        return genai.Client(api_key=connection.key, http_options=over, vertexai=False)

    return gemini.GeminiBatches(
        client=genai.Client(api_key=connection.key, http_options=options, vertexai=False),
        bodies=bodies,
        name=connection.name,
        account=connection.account,
        limits=connection.limits(gemini.LIMITS),
        clock=connection.clock,
        reopen=reopen,
        error_words=connection.judge.service.error_words,
    )


def _gemini_parser(judge: Judge) -> Parser:
    from cj_pipeline.providers.gemini import parse_response

    return partial(parse_response, words=judge.service.error_words)


_ADAPTERS: Mapping[str, Callable[[_Connection], Provider]] = {
    "chat_completions": _openai,
    "responses": _openai,
    "messages": _anthropic,
    "generate_content": _gemini,
    "mistral": _mistral,
    "xai": _xai,
    "openrouter": _openrouter,
}
"""By endpoint, and by the shape of batches where that is a service's own."""

_PARSERS: Mapping[str, Callable[[Judge], Parser]] = {
    "chat_completions": _openai_parser,
    "responses": _openai_parser,
    "messages": _anthropic_parser,
    "generate_content": _gemini_parser,
    "mistral": _openai_parser,
    "xai": _xai_parser,
    "openrouter": _openai_parser,
}
