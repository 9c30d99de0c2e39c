"""Where patched images live: an OCI layout on this machine, or any registry.

`protocol` says what a mirror does, `tags` how things are called, `embedded` and `external` are the two
kinds, `opening` chooses one.
"""

from proxy.mirror.embedded import EmbeddedMirror
from proxy.mirror.external import ExternalMirror
from proxy.mirror.opening import open_mirror
from proxy.mirror.protocol import Mirror
from proxy.mirror.tags import patched_tag
from proxy.oci.naming import Naming

__all__ = ["EmbeddedMirror", "ExternalMirror", "Mirror", "Naming", "open_mirror", "patched_tag"]
