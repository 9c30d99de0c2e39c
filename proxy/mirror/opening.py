"""Opens the mirror that a configuration describes. Owns nothing else."""

from proxy.blobs import BlobStore
from proxy.config import MirrorConfig
from proxy.mirror.embedded import EmbeddedMirror
from proxy.mirror.external import ExternalMirror
from proxy.oci.naming import Naming
from proxy.registry import Registry


def open_mirror(
    config: MirrorConfig, registry: Registry, *, cache: BlobStore | None = None
) -> EmbeddedMirror | ExternalMirror:
    """Return the configured mirror; `close` it in the end.

    Args:
        config: what and where.
        registry: the client for an external one.
        cache: the store that patched images' files come from: the embedded mirror links them in without hashing.

    Raises:
        AdmendError: another process has the embedded mirror's folder.
        MalformedInput: a host or prefix is none.
    """
    if config.registry is None:
        naming = Naming.parse(config.reference, config.naming)
        return EmbeddedMirror(config.path, naming, config.max_bytes, cache=cache)
    there = Naming.parse(config.registry, config.naming)
    nodes = Naming.parse(config.reference, config.naming)
    naming = Naming(nodes.host, nodes.prefix or there.prefix, config.naming)
    return ExternalMirror(registry, naming, address=there.host)
