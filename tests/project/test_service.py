"""The README's web service under load: right pictures, whoever else asks, and nothing left of clients that leave."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import autotune
from autotune.policy import CacheRule, Guidance, Policy, PolicySet
from tests.support.readme import block, command
from tests.support.serving import serving

# The folder that the README's search for three tiers makes.
RUN = Path("runs/emoji-unet-60pct-40pct-25pct")
REQUESTS, CLIENTS, LEAVING = 200, 8, 12
PROMPTS = ("fluent red apple", "noto green tree", "twitter moon")
SIZES = (32, 32, 48)
Kind = tuple[str, int, int]


def tiers() -> PolicySet:
    """Few steps, so that the load is one of requests."""
    model = autotune.full_policy(autotune.demo_pipeline()).model
    rule = CacheRule(units=("up_blocks.1",), compute_steps=(0,))
    return PolicySet(
        tiers={
            "high": Policy(model=model, steps=2, guidance=Guidance(stop_step=1)),
            "medium": Policy(model=model, steps=2, cache=(rule,)),
            "draft": Policy(model=model, steps=1),
        }
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the server, so that both compute alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server runs."""
    found = tmp_path_factory.mktemp("service")
    tiers().save(found / RUN / "policies.json")
    (found / "serve.py").write_text(block("serve.py"), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[int]:
    """The port of the server, as printed but for that."""
    with serving(folder, command("uvicorn"), {"OMP_NUM_THREADS": "1"}) as port:
        yield port


@dataclass(frozen=True)
class Made:
    """An answer: what was asked for, the picture (H, W, 3), its place in its call, and how many were made there."""

    asked: dict[str, Any]
    picture: np.ndarray
    place: int
    batch: int

    @property
    def kind(self) -> Kind:
        return self.asked["tier"], self.asked["height"], self.batch


def pixels(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as picture:
        return np.array(picture)


def request(connection: http.client.HTTPConnection, asked: dict[str, Any]) -> tuple[int, bytes, Any]:
    connection.request("POST", "/generate", json.dumps(asked), {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return answer.read().decode()


def counted(metrics: str, name: str) -> dict[str, float]:
    """Values of a metric by the text of its labels."""
    return {labels: float(value) for labels, value in re.findall(rf"^{name}{{([^}}]*)}} (\S+)$", metrics, re.MULTILINE)}


def asked_for() -> list[dict[str, Any]]:
    """Different requests, tiers and sizes mixed."""
    names = (*tiers().tiers,)
    return [
        {
            "prompt": PROMPTS[number // 3 % 3],
            "seed": number,
            "tier": names[number % 3],
            "height": SIZES[number // 9 % 3],
            "width": SIZES[number // 9 % 3],
        }
        for number in range(REQUESTS)
    ]


def leave(port: int, asked: dict[str, Any]) -> None:
    """Ask, and go before the answer."""
    body = json.dumps(asked).encode()
    head = (
        f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(0.02)


@pytest.fixture(scope="module")
def load(served: int) -> tuple[list[Made], str, str]:
    """Answers to all requests, and what health and metrics say when all is over."""
    left = iter(asked_for())
    lock = threading.Lock()

    def client() -> list[Made]:
        connection = http.client.HTTPConnection("127.0.0.1", served, timeout=120)
        found: list[Made] = []
        while True:
            with lock:
                asked = next(left, None)
            if asked is None:
                return found
            status, body, headers = request(connection, asked)
            assert status == 200, body
            place, batch = map(int, headers["x-batch"].split("/"))
            found.append(Made(asked, pixels(body), place - 1, batch))

    def impatient() -> None:
        for number in range(LEAVING):
            leave(served, {"prompt": "gone", "seed": number, "tier": "high"})
            time.sleep(0.05)

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        clients = [pool.submit(client) for _ in range(CLIENTS)]
        pool.submit(impatient).result()
        made = list(itertools.chain.from_iterable(each.result() for each in clients))
    deadline = time.monotonic() + 30
    while json.loads(get(served, "/health"))["queued"] and time.monotonic() < deadline:
        time.sleep(0.05)
    return made, get(served, "/health"), get(served, "/metrics/")


def test_the_server_is_the_printed_one(served: int, folder: Path) -> None:
    assert (folder / "serve.py").read_text(encoding="utf-8") == block("serve.py")
    assert command("uvicorn")[:2] == ["uvicorn", "serve:app"]
    assert f"http://127.0.0.1:{served}" in (folder / "log").read_text()


def test_every_request_is_answered(load: tuple[list[Made], str, str]) -> None:
    made, _, _ = load
    assert sorted(each.asked["seed"] for each in made) == list(range(REQUESTS))
    assert all(each.picture.shape == (each.asked["height"], each.asked["width"], 3) for each in made)
    # Requests did share calls.
    assert max(each.batch for each in made) > 1


def test_every_picture_is_that_of_its_request_alone_at_the_same_batch(load: tuple[list[Made], str, str]) -> None:
    """In the same place of calls of as many pictures, whose others are not those that the server put together."""
    groups: dict[Kind, list[Made]] = defaultdict(list)
    for each in load[0]:
        groups[each.kind].append(each)
    policies = tiers().tiers
    pipe = autotune.demo_pipeline()
    pipe.set_progress_bar_config(disable=True)
    for (name, side, batch), group in groups.items():
        # By place in the call; one goes through them forwards, the next backwards, so that companions change.
        queues = [sorted((m for m in group if m.place == p), key=lambda m: m.asked["seed"]) for p in range(batch)]
        for odd in queues[1::2]:
            odd.reverse()
        with autotune.applied(pipe, policies[name]):
            for call in itertools.zip_longest(*queues):
                # Where nobody is left for a place, something that nobody asked for.
                asked: list[dict[str, Any]] = [
                    {"prompt": "a filler", "seed": 10_000 + place} if each is None else each.asked
                    for place, each in enumerate(call)
                ]
                images = pipe(
                    [each["prompt"] for each in asked],
                    generator=[torch.Generator().manual_seed(each["seed"]) for each in asked],
                    guidance_scale=2.5,
                    height=side,
                    width=side,
                ).images
                for each, image in zip(call, images, strict=True):
                    assert each is None or np.array_equal(each.picture, np.array(image)), each.asked


def test_clients_that_leave_leave_nothing_behind(load: tuple[list[Made], str, str]) -> None:
    made, health, metrics = load
    assert json.loads(health) == {"status": "ok", "tiers": ["draft", "full", "high", "medium"], "queued": 0}
    statuses = counted(metrics, "requests_total")
    answered = sum(value for labels, value in statuses.items() if 'status="200"' in labels)
    gone = sum(value for labels, value in statuses.items() if 'status="499"' in labels)
    # One that leaves as its picture arrives was answered.
    assert gone + answered == REQUESTS + LEAVING and gone > 0
    assert set(re.findall(r'status="(\d+)"', metrics)) <= {"200", "499"}
    assert "\nqueued 0.0\n" in metrics


def test_metrics_count_by_tier(load: tuple[list[Made], str, str]) -> None:
    made, _, metrics = load
    asked = Counter(each.asked["tier"] for each in made)
    pictures, seconds = counted(metrics, "pictures_total"), counted(metrics, "request_seconds_count")
    for name in ("medium", "draft"):  # Nobody left these.
        assert pictures[f'tier="{name}"'] == seconds[f'tier="{name}"'] == asked[name]
    assert asked["high"] <= pictures['tier="high"'] <= seconds['tier="high"'] == asked["high"] + LEAVING


def test_one_request_as_printed(served: int, load: tuple[list[Made], str, str]) -> None:
    words = command("curl")
    body, header = json.loads(words[words.index("-d") + 1]), words[words.index("-H") + 1]
    assert words[1].endswith(":8000/generate") and header == "content-type: application/json"
    status, png, headers = request(http.client.HTTPConnection("127.0.0.1", served, timeout=60), body)
    assert (status, headers["content-type"], headers["x-batch"]) == (200, "image/png", "1/1")
    pipe = autotune.apply_policies(autotune.demo_pipeline(), tiers(), default=body["tier"])
    (expected,) = pipe(body["prompt"], generator=torch.Generator().manual_seed(0), guidance_scale=2.5).images
    assert np.array_equal(pixels(png), np.array(expected))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"tier": "best"}, "there is no tier 'best'"), ({"height": 33}, "multiple of 8"), ({"seed": -1}, "seed")],
)
def test_what_cannot_be_made_is_refused(served: int, change: dict[str, Any], words: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served, timeout=60)
    status, body, _ = request(connection, {"prompt": "an apple"} | change)
    assert status == 422 and words in body.decode()
