"""The errors of this package: certificates cannot be made, read or kept; a settings file is wrong.

This package stands below the proxy, so its errors are its own; whoever starts it shows the text as it is. The text says
what is wrong, where, and what to do about it, and never holds key material.
"""


class CertificateError(Exception):
    """A certificate, a key or the place that keeps them is not usable."""


class SettingsError(Exception):
    """A settings file cannot be read, or says what no model allows."""
