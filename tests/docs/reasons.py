"""Every reason that admend prints, collected from its source, and the phrases by which a page of docs/ finds them.

Owns which texts are reasons: messages of errors, and sentences in the modules whose sentences are told to people
(`TELLING`). A text's variable parts become `GAP`, and so do the `...` of a phrase.

A `MalformedInput` is about somebody's bytes, and there are as many of them as ways in which bytes can be wrong: they
are told by their code, and one by one only where an operator wrote the bytes (`WRITTEN`). A `UsageError` says all
itself.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.errors import ERRORS
from tests.support import REPOSITORY

GAP = "\0"
MIN_LETTERS = 9  # of a phrase: what is shorter would stand for anything
MAX_BREADTH = 14  # reasons that one phrase stands for: `cannot be read`, of files of every kind, has the most
NOT_TOLD = frozenset({"admend: OS packages upgraded", "deinstall ok config-files"})  # an image's history, dpkg's status
HEADERS = frozenset({"answer", "code", "outcome", "reason", "text", "the mirror answers", "verdict"})
DPKG = "proxy/engine/families/dpkg/"
CHECKS = REPOSITORY / "charts" / "admend" / "templates" / "_checks.tpl"

TELLING = frozenset(
    (
        *("webhook/admission", "webhook/answer", "webhook/channel", "webhook/finding", "webhook/policy", "webhook/cli"),
        *("webhook/replicas", "webhook/resolver", "webhook/server", "webhook/stance"),
        *("proxy/canary", "proxy/entrance", "proxy/grants", "proxy/patcher", "proxy/pool", "proxy/privacy"),
        *("proxy/resolve", "proxy/results", "proxy/server", "proxy/upkeep", "proxy/v2_guard", "proxy/witness"),
        *("proxy/kube/cluster", "proxy/kube/probe", "proxy/kube/secrets", "proxy/kube/tokens", "proxy/worker"),
        *("proxy/fleet/command", "proxy/fleet/judge", "proxy/fleet/notices", "proxy/fleet/restart"),
        *("proxy/fleet/survey", "proxy/fleet/walker", "proxy/audit/http", "proxy/audit/queue"),
        *("proxy/egress/client", "proxy/egress/network", "proxy/egress/policy", "proxy/oci/naming"),
        *("proxy/registry/auth", "proxy/registry/session", "proxy/mirror/external", "proxy/mirror/layout"),
        *("proxy/engine/abi", "proxy/engine/closure", "proxy/engine/nodatabase", "proxy/engine/plan"),
        *("proxy/engine/transition", DPKG + "removing"),
        *("proxy/engine/families/apk/family", DPKG + "candidates", DPKG + "chisel", DPKG + "conffiles"),
        *(DPKG + "database", DPKG + "derived", DPKG + "judge", DPKG + "preferences", DPKG + "record"),
        *(DPKG + "scripts", DPKG + "simple", DPKG + "sourcelist", DPKG + "sources", DPKG + "unpacking"),
        *("certs/cli", "certs/cluster", "certs/connection", "certs/following", "certs/holdings", "certs/lease"),
        *("certs/rotate", "certs/serving", "certs/settings", "certs/signing", "certs/store"),
    )
)
WRITTEN = frozenset(
    (
        *("proxy/audit/http", "proxy/command", "proxy/credentials", "proxy/images/dest", "proxy/images/location"),
        *("proxy/kube/cluster", "proxy/kube/secrets", "proxy/machine", "proxy/oci/reference", "proxy/pulltokens"),
        *("proxy/reports", "proxy/serve", "proxy/trust/keys", "webhook/answer", "webhook/channel"),
    )
)
_ERRORS = {each.__name__ for each in ERRORS.values()} | {"CertificateError", "SettingsError", "Refused"}
_HELP = frozenset({"ArgumentParser", "Field", "_Parser", "add_argument", "add_parser", "compile"})
_WORD = re.compile(r"(?<![\w.:/-])[A-Za-z][a-z'-]+(?![\w./-])")
_SENTENCE = 3  # words
_FORMAT = re.compile(r"%(?:\.\d)?[sdf]")


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the code: where it stands, its words, and whether it is a reason."""

    where: str
    words: str
    reason: bool


def find_texts() -> list[Text]:
    """Return every text of the source and of the chart's refusals; those of the demonstration are left out."""
    found: list[Text] = []
    for package in ("webhook", "proxy", "certs"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            module = file.relative_to(REPOSITORY).with_suffix("").as_posix()
            if not module.startswith("webhook/demo/"):
                found += _of_module(module, ast.parse(file.read_text()))
    return [*found, *_of_chart(CHECKS.read_text())]


def _of_module(module: str, tree: ast.Module) -> Iterator[Text]:
    silent = {part for node in ast.walk(tree) for part in _silent(node)}
    messages, exempt = set[ast.AST](), set[ast.AST]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _name(node.func)) in _ERRORS and node.args:
            theirs = name == "UsageError" or (name == "MalformedInput" and module not in WRITTEN)
            (exempt if theirs else messages).update(ast.walk(node.args[0]))
    for node in ast.walk(tree):
        words = "" if node in silent else _words(node)
        told = node in messages or (module in TELLING and node not in exempt)
        if words:
            reason = told and words not in NOT_TOLD and len(_WORD.findall(words)) >= _SENTENCE
            yield Text(f"{module}.py:{getattr(node, 'lineno', 0)}", words, reason)


def _silent(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is read by programmers, or by who asks a command for help; and the parts of a larger text."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value  # a docstring
    if isinstance(node, ast.JoinedStr):
        yield from node.values
    if isinstance(node, ast.Call) and _name(node.func) in _HELP:
        yield from ast.walk(node)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _words(node: ast.AST) -> str:
    """Return the literal words of a text, or nothing for what is none."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
        return "".join(map(str, parts))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _FORMAT.sub(GAP, node.value)
    return ""


def _of_chart(template: str) -> Iterator[Text]:
    for number, line in enumerate(template.splitlines(), 1):
        if match := re.search(r'fail (?:\(printf )?"(.+?)"', line):
            yield Text(f"{CHECKS.name}:{number}", _FORMAT.sub(GAP, match[1]), reason=True)


def find_phrases(page: str) -> list[str]:
    """Return what stands in code quotes in the first column of a page's tables of reasons."""
    found: list[str] = []
    wanted, inside = False, False
    for line in page.splitlines():
        cell = line.split("|")[1].strip() if line.startswith("| ") else ""
        if cell and not inside:
            wanted = cell in HEADERS
        elif wanted:
            found += [match[2].strip() for match in re.finditer(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)", cell)]
        inside = line.startswith("|")
    return found


def says(phrase: str, words: str) -> bool:
    """Say whether a text has a phrase: its pieces between `...`, in their order; one word must be the whole text."""
    if is_word(phrase):
        return phrase == words
    at = 0
    for piece in phrase.split("..."):
        found = words.find(piece.strip(), at)
        if found < 0:
            return False
        at = found + len(piece.strip())
    return True


def is_word(phrase: str) -> bool:
    """Say whether a phrase is a word of an enumeration, a code or the name of an Event."""
    return re.fullmatch(r"[A-Za-z-]+", phrase) is not None


def letters(phrase: str) -> int:
    """Return how many letters of a phrase are fixed."""
    return sum(char.isalpha() for char in phrase)
