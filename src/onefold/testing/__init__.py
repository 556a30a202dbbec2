"""Crash tests for users: fakes, a clock, contract suites."""
