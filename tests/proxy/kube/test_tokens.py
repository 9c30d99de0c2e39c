"""Service account tokens, by the real kubernetes client against an API server on loopback."""

import asyncio
import base64
import json
import time
from pathlib import Path

import pytest

from proxy.config import ClusterConfig, TokenReviewConfig
from proxy.errors import UpstreamUnavailable
from proxy.kube.cluster import Cluster
from proxy.kube.tokens import TokenReviews, read_expiry
from tests.simulators.kube_api import Token, serve_kube_api, write_kubeconfig

CI = "system:serviceaccount:ci:builder"


def encode(document) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def make_token(seconds=600.0, **claims) -> str:
    return f"{encode({'alg': 'RS256'})}.{encode({'exp': time.time() + seconds, **claims})}.c2ln"


@pytest.fixture
def kube():
    with serve_kube_api() as api:
        yield api


@pytest.fixture
async def reviews(kube, tmp_path):
    cluster = Cluster(ClusterConfig(namespace="admend", kubeconfig=Path(write_kubeconfig(kube, tmp_path))))
    opened = TokenReviews(cluster, TokenReviewConfig(audiences=("admend",), allow=(CI,)))
    yield opened
    await opened.close()
    cluster.close()


async def test_a_listed_account_is_known_by_its_token_and_asked_about_once(kube, reviews):
    token = make_token()
    kube.tokens[token] = Token(CI, ("admend",))
    assert await asyncio.gather(*(reviews.review(token) for _ in range(20))) == [CI] * 20
    assert await reviews.review(token) == CI
    assert len(kube.requests) == 1


async def test_a_token_for_another_audience_or_of_another_account_is_nobodys(kube, reviews):
    default, other, unknown = make_token(n=1), make_token(n=2), make_token(n=3)
    kube.tokens[default] = Token(CI)
    kube.tokens[other] = Token("system:serviceaccount:ci:other", ("admend",))
    for token in (default, other, unknown):
        assert await reviews.review(token) == ""
        assert await reviews.review(token) == ""
    assert len(kube.requests) == 3  # a no is remembered too


async def test_a_token_is_not_believed_longer_than_it_lives(kube, reviews, monkeypatch):
    token = make_token(seconds=5.0)
    kube.tokens[token] = Token(CI, ("admend",))
    assert await reviews.review(token) == CI
    now, wall = time.monotonic(), time.time()
    monkeypatch.setattr(time, "monotonic", lambda: now + 4.0)
    assert await reviews.review(token) == CI
    monkeypatch.setattr(time, "monotonic", lambda: now + 5.5)
    monkeypatch.setattr(time, "time", lambda: wall + 5.5)
    assert await reviews.review(token) == ""
    assert len(kube.requests) == 1


@pytest.mark.parametrize("status", [500, 429, 401, 403])
async def test_without_an_answer_of_the_api_server_nobody_is_let_in(kube, reviews, status):
    token = make_token()
    kube.tokens[token] = Token(CI, ("admend",))
    kube.refuse = status
    with pytest.raises(UpstreamUnavailable, match="review a token") as caught:
        await reviews.review(token)
    assert token not in str(caught.value)
    kube.refuse = None
    assert await reviews.review(token) == CI  # the failure was not remembered


@pytest.mark.parametrize(
    "token",
    [
        "",
        "static",
        "a.b",
        "a.b.c",
        "a.é.c",
        f"a.{encode([])}.c",
        f"a.{encode({})}.c",
        f"a.{encode({'exp': 'x'})}.c",
        f"a.{encode({'exp': float('inf')})}.c",
        "a." + "A" * 13_000 + ".c",
        "a." + base64.urlsafe_b64encode(b"[" * 5000).decode() + ".c",
    ],
)
async def test_what_is_no_such_token_costs_the_api_server_nothing(kube, reviews, token):
    assert read_expiry(token) is None
    assert await reviews.review(token) == ""
    assert kube.requests == []


async def test_a_token_that_has_ended_costs_the_api_server_nothing(kube, reviews):
    assert await reviews.review(make_token(seconds=-1.0)) == ""
    assert kube.requests == []


async def test_a_flood_of_tokens_does_not_reach_the_api_server(kube, reviews):
    kube.delay = 0.02
    answers = await asyncio.gather(*(reviews.review(make_token(n=n)) for n in range(200)), return_exceptions=True)
    assert sum(isinstance(item, UpstreamUnavailable) for item in answers) > 100
    assert len(kube.requests) < 60
