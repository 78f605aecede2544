"""ONNX files: the traced graph of a network, written as ONNX operators."""
