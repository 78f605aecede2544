"""timm where torchvision is built for CUDA and PyTorch for the CPU.

Its operators do not load then.  timm needs none, but torchvision describes two of them when it is
imported, which needs their signatures.
"""

_SIGNATURES = {
    "nms": "(Tensor a, Tensor b, float c) -> Tensor",
    "qnms": "(Tensor a, Tensor b, float c) -> Tensor",
}


def import_timm():
    """Return timm."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name, signature in _SIGNATURES.items():
            torch.library.define(f"torchvision::{name}", signature)
    import timm

    return timm
