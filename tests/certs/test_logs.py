"""Log lines as text and as JSON: whole, plain, with the request's uid, without secrets."""

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.logs import UID, LogConfig, clean_message, start_logging

log = logging.getLogger("tests.logs")


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(config: LogConfig, text: str, *, level: int = logging.WARNING, error: BaseException | None = None) -> str:
    stream = StringIO()
    start_logging(config, stream)
    log.log(level, "%s", text, exc_info=error)
    return stream.getvalue()


def test_a_json_line_has_time_level_logger_and_message() -> None:
    line = json.loads(logged(LogConfig(format="json"), "something\nhappened"))
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warning", "logger": "tests.logs", "message": "something happened"}


def test_a_json_line_names_the_request_that_it_belongs_to() -> None:
    token = UID.set("3f2c")
    try:
        assert json.loads(logged(LogConfig(format="json"), "x"))["uid"] == "3f2c"
        assert logged(LogConfig(), "x") == "WARNING tests.logs: x (uid 3f2c)\n"
    finally:
        UID.reset(token)


def test_a_trace_of_the_program_stays_within_its_line() -> None:
    error = ValueError("https://me:hunter2@registry.example/")
    text = logged(LogConfig(format="json"), "x", error=error)
    assert text.count("\n") == 1
    assert "ValueError" in json.loads(text)["error"]
    assert "hunter2" not in text


def test_the_level_is_that_of_the_settings() -> None:
    assert logged(LogConfig(level="error"), "x") == ""
    assert logged(LogConfig(level="debug"), "x", level=logging.DEBUG) == "DEBUG tests.logs: x\n"


def test_libraries_that_log_whole_addresses_are_quiet_at_any_level() -> None:
    stream = StringIO()
    start_logging(LogConfig(level="debug"), stream)
    logging.getLogger("httpx").info("https://registry.example/?sig=secret")
    logging.getLogger("kubernetes").debug("Authorization: Bearer secret")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_an_image_wrote_cannot_forge_a_line_or_reach_the_terminal(style: str) -> None:
    hostile = 'x\n{"level":"info"}\r\x1b[2J\u2028\u202e'
    text = logged(LogConfig.model_validate({"format": style}), hostile)
    assert text.count("\n") == 1
    assert not {"\r", "\x1b", "\u2028", "\u202e"} & set(text)


@given(st.text())
def test_a_cleaned_message_is_one_printable_line(text: str) -> None:
    assert clean_message(text).isprintable()


def test_a_long_message_is_cut() -> None:
    assert len(clean_message("x" * 100_000)) < 10_000


def test_a_password_in_an_address_is_hidden() -> None:
    assert clean_message("GET https://me:hunter2@host.example/x failed") == "GET https://***@host.example/x failed"
