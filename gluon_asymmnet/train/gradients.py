"""Gradients between the backward pass and the update."""

from gluon_asymmnet._environment import mx


def clip_norm(trainer, bound: float) -> None:
    """Scale the gradients down to a norm of at most ``bound``, over all parameters together.

    Call it between ``trainer.allreduce_grads`` and ``trainer.update``.  What is not finite stays
    so, and reaches the weights and the next loss, which stops the run.  Nothing is waited for.

    Args:
        bound: in units of the gradients as they are: times what ``update`` divides them by.

    Source: arXiv:1211.5063, section 3.2, in the form of ``torch.nn.utils.clip_grad_norm_``.
    MXNet's ``clip_global_norm`` squares in the gradients' own precision, which overflows in
    float16.
    """
    trained = [param for param in trainer._params if param.grad_req != "null"]
    for grads in zip(*(param.list_grad() for param in trained)):  # a device's copies
        single = [grad.astype("float32", copy=False) for grad in grads]
        squares = mx.nd.multi_sum_sq(*single, num_arrays=len(single))
        scale = mx.nd.minimum(bound / (mx.nd.sqrt(squares.sum()) + 1e-6), 1)
        for grad in grads:
            grad *= scale.astype(grad.dtype, copy=False)


def set_accumulation(net) -> None:
    """Let backward passes add to the gradients until ``clear`` is called."""
    for param in net.collect_params().values():
        if param.grad_req != "null":
            param.grad_req = "add"


def clear(net) -> None:
    """Set the gradients to zero."""
    for param in net.collect_params().values():
        if param.grad_req != "null":
            param.zero_grad()
