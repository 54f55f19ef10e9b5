# Workers of an encoding job: the package and nothing else. For CPUs as it stands; for NVIDIA GPUs, whose drivers are
# the machine's own, build with --build-arg TORCH=cuda.
#     pip wheel --no-deps -w dist . && docker build -t latent-vae .
FROM python:3.11-slim
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/latent-vae
COPY constraints.txt dist/*.whl ./
# A CPU build of the version in constraints.txt is what pip finds on its own; GPUs want the one with CUDA, unpinned.
RUN if [ "$TORCH" = cuda ]; then sed -i '/^torch==/d' constraints.txt; fi \
    && for wheel in ./*.whl; do pip install --prefer-binary -c constraints.txt "${wheel}[dask,s3,gcp]"; done \
    && rm -f ./*.whl \
    && useradd --create-home --uid 1000 worker
USER 1000
WORKDIR /home/worker
ENTRYPOINT []
CMD ["lvae", "--help"]
