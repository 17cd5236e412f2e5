"""How a notification reaches somebody: a signed webhook, an e-mail, or a command.

The addresses are the operator's, in `installation.yaml`; what is sent holds a batch's name, state
and figures, and never a text of an essay or of a judge.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import smtplib
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cj_pipeline.errors import SettingsError, TransientError

Event = Literal["ended", "rejected", "graded", "waiting", "checkpoint"]
EVENTS: tuple[Event, ...] = ("ended", "rejected", "graded", "waiting")
"""What is told where an address does not say; `checkpoint` is for reporters of their own."""

TIMEOUT_S = 15.0
COMMAND_TIMEOUT_S = 60.0


class _Notify(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    events: tuple[Event, ...] = EVENTS


class Webhook(_Notify):
    """A URL that is posted to, signed as Standard Webhooks are where a secret is named."""

    webhook: Annotated[str, Field(pattern=r"^https?://\S+$")]
    secret_variable: str | None = None


class Command(_Notify):
    """A program that is given the notification as JSON on its standard input."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]


class Mailbox(BaseModel):
    """Who is written to, and by which server."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    to: Annotated[tuple[str, ...], Field(min_length=1)]
    sender: Annotated[str, Field(alias="from")]
    host: str
    port: Annotated[int, Field(gt=0, lt=65536)] = 587
    encryption: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_variable: str | None = None


class Email(_Notify):
    """A mailbox."""

    email: Mailbox


_ADDRESSES: TypeAdapter[list[Webhook | Command | Email]] = TypeAdapter(
    list[Webhook | Command | Email]
)


class DeliveryError(TransientError):
    """A notification was not taken; it is tried again."""


@dataclass(frozen=True)
class Address:
    """Somebody who is told.

    Attributes:
        key: A fingerprint: the address itself may hold a token and is never stored.
        events: What is told.
        target: Where and how.
        secret: What signs a webhook, or opens a mail server; None where nothing does.
    """

    key: str
    events: tuple[str, ...]
    target: Webhook | Command | Email
    secret: str | None = None


def addresses(said: Any, environment: Mapping[str, str]) -> Sequence[Address]:
    """Return the addresses that `notify:` in `installation.yaml` names; none where it is missing.

    Raises:
        SettingsError: With everything that cannot be used, a missing secret included.
    """
    if said is None:
        return ()
    try:
        targets = _ADDRESSES.validate_python(said)
    except ValidationError as error:
        wrong = sorted(
            {
                f"notify[{e['loc'][0]}]: {e['msg']}" if e["loc"] else e["msg"]
                for e in error.errors(include_input=False, include_url=False)
            }
        )
        msg = (
            "installation.yaml: notify is a list of addresses, each with webhook, command or"
            f" email: {'; '.join(wrong)}"
        )
        raise SettingsError(msg) from None
    missing = [
        name for each in targets if (name := _secret_name(each)) and not environment.get(name)
    ]
    if missing:
        msg = f"installation.yaml: notify: set the environment variables {', '.join(missing)}"
        raise SettingsError(msg)
    found = []
    for each in targets:
        name = _secret_name(each)
        where = each.model_dump_json(exclude={"events"})
        key = hashlib.sha256(where.encode()).hexdigest()[:12]
        found.append(Address(key, each.events, each, environment[name] if name else None))
    return found


def _secret_name(target: Webhook | Command | Email) -> str | None:
    match target:
        case Webhook():
            return target.secret_variable
        case Email():
            return target.email.password_variable
    return None


def deliver(address: Address, key: str, body: Mapping[str, Any], now: datetime) -> None:
    """Send one notification.

    Args:
        address: To whom.
        key: The notification's id: the same each time it is sent.
        body: What is sent, as JSON.
        now: When it is sent.

    Raises:
        DeliveryError: If it was not taken; the message never holds the address.
    """
    match address.target:
        case Webhook():
            _post(address, address.target, key, body, now)
        case Command():
            _run(address.target, body)
        case Email():
            _mail(address, address.target.email, key, body)


def signature(secret: str, key: str, timestamp: int, payload: bytes) -> str:
    """Return the `webhook-signature` of Standard Webhooks (version 1, HMAC with SHA-256).

    A secret that begins with `whsec_` is base64, as that standard has it; any other is taken as is.
    """
    raw = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    signed = f"{key}.{timestamp}.".encode() + payload
    return "v1," + base64.b64encode(hmac.digest(raw, signed, "sha256")).decode()


def _post(
    address: Address, target: Webhook, key: str, body: Mapping[str, Any], now: datetime
) -> None:
    import httpx2

    payload = json.dumps(body).encode()
    timestamp = int(now.timestamp())
    headers = {
        "content-type": "application/json",
        "webhook-id": key,
        "webhook-timestamp": str(timestamp),
    }
    if address.secret is not None:
        headers["webhook-signature"] = signature(address.secret, key, timestamp, payload)
    try:
        reply = httpx2.post(
            target.webhook,
            content=payload,
            headers=headers,
            timeout=TIMEOUT_S,
            follow_redirects=False,
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        msg = f"the webhook did not answer ({type(error).__name__})"
        raise DeliveryError(msg) from None
    if not reply.is_success:
        msg = f"the webhook answered {reply.status_code}"
        raise DeliveryError(msg)


def _run(target: Command, body: Mapping[str, Any]) -> None:
    try:
        done = subprocess.run(
            target.command,
            input=json.dumps(body).encode(),
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"the command could not be run to its end ({type(error).__name__})"
        raise DeliveryError(msg) from None
    if done.returncode:
        msg = f"the command ended with exit code {done.returncode}"
        raise DeliveryError(msg)


def _mail(address: Address, box: Mailbox, key: str, body: Mapping[str, Any]) -> None:
    message = EmailMessage()
    message["Subject"] = f"{body['kind']}: batch {body['batch_id']}"
    message["From"] = box.sender
    message["To"] = ", ".join(box.to)
    message["X-Notification-Id"] = key
    message.set_content("\n".join(f"{name}: {value}" for name, value in body.items()))
    try:
        server: smtplib.SMTP
        if box.encryption == "tls":
            server = smtplib.SMTP_SSL(
                box.host, box.port, timeout=TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(box.host, box.port, timeout=TIMEOUT_S)
        with server:
            if box.encryption == "starttls":
                server.starttls(context=ssl.create_default_context())
            if box.user is not None:
                server.login(box.user, address.secret or "")
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        msg = f"the mail server did not take it ({type(error).__name__})"
        raise DeliveryError(msg) from None
