"""The loss of a single-shot detector."""

from gluon_asymmnet._mxnet import mx


class MultiBoxLoss(mx.gluon.HybridBlock):
    """Cross-entropy of the classes with hard negative mining, and smooth L1 of the boxes.

    The same numbers as GluonCV's ``SSDMultiBoxLoss`` before its division by the positives of
    the batch; these are known where the targets are made, so nothing here waits for a device.  And
    an ignored anchor (target -1) counts nowhere; GluonCV's takes it for background.

    Args:
        negative_mining_ratio: background anchors per positive one of the same picture, those with
            the highest loss.
        min_hard_negatives: the least number of them; a picture without objects has no others.

    Source: arXiv:1512.02325, section 2.2.
    """

    def __init__(self, negative_mining_ratio: float = 3, min_hard_negatives: int = 0):
        super().__init__()
        self.ratio, self.least = negative_mining_ratio, min_hard_negatives

    def hybrid_forward(self, F, cls_preds, box_preds, cls_targets, box_targets):
        """Return ``(N,)`` sums of cross-entropy and ``(N,)`` of smooth L1.

        Args:
            cls_preds, box_preds: ``(N, A, classes + 1)`` logits and ``(N, A, 4)`` offsets.
            cls_targets, box_targets: ``(N, A)`` label + 1, 0 or -1; and ``(N, A, 4)``.
        """
        positive = cls_targets > 0
        loss = -F.pick(F.log_softmax(cls_preds, axis=-1), F.relu(cls_targets), axis=-1)
        background = F.stop_gradient(loss) * (cls_targets == 0) - (cls_targets != 0)
        rank = F.argsort(F.argsort(background, axis=1, is_ascend=False), axis=1)
        wanted = F.maximum(F.sum(positive, axis=1, keepdims=True) * self.ratio, self.least)
        hard = F.broadcast_lesser(rank, wanted) * (cls_targets == 0)
        boxes = F.smooth_l1(box_preds - box_targets, scalar=1)
        boxes = F.broadcast_mul(boxes, F.expand_dims(positive, axis=-1))
        return F.sum(loss * (positive + hard), axis=1), F.sum(boxes, axis=(1, 2))
