"""Training by several processes, on one machine or many, each with a part of every batch.

``launch`` starts them (or Slurm, MPI, Kubernetes do), ``place`` says which of them this one is,
``watch`` ends all when one is lost, ``engines`` adds up what they computed.
"""
