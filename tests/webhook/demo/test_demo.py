"""The demonstration on the substitute source: the whole path, with no network but loopback."""

import json

import pytest

from webhook.demo import main as demo


@pytest.fixture
def no_archive(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.Path, "home", lambda: tmp_path)
    (tmp_path / "proxy.yaml").write_text("sources: {machine: null}\n")
    return tmp_path


def test_without_a_debian_archive_a_signed_source_of_its_own_stands_in(no_archive, capsys):
    assert demo.run(None, json_output=True, settings=no_archive / "proxy.yaml") == 0
    story = json.loads(capsys.readouterr().out)
    assert story["outcome"] == "patched"
    assert {item["package"]: (item["from"], item["to"]) for item in story["upgrades"]} == {
        "demo": ("1.0-1", "1.0-1+deb12u1"),
        "libdemo1": ("1.0-1", "1.0-1+deb12u1"),
    }
    assert story["signature_verified"]
    assert story["versions_verified"]
    assert story["patched"].startswith("127.0.0.1:")
    assert story["audit"]["verdict"] == "rewrite"
    assert story["cached_ms"] < story["first_sight_ms"]


def test_the_story_names_what_a_person_wants_to_know(no_archive, capsys):
    assert demo.run(None, json_output=False, settings=no_archive / "proxy.yaml") == 0
    text = capsys.readouterr().out
    for words in ("stands in", "before", "after", "1.0-1+deb12u1", "first sight", "verified", "audit line", "pull it"):
        assert words in text
    assert (no_archive / ".cache/admend/demo/mirror/index.json").exists()


def test_an_image_that_cannot_be_had_fails_with_the_reason(no_archive, capsys):
    assert demo.run("127.0.0.1:1/no/such:image", json_output=False) == 1
    assert "cannot be reached" in capsys.readouterr().out


def test_wrong_configuration_is_told_with_its_place(no_archive, capsys):
    (no_archive / "proxy.yaml").write_text("sources: {unknown: 1}\n")
    assert demo.run(None, json_output=False, settings=no_archive / "proxy.yaml") == 2
    assert "unknown" in capsys.readouterr().err
