"""The apk family: Alpine, Wolfi and Chainguard images. Read and inspected, not patched yet."""

from proxy.engine.families.apk.family import ApkFamily

__all__ = ["ApkFamily"]
