"""Measurements that are no tests.

floors/            raw pyzmq over the same hops: what moving the bytes costs
against_floor.py   the product beside its floors in one run
"""
