# A server of dlm in a container, for the CPU (the default) or for CUDA:
#
#   docker build --target cpu -t dlm:cpu .
#   docker run --rm -p 127.0.0.1:8000:8000 -e DLM_API_KEY=... dlm:cpu
#   docker build --target cuda -t dlm:cuda .
#   docker run --rm --gpus all -p 127.0.0.1:8000:8000 -e DLM_API_KEY=... dlm:cuda
#
# What follows the name of the image replaces CMD: keep `--host 0.0.0.0` there, as the port is not
# reached from outside else. Every version is in constraints.txt.
ARG PYTHON_VERSION=3.11

# The environment, without a torch yet.
FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CONSTRAINT=/src/constraints.txt \
    PIP_BUILD_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/dlm
ENV PATH=/opt/dlm/bin:$PATH

# torch without CUDA is not on PyPI: TORCH_INDEX has it. Empty: pip's own index.
FROM build AS build-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --constraint constraints.txt torch
COPY dlm ./dlm
RUN pip install --constraint constraints.txt '.[serve]'

# torch as PyPI has it brings CUDA's libraries; the host adds its driver.
FROM build AS build-cuda
RUN pip install --constraint constraints.txt torch
COPY dlm ./dlm
RUN pip install --constraint constraints.txt '.[serve]'

# All but the environment.
FROM python:${PYTHON_VERSION}-slim AS runtime
LABEL org.opencontainers.image.title="dlm" \
      org.opencontainers.image.description="A decoding engine and server for masked diffusion language models" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 1001 dlm \
    && useradd --uid 1001 --gid 1001 --create-home --shell /usr/sbin/nologin dlm \
    && install --directory --owner=dlm --group=dlm /models
ENV PATH=/opt/dlm/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models
WORKDIR /home/dlm
USER 1001:1001
VOLUME /models
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["dlm", "serve"]
CMD ["--host", "0.0.0.0"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/dlm /opt/dlm

FROM runtime AS cpu
COPY --from=build-cpu /opt/dlm /opt/dlm
