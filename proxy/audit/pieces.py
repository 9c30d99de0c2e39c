"""Lines of logs that container runtimes keep on nodes, put together again.

Owns two forms: that of containerd and CRI-O (`<time> <stream> P|F <text>`; a line of more than 16 KiB comes as pieces
marked `P` and a last one marked `F`) and Docker's json-file (`{"log": text, "stream": ...}`; a piece ends without a
line feed). Any other line is given as it is.
Form: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

import json
import re
from collections.abc import Iterable, Iterator

_CRI = re.compile(rb"\d{4}-\d\d-\d\dT\S{1,40} (stdout|stderr) ([PF])(?::\S*)? ")
_DOCKER = re.compile(rb'\{"log":\s*"')
_STREAMS = frozenset({"stdout", "stderr"})

Numbered = tuple[int, bytes]


def join_pieces(lines: Iterable[Numbered], longest: int) -> Iterator[Numbered]:
    """Yield lines with their numbers, pieces as one line with the number of the first.

    Args:
        lines: numbered lines.
        longest: bytes; of a line that has more what comes beyond is left out, but for a byte that tells of it.
    """
    waiting: dict[bytes, tuple[int, bytearray]] = {}  # by stream: what came of a line that is not at its end
    for number, line in lines:
        piece = _cri(line) or _docker(line)
        if piece is None:
            yield number, line
            continue
        stream, text, ends = piece
        first, held = waiting.pop(stream, (number, bytearray()))
        held += text[: longest + 1 - len(held)]
        if ends:
            yield first, bytes(held)
        else:
            waiting[stream] = first, held
    for first, held in waiting.values():
        yield first, bytes(held)


def _cri(line: bytes) -> tuple[bytes, bytes, bool] | None:
    """Return stream, text, and whether the line ends there."""
    found = _CRI.match(line)
    return (found[1], line[found.end() :].rstrip(b"\r\n"), found[2] == b"F") if found else None


def _docker(line: bytes) -> tuple[bytes, bytes, bool] | None:
    if not _DOCKER.match(line):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text, stream = found.get("log"), found.get("stream")
    if not isinstance(text, str) or not isinstance(stream, str) or stream not in _STREAMS:
        return None
    return stream.encode(), text.encode(errors="replace"), text.endswith("\n")
