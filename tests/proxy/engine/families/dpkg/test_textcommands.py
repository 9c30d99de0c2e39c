"""Text commands of scripts, each form held against the real program in the C locale."""

import subprocess

import pytest

from proxy.engine.families.dpkg.awk import run_awk
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.sed import run_sed
from proxy.engine.families.dpkg.textcommands import TEXT_COMMANDS
from tests.support import require_tool

PACKAGES = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\n\nPackage: b\nStatus: x ok config-files\n"
LISTED = "Desired\nii  libc6:amd64 2.36 amd64 x\nun  foo 1\n"
WORDS = "banana\nx y  z\n\n# Abc\n10\n9\nx y  z\n"

SED = [
    (["s/a/b/"], "banana\nx"),
    (["s/a/b/g"], WORDS),
    (["-n", "/^x/p"], WORDS),
    (["-e", r"/^[a-z][a-z]\s/!d;/^.[nc]/d", "-e", r"s/^..\s\+libc6[0-9a-z:]*\s\+//;s/\s.*//g"], LISTED),
    ([r"s/\([0-9]*\)\.\([0-9]*\).*/\1 \* 100 + \2/"], "5.10.0-13\n"),
    (["/a/,/c/d"], "x\na\nb\nc\nd\n"),
    (["/a/,2d"], "1\n2\na\nb\n"),
    (["1,/a/d"], "a\nb\na\nc\n"),
    (["2,3!d"], "1\n2\n3\n4\n"),
    (["$d"], "1\n2\n"),
    (["-E", r"s/(a+)(b*)/[\2-\1]/g"], "aabb ab c\n"),
    (["/^0 /!d;s/^0 //"], "0 abc\n1 d\n"),
    (["-r", "s/chef\\s/chef-client/g;\n  # a remark\n  s/x/y/"], "chef x\n"),
    (["/x/a foo"], "x\ny\n"),
    (["/x/i\\\nfoo"], "x\ny\n"),
    (["/x/c\\\nfoo\\\nbar"], "x\ny\n"),
    (["y/abc/xyz/"], "aabbcc\n"),
    (["s,a\\,b,c,"], "a,b\n"),
    (["-e", r"s/\bat\b/atd/g"], "at cat at\n"),
    ([":a;s/^\\(.*\\)x/\\1y/;ta"], "axbxc\n"),
    (["/a/{s/a/b/;p}"], "a\nc\n"),
    (["$!N;s/\\n/,/"], "1\n2\n3\n"),
    (["s/x*/-/g"], "abxc\n"),
    (["s/b*/x/2"], "abc\n"),
    (["s/[ \\t]*$//"], "ab\t \nct\n"),
    (["2q"], "1\n2\n3\n"),
    (["s/a/\\\n/"], "bab\n"),
    (["s/[/]x/y/"], "/x\n"),
    (["-n", "1!G;h;$p"], "1\n2\n3\n"),
    (["s/.*/&&/"], "ab\n"),
    (["s/A/b/I"], "a\n"),
]
AWK = [
    (["/^Version:/ {print $2}"], PACKAGES),
    (
        ["-F/", 'BEGIN {OFS="/"} /\\.py$/ {$NF=sprintf("__pycache__/%s.*", substr($NF,1,length($NF)-3)); print}'],
        "/usr/lib/a/b.py\n/x/y.txt\n",
    ),
    (["/Maximum length/ {print int($NF / 4)}"], "Maximum length of command: 131074\n"),
    (
        ["{if ($1 ~ /^Package:/) { p=$2 } else if ($0 ~ /^Status: .* installed$/) { print p }}"],
        PACKAGES,
    ),
    (
        ["-v", "b=/usr/lib/jvm", "/^Alternative:/ && $2~b {p=1} /^Priority:/ && p {print $2; exit}"],
        "Alternative: /usr/bin\nPriority: 1\nAlternative: /usr/lib/jvm/x\nPriority: 17\nPriority: 18\n",
    ),
    (["-F:", '$3 >= 1000 && $3 < 60000 {print $1":"$6}'], "a:x:1000:1:g:/h:s\nb:x:5:1:g:/h:s\n"),
    (["NR==2"], WORDS),
    (["-F/", 'BEGIN {OFS="/"} /\\.py$/ {NF--; print}'], "/usr/lib/a/b.py\n/x/y.txt\n"),
    (["{n++} END{print n, n/3}"], WORDS),
    (["{print $2;next}{print 5}"], WORDS),
    (['!/x/ {printf "%s-%d\\n", $1, 3.7}'], WORDS),
]
OTHERS = [
    (["grep", "-q", "^x"], WORDS),
    (["grep", "-v", "^State"], WORDS),
    (["grep", "-c", "a"], WORDS),
    (["grep", "-E", "(^openssh .* unpacked|installed) (all|amd64)$"], "a installed all\nb config amd64\n"),
    (["egrep", "^Package:|^Status:"], PACKAGES),
    (["grep", "-e", "^Package:", "-e", "^Version:"], PACKAGES),
    (["fgrep", "-x", "x y  z"], WORDS),
    (["grep", "-i", "ABC"], WORDS),
    (["grep", "-w", "y"], WORDS),
    (["grep", "-o", "[a-z]*"], WORDS),
    (["egrep", "-q", "^([[:space:]]*,)*[[:space:]]*$"], " , ,\n"),
    (["cut", "-d", " ", "-f2"], WORDS),
    (["cut", "-d:", "-f", "1,3-"], "a:b:c:d\nnone\n"),
    (["cut", "-c2-3"], WORDS),
    (["tr", "a-z", "A-Z"], WORDS),
    (["tr", "[:upper:]", "[:lower:]"], WORDS),
    (["tr", ",", "\\n"], "a,b,c\n"),
    (["tr", "-d", "\\n "], WORDS),
    (["tr", "-s", " "], WORDS),
    (["head", "-n", "2"], WORDS),
    (["head", "-1"], WORDS),
    (["tail", "-n", "2"], WORDS),
    (["tail", "-n", "+2"], WORDS),
    (["sort"], WORDS),
    (["sort", "-u"], WORDS),
    (["sort", "-r"], WORDS),
    (["sort", "-n"], "10\n9\n100\n"),
    (["uniq", "-c"], "a\na\nb\n"),
    (["wc", "-l"], WORDS),
    (["cat"], WORDS),
    (["md5sum"], WORDS),
    (["basename", "/a/b.sh/", ".sh"], ""),
    (["dirname", "/a/b", "c", "/d"], ""),
    (["expr", "17", "-", "1"], ""),
    (["expr", "libc6:amd64", ":", "\\(.*\\):"], ""),
    (["seq", "2", "4"], ""),
]


def real(words: list[str], text: str) -> tuple[str, int]:
    require_tool(words[0])
    done = subprocess.run(
        words, input=text, capture_output=True, text=True, check=False, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    )
    return done.stdout, done.returncode


@pytest.mark.interop
@pytest.mark.parametrize(("words", "text"), SED)
def test_sed_edits_as_the_real_one_does(words: list[str], text: str) -> None:
    assert run_sed(words, lambda _: text)[0] == real(["sed", *words], text)[0]


@pytest.mark.interop
@pytest.mark.parametrize(("words", "text"), AWK)
def test_awk_prints_what_the_real_one_does(words: list[str], text: str) -> None:
    assert run_awk(words, lambda _: text) == real(["awk", *words], text)


@pytest.mark.interop
@pytest.mark.parametrize(("words", "text"), OTHERS)
def test_text_commands_print_and_end_as_the_real_ones_do(words: list[str], text: str) -> None:
    reply = TEXT_COMMANDS[words[0]](words[1:], lambda _: text)
    assert (reply.text, reply.status) == real(words, text)


@pytest.mark.parametrize(
    "words",
    [["s/a/b/w /etc/x"], ["s/a/b/e"], ["-f", "/etc/x"], ["wfile"], ["1e true"], ["r /etc/x"], ["s/a|b\\|c/x/"], ["{p"]],
)
def test_sed_that_would_write_or_is_not_read_is_refused(words: list[str]) -> None:
    with pytest.raises(NotReproduced):
        run_sed(words, lambda _: "a\n")


@pytest.mark.parametrize(
    "program",
    ['{ system("x") }', '{ print > "/etc/x" }', "{ getline }", "{ a[1]=2 }", "while (1) {}", "{ print | x }", "{"],
)
def test_awk_that_would_write_or_is_not_read_is_refused(program: str) -> None:
    with pytest.raises(NotReproduced):
        run_awk([program], lambda _: "a\n")


@pytest.mark.parametrize("words", [["grep", "-P", "x"], ["sort", "-k2"], ["cut", "-x"], ["tr", "-c", "a", "b"]])
def test_a_form_that_is_not_known_is_refused(words: list[str]) -> None:
    with pytest.raises(NotReproduced):
        TEXT_COMMANDS[words[0]](words[1:], lambda _: "a\n")
