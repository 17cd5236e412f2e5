"""What is common to all services on the wire: no answer is waited for without end."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from cj_pipeline.errors import TransientError
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.providers import transport
from cj_pipeline.providers.base import Provider
from cj_pipeline.providers.registry import open_provider

JUDGES = {
    "openai-gpt-4-1-mini": "OPENAI_API_KEY",
    "anthropic-claude-haiku-4-5": "ANTHROPIC_API_KEY",
    "gemini-2-5-flash": "GEMINI_API_KEY",
}
NOW = datetime(2026, 3, 3, tzinfo=UTC)


@pytest.fixture
def endless() -> Iterator[str]:
    """The address of a server that answers 200 and then sends a space now and then, for ever."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            connection.sendall(head + b"content-length: 1000000\r\n\r\n")
            while not ended.is_set():
                try:
                    connection.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.002)

    def serve(listener: socket.socket) -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()


def _opened(name: str, address: str, home: Path) -> Provider:
    judge = load_judge(name)
    own = f"{address}/v1" if judge.provider == "openai" else address
    judge = replace(judge, base_url=own)
    return open_provider(judge, {JUDGES[name]: "sk-none"}, home, clock=lambda: NOW)


@pytest.mark.parametrize("name", JUDGES)
def test_no_answer_is_waited_for_without_end(
    name: str, endless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends a byte a second breaks no silence and would hold a sensor for days."""
    seconds = itertools.count(step=7)
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    provider = _opened(name, endless, tmp_path)

    with pytest.raises(TransientError, match="ReadTimeout"):
        provider.poll("job-1")

    assert next(seconds) <= 60, "a poll has to be over within its sensor's minute"


def test_a_large_file_may_take_an_hour() -> None:
    """Results of 50,000 comparisons come slowly, and are no reason to begin again."""
    silence = transport.TRANSFER_TIMEOUT.read
    assert silence is not None
    assert silence * transport.SILENCES_OF_A_TRANSFER == 3600
