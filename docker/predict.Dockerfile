# Prediction without MXNet, by OpenCV or ONNX Runtime.  In the root of the repository:
#   docker build -f docker/predict.Dockerfile -t gluon-asymmnet-predict .
#   docker run --rm -v "$PWD:/data" gluon-asymmnet-predict predict photos --model exported
FROM python:3.11-slim

WORKDIR /src
COPY setup.py pyproject.toml README.md ./
COPY gluon_asymmnet ./gluon_asymmnet
RUN pip install --no-cache-dir . onnxruntime && asymmnet doctor

RUN useradd --create-home --uid 1000 asymmnet && mkdir /data && chown asymmnet /data
USER 1000
WORKDIR /data
ENTRYPOINT ["asymmnet"]
CMD ["--help"]
