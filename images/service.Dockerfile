# One image per service, from the repository root:
#   docker build -f images/service.Dockerfile --build-arg SERVICE=gateway -t cortex/gateway .
# Two stages, so that neither uv nor a build cache is in what runs. Versions and hashes come from requirements.lock.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ARG UV_VERSION=0.13.9
RUN python3 -m venv /uv && /uv/bin/pip install --no-cache-dir --quiet --disable-pip-version-check uv==${UV_VERSION}
WORKDIR /src
COPY requirements.lock ./
COPY libs/contracts libs/contracts
COPY libs/kit libs/kit
ARG SERVICE
COPY services/${SERVICE} services/${SERVICE}
# The lock holds every package of the workspace with its hashes: as a constraint it pins what this service asks for.
RUN python3 -m venv /opt/cortex \
 && /uv/bin/uv pip install --python /opt/cortex/bin/python --no-cache --compile-bytecode --no-sources \
      --constraints requirements.lock ./libs/contracts ./libs/kit ./services/${SERVICE} \
 && rm -rf /opt/cortex/lib/python3*/site-packages/pip /opt/cortex/bin/pip*

# The gateway's hot path as machine code (docs/adr/0015), beside its sources; COMPILE=0 leaves it interpreted.
ARG COMPILE=1
RUN if [ "$SERVICE" = gateway ] && [ "$COMPILE" = 1 ]; then \
      apt-get update -qq \
      && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev \
      && { python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
           || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-dev; } \
      && /uv/bin/uv pip install --python /opt/cortex/bin/python --no-cache --constraints requirements.lock 'mypy[mypyc]' setuptools \
      && /opt/cortex/bin/python services/gateway/compile.py --into /opt/compiled \
      && /uv/bin/uv pip uninstall --python /opt/cortex/bin/python mypy mypy-extensions setuptools; \
    else mkdir -p /opt/compiled; fi

FROM ${BASE_IMAGE}
ARG SERVICE
# numpy and friends are self-contained wheels; nothing else is needed from the system.
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent cortex \
 && mkdir -p /var/lib/cortex && chown 10001:10001 /var/lib/cortex
COPY --from=build /opt/cortex /opt/cortex
COPY --from=build /opt/compiled /opt/compiled
ENV PATH=/opt/cortex/bin:$PATH \
    PYTHONPATH=/opt/compiled \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CORTEX_SERVICE=${SERVICE} \
    CORTEX_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/cortex
# `exec`: the service itself gets the signals. Service names hold dashes where module names hold underscores.
ENTRYPOINT ["/bin/sh", "-c", "exec python -m cortex_$(echo \"$CORTEX_SERVICE\" | tr - _) \"$@\"", "cortex"]
