"""Files in an object store, `s3://`, `gs://` or `az://`; the one module that knows obstore.

An object appears whole under its name or not at all. Keys and endpoints come from the environment
variables that the service's own tools read (`AWS_...`, `GOOGLE_...`, `AZURE_...`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from cj_pipeline.errors import StoreError, TransientError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_ADDRESS = re.compile(r"(?:s3|gs|az)://[^/\s]+(?:/\S*)?")

_NO_BUCKET = ("NoSuchBucket", "The specified bucket does not exist", "ContainerNotFound")
"""What S3, Google and Azure say where not the object is missing, but all that should hold it."""


class Objects:
    """The objects below one address; their names are relative to it.

    Args:
        address: `s3://BUCKET/PREFIX`, or `gs://` or `az://` likewise.
        timeout_s: How long one request may take.
        patience_s: How long a request that failed for a passing reason is tried again.

    Raises:
        StoreError: If the address cannot be used.
    """

    def __init__(self, address: str, *, timeout_s: float = 60.0, patience_s: float = 60.0) -> None:
        self.address = address.rstrip("/")
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        if not _ADDRESS.fullmatch(address):
            msg = f"{address!r} is no object store; give s3://BUCKET/PREFIX, or gs:// or az://."
            raise StoreError(msg)
        self._store = self._opened()

    def put(self, name: str, content: bytes) -> None:
        """Write an object, whatever was there."""
        import obstore

        with self._told(f"write {name}"):
            obstore.put(self._store, name, content)

    def get(self, name: str) -> bytes | None:
        """Return an object; None if there is none of that name."""
        import obstore

        with self._told(f"read {name}"):
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except FileNotFoundError as error:
                if any(said in str(error) for said in _NO_BUCKET):
                    raise
                return None

    def names(self, folder: str) -> list[str]:
        """Return the names of what lies in a folder, sorted."""
        import obstore

        with self._told(f"list {folder}"):
            pages = obstore.list(self._store, prefix=f"{folder.rstrip('/')}/")
            return sorted(each["path"] for page in pages for each in page)

    def delete(self, names: list[str]) -> None:
        """Delete objects; one that is not there is no error."""
        import obstore

        with self._told(f"delete {len(names)} objects"):
            for name in names:
                try:
                    obstore.delete(self._store, name)
                except FileNotFoundError:
                    continue

    def _opened(self) -> ObjectStore:
        try:
            from obstore.store import from_url
        except ImportError as error:
            msg = f"Files at {self.address} need the package obstore: install cj-pipeline[objects]."
            raise StoreError(msg) from error
        with self._told("open it"):
            return from_url(
                self.address,
                client_options={
                    # The endpoint's own address says whether there is TLS.
                    "allow_http": True,
                    "timeout": timedelta(seconds=self._timeout_s),
                    "connect_timeout": timedelta(seconds=min(10.0, self._timeout_s)),
                },
                retry_config={
                    "max_retries": 100,
                    "retry_timeout": timedelta(seconds=self._patience_s),
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=5),
                        "base": 2,
                    },
                },
            )

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Turn what the library raises into errors that say what to do.

        Raises:
            TransientError: If trying again later may help.
            StoreError: If a person must change something first.
        """
        import obstore.exceptions as raised

        final = (
            raised.PermissionDeniedError,
            raised.UnauthenticatedError,
            raised.InvalidPathError,
            raised.UnknownConfigurationKeyError,
            raised.NotSupportedError,
        )
        try:
            yield
        except final as error:
            msg = (
                f"{self.address} does not let us {doing}: {_first_line(error)} Check the keys in "
                "the environment and what they may do there."
            )
            raise StoreError(msg) from error
        except (raised.BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) or any(s in str(error) for s in _NO_BUCKET):
                msg = f"{self.address} cannot {doing}: there is no such bucket or container."
                raise StoreError(msg) from error
            msg = (
                f"{self.address} did not {doing} within {self._patience_s:.0f} s: "
                f"{_first_line(error)} Nothing is lost; try again."
            )
            raise TransientError(msg) from error


def _first_line(error: Exception) -> str:
    """Return the first line of a message, ended; the others hold the library's own state."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0][:300].rstrip('.')}."
