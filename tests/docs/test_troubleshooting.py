"""docs/troubleshooting.md has every reason that the source has, and none that it has not."""

import re
from functools import cache

import pytest

from certs import cli as certs_cli
from proxy import cli as proxy_cli
from proxy.api import Outcome
from proxy.errors import ERRORS
from proxy.fleet.report import State
from tests.docs.reasons import (
    MAX_BREADTH,
    MIN_LETTERS,
    Text,
    find_phrases,
    find_texts,
    is_word,
    letters,
    says,
)
from tests.support import REPOSITORY
from webhook import cli as webhook_cli
from webhook.verdict import Verdict

PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
NOTICES = (REPOSITORY / "proxy" / "fleet" / "notices.py").read_text()
PHRASES = find_phrases(PAGE)


@cache
def texts():
    return find_texts()


def missing(found):
    """Return the reasons among texts that the page does not have."""
    fixed = [phrase for phrase in PHRASES if not is_word(phrase)]
    return [
        f"{text.where}: {text.words!r}" for text in found if text.reason and not any(says(p, text.words) for p in fixed)
    ]


def test_every_reason_of_the_source_has_a_row():
    assert sum(text.reason for text in texts()) > 300
    assert missing(texts()) == [], "give each a row in docs/troubleshooting.md: what it means, what to do"


@pytest.mark.parametrize("words", ["the gearbox of \0 is out of oil", "\0: no such planet in \0; choose another"])
def test_a_reason_that_nobody_told_of_is_missed(words):
    assert missing([Text("here", words, reason=True)])


def test_the_page_tells_of_no_reason_that_the_source_has_not():
    everything = {text.words for text in texts()}
    assert [phrase for phrase in PHRASES if not any(says(phrase, words) for words in everything)] == []


def test_no_phrase_is_so_short_or_so_common_that_it_would_hide_a_new_reason():
    reasons = [text.words for text in texts() if text.reason]
    for phrase in PHRASES:
        if not is_word(phrase):
            assert letters(phrase) >= MIN_LETTERS, phrase
            assert sum(says(phrase, words) for words in reasons) <= MAX_BREADTH, phrase


@pytest.mark.parametrize("words", [ERRORS, Outcome, Verdict, State], ids=["errors", "outcomes", "verdicts", "states"])
def test_every_code_outcome_verdict_and_state_is_explained(words):
    assert {str(word) for word in words} <= set(PHRASES)


def test_every_event_is_explained():
    events = set(re.findall(r'_Said\("(\w+)"', NOTICES))
    assert len(events) == len([State.OUTDATED, State.UNPATCHED, State.BLOCKED])
    assert events <= set(PHRASES)


def test_the_exit_codes_are_those_of_the_commands():
    lines = re.findall(r"^\| \d+ \|.*$", PAGE, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    told = [{int(row[0]) for row in rows if row[column]} for column in (1, 2, 3)]
    proxy = {proxy_cli.EXIT_DONE, proxy_cli.EXIT_FAILED, proxy_cli.EXIT_UNSUPPORTED, *proxy_cli.EXITS.values()}
    webhook = {webhook_cli.OK, webhook_cli.FAILED, webhook_cli.USAGE, webhook_cli.INTERRUPTED}
    certs = {certs_cli.EXIT_DONE, certs_cli.EXIT_FAILED, certs_cli.EXIT_USAGE, certs_cli.EXIT_INTERRUPTED}
    assert told == [proxy, webhook, certs]
