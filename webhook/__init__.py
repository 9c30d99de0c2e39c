"""The admission webhook: rewrites the image references of pods to patched digests."""
