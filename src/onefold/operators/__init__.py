"""Operators, one file a family."""
