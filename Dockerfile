# The platform in a container: docs/howto/run-as-a-service.md says how to run it.
#
# BASE has Python 3.11 or newer with pip, and for isolated process workers the tools of util-linux, as Debian's images have.
# What pip needs to reach a package index can be given as build arguments. Wheels that lie in wheels/ are taken before that.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_CERT
# LICENSE is there in any case, so the line also holds where there are no wheels.
COPY LICENSE wheels* /wheels/
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN python -m venv --without-pip /opt/runyard && \
    PIP_FIND_LINKS=/wheels python -m pip --python /opt/runyard/bin/python install --no-cache-dir /source

FROM ${BASE}
COPY --from=build /opt/runyard /opt/runyard
ENV PATH=/opt/runyard/bin:$PATH \
    RUNYARD_DATA_DIR=/data \
    RUNYARD_HOST=0.0.0.0
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["runyard"]
CMD ["serve"]
