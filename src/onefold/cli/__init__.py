"""The command line: `onefold VERB`, one verb a module."""

from onefold.cli.group import main

__all__ = ["main"]
