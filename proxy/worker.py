"""A worker process: takes engine jobs as frames on standard input, answers on standard output, until that closes.

Owns the frame format and the loop. A worker holds no key, no credential and no network (see `sandbox`); it reads
the files that a job names and writes the files that a job names. Its answers are not trusted: the pool decodes them
with type checks.

A frame is a 4-byte big-endian length and that many bytes of JSON.
"""

import json
import os
import struct
import sys
import traceback
from typing import Any, BinaryIO

from proxy import sandbox
from proxy.errors import AdmendError, MalformedInput, ResourceExhausted

MAX_FRAME = 64 << 20
_LENGTH = struct.Struct(">I")


def render_frame(document: Any) -> bytes:
    """Return one frame."""
    body = json.dumps(document, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise ResourceExhausted(f"a job's frame has {len(body)} bytes, {MAX_FRAME} at the most")
    return _LENGTH.pack(len(body)) + body


def parse_length(header: bytes) -> int:
    """Return the body length that a frame's 4-byte header announces; MalformedInput when over the limit."""
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise MalformedInput(f"a frame of {length} bytes, {MAX_FRAME} at the most", file="worker")
    return int(length)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Run jobs until `requests` ends."""
    from proxy.jobs import JOBS  # noqa: PLC0415 - the engine is imported with the limits already in force

    answers.write(render_frame({"ready": True}))
    answers.flush()
    while header := requests.read(_LENGTH.size):
        request = json.loads(requests.read(parse_length(header)))
        sandbox.limit_cpu(request["cpu_seconds"])
        answers.write(_answer(JOBS[request["job"]], request["arguments"]))
        answers.flush()


def _answer(job: Any, arguments: dict[str, Any]) -> bytes:
    try:
        return render_frame({"result": job(**arguments)})
    except AdmendError as error:
        return render_frame({"error": error.code, "message": str(error)})
    except MemoryError:
        return render_frame({"error": ResourceExhausted.code, "message": "the job needs more memory than it may have"})
    except OSError as error:
        message = f"{error.strerror or error}: {error.filename or 'a working file'}"
        return render_frame({"error": ResourceExhausted.code, "message": message})
    except Exception as error:  # noqa: BLE001 - a mistake of ours costs this job; the trace goes to standard error
        traceback.print_exc()
        message = f"a mistake of admend's own, please report it: {type(error).__name__}: {error}"
        return render_frame({"error": AdmendError.code, "message": message})


def main() -> None:
    """Enter the sandbox and serve standard input; the memory limit in bytes is the first argument."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not break the frames
    sandbox.drop_environment()
    sandbox.limit_resources(int(sys.argv[1]))
    sandbox.enter()
    try:
        serve(requests, answers)
    except BrokenPipeError:
        os._exit(1)  # the proxy is gone: nobody is left to answer, and the buffered rest must not raise again


if __name__ == "__main__":
    main()
