"""Images with bounding boxes: VOC, COCO and GluonCV's records."""
