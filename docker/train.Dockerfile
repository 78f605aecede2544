# Training, evaluation and export on the CPU.  In the root of the repository:
#   docker build -f docker/train.Dockerfile -t gluon-asymmnet .
#   docker run --rm -v "$PWD/data:/data" gluon-asymmnet train --recipe demo --rec-train /data/train.rec \
#     --rec-val /data/val.rec --save-dir /data/runs
FROM python:3.11-slim

# libgomp1 and libgfortran5: MXNet's; the headless OpenCV is reinstalled over the one that wants libGL
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 libgfortran5 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY setup.py pyproject.toml constraints.txt README.md ./
COPY gluon_asymmnet ./gluon_asymmnet
RUN pip install --no-cache-dir -c constraints.txt '.[mxnet,onnx]' \
    && pip install --no-cache-dir --no-deps --force-reinstall -c constraints.txt opencv-python-headless \
    && asymmnet doctor

RUN useradd --create-home --uid 1000 asymmnet && mkdir /data && chown asymmnet /data
USER 1000
WORKDIR /data
ENTRYPOINT ["asymmnet"]
CMD ["--help"]
