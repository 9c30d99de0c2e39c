"""The patching proxy: turns an image reference into a patched, signed and mirrored image."""
