# Workers of an encoding job: the package and nothing else. PyPI's torch for x86-64 Linux is the CUDA build, gigabytes large, whose
# drivers are the machine's own; for CPUs name an index with CPU builds: --build-arg TORCH_INDEX=URL.
#     pip wheel --no-deps -w dist . && docker build -t latent-vae .
FROM python:3.11-slim
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/latent-vae
COPY constraints.txt dist/*.whl ./
RUN if [ -n "$TORCH_INDEX" ]; then pip install -c constraints.txt --index-url "$TORCH_INDEX" torch; fi \
    && for wheel in ./*.whl; do pip install --prefer-binary -c constraints.txt "${wheel}[dask,s3,gcp]"; done \
    && rm -f ./*.whl \
    && useradd --create-home --uid 1000 worker
USER 1000
WORKDIR /home/worker
ENTRYPOINT []
CMD ["lvae", "--help"]
