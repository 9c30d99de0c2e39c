"""The dpkg family: Debian, Ubuntu, and distroless images made of their packages."""
