"""Logins from a docker config.json."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials import Credentials, Login
from proxy.errors import MalformedInput


def parse(document: Any) -> Credentials:
    return Credentials.parse(json.dumps(document).encode())


def encode(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "key",
    ["registry.example", "https://registry.example", "https://registry.example/v1/", "http://Registry.example/v2/"],
)
def test_keys_are_hosts_however_docker_wrote_them(key: str) -> None:
    login = parse({"auths": {key: {"auth": encode("user", "pa:ss")}}}).find("registry.example/team/app")
    assert login == Login("user", "pa:ss")
    assert login is not None
    assert login.basic == f"Basic {encode('user', 'pa:ss')}"


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"])
def test_all_names_of_docker_hub_mean_docker_hub(key: str) -> None:
    credentials = parse({"auths": {key: {"username": "user", "password": "secret"}}})
    assert credentials.find("docker.io/library/nginx") == Login("user", "secret")


def test_a_port_is_part_of_the_host() -> None:
    credentials = parse({"auths": {"registry.example:5000": {"auth": encode("user", "x")}}})
    assert credentials.find("registry.example:5000/app") is not None
    assert credentials.find("registry.example/app") is None


def test_the_longest_path_wins() -> None:
    logins = {"r.example": "host", "r.example/team": "team", "r.example/team/app": "app"}
    credentials = parse({"auths": {key: {"auth": encode(user, "x")} for key, user in logins.items()}})
    found = {name: credentials.find(f"r.example/{name}") for name in ("team/app", "team/other", "teams/app")}
    assert {name: login.username if login else "" for name, login in found.items()} == {
        "team/app": "app",
        "team/other": "team",
        "teams/app": "host",
    }


def test_an_identity_token_is_kept() -> None:
    login = parse({"auths": {"r.example": {"auth": encode("<token>", ""), "identitytoken": "t0ken"}}}).find(
        "r.example/a"
    )
    assert login is not None
    assert login.identity_token == "t0ken"


def test_helpers_are_named_and_never_run() -> None:
    credentials = parse({"auths": {"r.example": {}}, "credHelpers": {"r.example": "ecr-login"}, "credsStore": "pass"})
    assert credentials.find("r.example/app") is None
    assert credentials.helper("r.example") == "ecr-login"
    assert credentials.helper("other.example") == "pass"
    assert parse({}).helper("r.example") == ""


def test_secrets_are_in_no_text_form() -> None:
    credentials = parse({"auths": {"r.example": {"auth": encode("user", "hunter2"), "identitytoken": "t0ken"}}})
    login = credentials.find("r.example/app")
    for text in (repr(credentials), str(credentials), repr(login), str(login)):
        assert "hunter2" not in text
        assert "t0ken" not in text


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"auths": []}',
        b'{"auths": {"r.example": {"auth": "hunter2!"}}}',
        b'{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}',
        b'{"auths": {"r.example": {"password": ["hunter2"]}}}',
        b'{"password": "hunter2" ',
    ],
)
def test_a_broken_file_is_refused_without_showing_it(raw: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(raw)
    with pytest.raises(MalformedInput) as caught:
        Credentials.read(file)
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "aHVudGVyMg" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match=r"absent\.json: cannot be read"):
        Credentials.read(tmp_path / "absent.json")


def words(barred: str) -> st.SearchStrategy[str]:
    return st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters=barred), min_size=1)


@given(words(":\0"), words("\0"))
def test_any_user_and_password_survive_their_encoding(user: str, password: str) -> None:
    assert parse({"auths": {"r.example": {"auth": encode(user, password)}}}).find("r.example") == Login(user, password)
