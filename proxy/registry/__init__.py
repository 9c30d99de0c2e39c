"""The client of any OCI registry.

`auth` answers challenges, `session` sends authenticated requests and explains refusals, `pull`, `push` and
`referrers` are the operations, and `client` offers them as one `Registry`.
Specification: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

from proxy.registry.client import Registry

__all__ = ["Registry"]
