# syntax=docker/dockerfile:1
# An agency's commands, its gateway and the auditor: `docker build -f deploy/images/gateway.Dockerfile .`
# It runs on the agency's own network and holds no code of the broker.
# The base is named by its version; to pin it, write the digest that your own registry shows behind it (@sha256:...).
# A mirror or certificate set up for pip: --secret id=pip,src=pip.conf
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
COPY deploy/images/gateway.lock ./
RUN python -m venv /opt/agency
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/agency/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --only-binary :all: --require-hashes -r gateway.lock
COPY pyproject.toml README.md LICENSE ./
COPY agreements agreements
COPY audit audit
COPY linkage/__init__.py linkage/records.py linkage/
COPY linkage/agency linkage/agency
RUN /opt/agency/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && rm /opt/agency/bin/broker

FROM ${PYTHON}
RUN groupadd --gid 10003 agency \
    && useradd --uid 10003 --gid agency --no-create-home --home-dir /var/lib/agency --shell /usr/sbin/nologin agency \
    && install -d -m 0700 -o agency -g agency /var/lib/agency
COPY --from=build /opt/agency /opt/agency
ENV PATH=/opt/agency/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 AGENCY_HOME=/var/lib/agency
USER 10003:10003
WORKDIR /var/lib/agency
EXPOSE 8401
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8401, timeout=8); c.request('GET', '/'); raise SystemExit(c.getresponse().status >= 500)"]
ENTRYPOINT ["agency"]
CMD ["gateway"]
