# syntax=docker/dockerfile:1
# mmstream in a container; how to run it: docs/operating.md.
#   docker build -t mmstream .
# For an NVIDIA card: --build-arg TORCH_INDEX=https://pypi.org/simple (its wheels hold CUDA).

FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY benchmarks benchmarks
COPY configs configs
COPY pipelines pipelines
COPY mmstream mmstream
RUN python -m venv /opt/mmstream \
    && /opt/mmstream/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
        -c constraints.txt .

FROM python:3.11-slim
# libportaudio2: microphones, with libasound2-plugins those of PulseAudio and PipeWire too. All else
# (FFmpeg, OpenCV, SQLite) is in the wheels; what the tests need beside is in scripts/system-packages.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libasound2-plugins libportaudio2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --groups audio,video --no-create-home mmstream \
    && install -d -o mmstream -g mmstream /config /state
COPY --from=build /opt/mmstream /opt/mmstream
ENV PATH=/opt/mmstream/bin:$PATH \
    HOME=/state \
    PYTHONUNBUFFERED=1 \
    XDG_STATE_HOME=/state
USER 10001:10001
# Relative paths in the configuration are below /config; the event log is /state/mmstream/<node>.db.
WORKDIR /config
VOLUME ["/config", "/state"]
EXPOSE 8642
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8642/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["mmstream"]
CMD ["run", "/config/mmstream.yaml", "--log-format", "json"]
