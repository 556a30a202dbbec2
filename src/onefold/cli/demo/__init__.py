"""`onefold demo`: a million payments, killed at random, then counted by someone else."""

from onefold.cli.demo.verb import command

__all__ = ["command"]
