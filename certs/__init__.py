"""Certificates: a small authority, its rotation and reloading TLS contexts."""
