"""The peer of the load: a webhook that allows everything and looks at nothing, on the same server and the same TLS.

    python bench/donothing.py PORT CERTIFICATE KEY

What it takes is the price of Python, TLS and HTTP on this machine; the rest is admend's.
"""

import json
import ssl
import sys

from aiohttp import web


async def allow(request: web.Request) -> web.Response:
    """Answer any review."""
    uid = json.loads(await request.read())["request"]["uid"]
    answer = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": uid, "allowed": True}}
    return web.json_response(answer)


def main() -> None:
    """Serve until the process is ended."""
    port, certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_post("/mutate", allow)
    web.run_app(app, host="127.0.0.1", port=int(port), ssl_context=context, access_log=None, print=None)


if __name__ == "__main__":
    main()
