"""Training by several processes, on one machine or many, each with a part of every batch.

``launch`` starts the workers (or Slurm, MPI or Kubernetes do), ``environment`` reads rank and world
size, ``group`` joins the workers, ``heartbeat`` ends all of them when one is lost, and ``engines``
sums arrays over them.
"""
