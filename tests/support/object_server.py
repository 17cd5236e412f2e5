"""An object store of our own that speaks S3, and a proxy before it that fails as networks do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["503", "hang", "cut", "cut after"]
BUCKET = "essays"


@dataclass
class ObjectServer:
    """Where the server is, and what it does with the requests that come next.

    Attributes:
        port: Of the proxy.
        faults: One for each request to come; after that they pass.
        is_down: Whether all of them get 503, after these.
        asked: The method and path of each request that came.
    """

    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    is_down: bool = False
    asked: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def environment(self) -> dict[str, str]:
        """Return the variables with which S3's clients find it."""
        return {
            "AWS_ACCESS_KEY_ID": "key-for-tests",
            "AWS_SECRET_ACCESS_KEY": "secret-for-tests",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Serve one empty bucket, `BUCKET`, until the block ends."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, moto_port = moto.get_host_and_port()
    server = ObjectServer()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server, moto_port))
    proxy.daemon_threads = True
    server.port = proxy.server_address[1]
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        _make_bucket(moto_port)
        yield server
    finally:
        server.released.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        moto.stop()


def _make_bucket(port: int) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="key-for-tests",
        aws_secret_access_key="secret-for-tests",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)


def _handler(server: ObjectServer, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.asked.append(f"{self.command} {self.path}")
            fault = server.faults.pop(0) if server.faults else ("503" if server.is_down else None)
            if fault == "503":
                self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                return
            if fault == "hang":
                server.released.wait()
            if fault in {"hang", "cut"}:
                self.close_connection = True
                self.connection.close()
                return
            inside = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            headers = dict(self.headers.items())
            inside.request(self.command, self.path, body, headers)
            reply = inside.getresponse()
            content = reply.read()
            kept = {k: v for k, v in reply.getheaders() if k.lower() not in _HOP_BY_HOP}
            inside.close()
            if fault == "cut after":
                self.close_connection = True
                self.connection.close()
                return
            self._answer(reply.status, kept, content)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - as http.server asks

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


_HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "server", "date"}
