"""Records, folders, augmentation and batches."""
