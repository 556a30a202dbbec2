"""Keyed state over the kernel, its deltas and its snapshots."""
