# audiosearch as a service, for any user id:
#
#   docker build -t audiosearch .
#   docker run --rm -p 8484:8484 -v audiosearch:/data audiosearch
#
# docs/docker.md says more. EXTRAS adds optional parts: --build-arg EXTRAS=tensorflow trains.
FROM python:3.12-slim

ARG EXTRAS=""

# A home that every user id may write to: the library (/data/audiosearch/library), caches and
# downloads live below it.
ENV HOME=/data \
    XDG_DATA_HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY audiosearch audiosearch
COPY web web
COPY indexes indexes
RUN pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}" \
    && mkdir /data \
    && chmod 1777 /data

WORKDIR /data
VOLUME /data
EXPOSE 8484
USER 1000:1000

HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8484/health', timeout=4)"]

CMD ["audiosearch", "serve", "--host", "0.0.0.0", "--port", "8484"]
