"""How long people wait for their next pair: 50 of them, an answer every 10 s, waves beside them.

    python -m benchmarks.pages.judging_page [--people 50] [--every 10] [--seconds 60]

One service over the embedded store, in a process of its own. Each person is a client with a link of
their own that thinks for about the same time and answers by chance. Beside them `cj execute` takes
one batch after another through its waves on the same store, unless --quiet is given. What is timed
is what the page waits for: that an answer is stored, and that the pair after it is there, which the
page fetched with the answer before and shows at once.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from cj_pipeline.people.links import make_links
from tests.support.batches import open_engine, run_to_end, write_batch

CJ = str(Path(sys.executable).parent / "cj")
JUDGED: dict[str, Any] = {
    "judges": ["quality", "people"],
    "people": {"share": 1.0},
    "max_pairwise_comparisons": 1200,
    "all_at_once": True,
}
BESIDE: dict[str, Any] = {"judges": ["quality"], "max_pairwise_comparisons": 60, "wave_size": 10}


class Person(threading.Thread):
    """Somebody who judges: opens their link, and answers again and again."""

    def __init__(self, address: str, token: str, every_s: float, until: float, seed: int) -> None:
        super().__init__()
        self.answered: list[float] = []
        self.waited: list[float] = []
        self._client = httpx2.Client(base_url=address, timeout=120)
        self._token, self._every_s, self._until = token, every_s, until
        self._draw = random.Random(seed)  # noqa: S311 -- nothing is secret

    def run(self) -> None:
        """Judge until time is over or nothing is left."""
        self._client.post("/judge/session", json={"token": self._token}).raise_for_status()
        desk = self._client.get("/judge/desk").json()
        time.sleep(self._draw.uniform(0, self._every_s))
        while time.monotonic() < self._until and desk["pair"] is not None:
            is_there = desk["next"] is not None
            given = {"pair": desk["pair"]["id"], "winner": self._draw.choice(["first", "second"])}
            began = time.perf_counter()
            answer = self._client.post("/judge/answers", json=given)
            took = time.perf_counter() - began
            answer.raise_for_status()
            desk = answer.json()
            self.answered.append(took)
            if desk["pair"] is not None:  # where it was there already, nobody waited for it
                self.waited.append(0.0 if is_there else took)
            time.sleep(max(0.0, self._every_s * self._draw.uniform(0.7, 1.3) - took))


def waves(home: Path, folder: Path, over: threading.Event) -> None:
    """Take batches through their waves until it is over."""
    for number in count():
        if over.is_set():
            return
        name = f"beside-{number}"
        write_batch(folder / name, n_students=12, settings=BESIDE)
        with subprocess.Popen(
            [CJ, "execute", str(folder / name), "--await-completion"],
            env=os.environ | {"CJ_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            while process.poll() is None:
                if over.wait(0.2):
                    process.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two answers")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--quiet", action="store_true", help="no waves beside them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as at:
        home, folder = Path(at) / "home", Path(at)
        runtime = open_engine(home)
        batch_id = run_to_end(
            runtime, write_batch(folder / "judged", n_students=80, settings=JUDGED)
        )
        persons = [f"person-{number}" for number in range(given.people)]
        links = make_links(runtime, batch_id, persons, by="benchmark")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        server = subprocess.Popen(
            [CJ, "serve", "--port", str(port)],
            env=os.environ | {"CJ_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        over = threading.Event()
        try:
            while True:
                try:
                    httpx2.get(f"{address}/healthz").raise_for_status()
                    break
                except httpx2.TransportError:
                    time.sleep(0.2)
            beside = threading.Thread(target=waves, args=(home, folder, over))
            if not given.quiet:
                beside.start()
            until = time.monotonic() + given.seconds
            people = [
                Person(address, link.token, given.every, until, seed)
                for seed, link in enumerate(links)
            ]
            for person in people:
                person.start()
            for person in people:
                person.join()
            over.set()
            if not given.quiet:
                beside.join()
        finally:
            server.terminate()
            server.wait()
        show(people)


def show(people: list[Person]) -> None:
    """Print how long answers took to store, and how long people waited for the pair after."""
    answered = sorted(second for person in people for second in person.answered)
    waited = sorted(second for person in people for second in person.waited)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{len(people)} people, {len(answered)} answers")
    for name, seconds in (("answer stored", answered), ("next pair shown", waited)):
        at = [seconds[min(len(seconds) - 1, int(p * len(seconds)))] for p in (0.5, 0.95, 1.0)]
        print("{:<16} median {:.3f} s   p95 {:.3f} s   longest {:.3f} s".format(name, *at))


if __name__ == "__main__":
    main()
