"""A controlled comparison on Fashion-MNIST: does the asymmetrical bottleneck do better?

``plan`` has the nets, ``worker`` trains and scores one of them, ``harness`` runs the plan,
``report`` makes the tables of docs/evidence.md.
"""
