"""Servers for development and tests, as ordinary processes on loopback. Not part of the installed package."""
