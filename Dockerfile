# syntax=docker/dockerfile:1
# One image for every node, with the packages of requirements.lock and the project in /opt/idgbr:
#   docker build --tag idgbr:cpu .
#   docker build --tag idgbr:cuda --build-arg ACCELERATOR=cuda .
# The MLflow server is an image of its own: it needs a database driver and nothing else of the project.
#   docker build --tag idgbr-mlflow --target mlflow .

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS mlflow
COPY requirements.lock /tmp/requirements.lock
# Versions come from the lock, but for the database driver, which is not in it.
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock mlflow boto3 psycopg2-binary==2.9.11
RUN useradd --create-home --uid 1000 mlflow
USER mlflow
WORKDIR /home/mlflow
EXPOSE 5000
ENTRYPOINT ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000"]

FROM python:${PYTHON}-slim AS node
# cpu | cuda. torch brings CUDA's libraries with it; the host needs the driver and NVIDIA's container toolkit.
ARG ACCELERATOR=cpu

# libexpat1: rasterio's GDAL. wget: the probes of KubeRay. rsync, openssh-client, procps: Ray's launcher. g++: DenseCRF.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ libexpat1 libgomp1 openssh-client procps rsync wget \
 && rm -rf /var/lib/apt/lists/*

COPY requirements.lock /tmp/requirements.lock
# torch's default wheels are those for CUDA: gigabytes that a CPU image does not need.
RUN case "${ACCELERATOR}" in \
      cpu) index="--index-url https://download.pytorch.org/whl/cpu" ;; \
      cuda) index="" ;; \
      *) echo "ACCELERATOR is ${ACCELERATOR}; expected cpu or cuda" >&2; exit 2 ;; \
    esac \
 && pip install --no-cache-dir ${index} $(grep -E '^torch(vision)?==' /tmp/requirements.lock) \
 && pip install --no-cache-dir --requirement /tmp/requirements.lock \
 && pip install --no-cache-dir --no-deps "pydensecrf2>=1.1,<2"

RUN useradd --create-home --uid 1000 --shell /bin/bash idgbr
COPY --chown=idgbr:idgbr . /opt/idgbr

USER idgbr
WORKDIR /opt/idgbr
# NVIDIA's toolkit shows GPUs to containers that set NVIDIA_*; without GPUs the variables have no effect. One malloc arena
# keeps memory that threads free. Serve's HTTP proxies load serve_apps/proxy.py, so that their errors are problem+json, too.
ENV PYTHONPATH=/opt/idgbr/platform:/opt/idgbr \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    MALLOC_ARENA_MAX=1 \
    MALLOC_TRIM_THRESHOLD_=67108864 \
    MALLOC_MMAP_THRESHOLD_=33554432 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_apps.proxy:middlewares \
    MPLBACKEND=Agg \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["bash"]
