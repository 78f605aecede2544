"""What differs between the versions of OpenCV."""

import cv2


def set_log_level(level: int) -> int:
    """Set the log level and return the one before; OpenCV 5 has it in another module."""
    module = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    return module.setLogLevel(level)
