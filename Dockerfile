# One image for both services and the certificate keeper. It holds Debian's Python, CA certificates and keyrings, and
# admend in /opt/admend; no compiler, no pip, no shell scripts of its own. It runs as uid 65532 with a read-only root:
# writable are /var/lib/admend (mirror, signing key), /var/cache/admend and /tmp, as volumes.
#
#   docker build -t admend .
#   docker run --read-only --tmpfs /tmp -v admend:/var/lib/admend -v cache:/var/cache/admend -v ./proxy.yaml:/proxy.yaml:ro \
#       -p 8443:8443 admend admend proxy --config /proxy.yaml
#   docker run ... admend admend-webhook serve --config /webhook.yaml
#   docker run ... admend admend-certs rotate --config /certs.yaml
#
# BASE is any Debian with Python 3.11 or newer. Its apt sources are what the image is built from, and what admend takes
# as the sources of distroless Debian images when it runs: give a base that names the archive you want to use.
# KEYRINGS are the packages with the distributions' keys that admend may trust (ubuntu-keyring where BASE has it).
# PIP_INDEX_URL, if given, is the Python index to build from; every file is checked against requirements/runtime.txt.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS builder
ARG PIP_INDEX_URL
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/admend
COPY requirements/runtime.txt /src/requirements/runtime.txt
RUN /opt/build/bin/pip --python /opt/admend/bin/python install --no-compile --only-binary :all: --require-hashes --no-deps \
    --requirement /src/requirements/runtime.txt
COPY pyproject.toml README.md LICENSE /src/
COPY certs /src/certs
COPY proxy /src/proxy
COPY webhook /src/webhook
# setuptools is of the hashed requirements; it builds admend and is not needed after that.
RUN /opt/build/bin/pip --python /opt/admend/bin/python install --no-compile --no-deps --no-build-isolation /src \
    && /opt/build/bin/pip --python /opt/admend/bin/python uninstall --yes setuptools \
    && rm -f /opt/admend/bin/activate* /opt/admend/bin/Activate.ps1 \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/admend/lib

FROM ${BASE}
ARG KEYRINGS=debian-archive-keyring
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 ${KEYRINGS} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 65532 admend \
    && useradd --uid 65532 --gid 65532 --home-dir /var/lib/admend --no-create-home --shell /usr/sbin/nologin admend \
    && install -d -o admend -g admend -m 0750 /var/lib/admend /var/cache/admend \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=builder /opt/admend /opt/admend
ENV PATH=/opt/admend/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title=admend \
    org.opencontainers.image.description="Patched container images at pod creation" \
    org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532
WORKDIR /var/lib/admend
EXPOSE 8443 9443
ENTRYPOINT []
CMD ["admend", "--help"]
