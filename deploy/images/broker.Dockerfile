# syntax=docker/dockerfile:1
# The broker, its signer, its nights and its commands: `docker build -f deploy/images/broker.Dockerfile .`
# What an agency runs is not in it: only the wire format and the broker's side of linkage are copied.
# The base is named by its version; to pin it, write the digest that your own registry shows behind it (@sha256:...).
# A mirror or certificate set up for pip: --secret id=pip,src=pip.conf
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
COPY deploy/images/broker.lock ./
RUN python -m venv /opt/broker
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/broker/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --only-binary :all: --require-hashes -r broker.lock
COPY pyproject.toml README.md LICENSE ./
COPY agreements agreements
COPY audit audit
COPY broker broker
COPY linkage/__init__.py linkage/records.py linkage/
COPY linkage/matching linkage/matching
RUN /opt/broker/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && rm /opt/broker/bin/agency

FROM ${PYTHON}
RUN groupadd --gid 10001 broker \
    && useradd --uid 10001 --gid broker --no-create-home --home-dir /var/lib/broker --shell /usr/sbin/nologin broker \
    && useradd --uid 10002 --gid broker --no-create-home --home-dir /var/lib/signer --shell /usr/sbin/nologin signer \
    && install -d -m 0700 -o broker -g broker /var/lib/broker \
    && install -d -m 0700 -o signer -g broker /var/lib/signer \
    && install -d -m 2770 -o signer -g broker /run/signer
COPY --from=build /opt/broker /opt/broker
ENV PATH=/opt/broker/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 BROKER_CONFIG=/etc/broker/broker.toml
USER 10001:10001
WORKDIR /var/lib/broker
EXPOSE 8400 9400
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8400, timeout=8); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["broker"]
CMD ["serve"]
