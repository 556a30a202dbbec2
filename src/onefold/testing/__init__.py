"""Crash tests for users: fakes, a clock, contract suites."""

from onefold.testing.flow_run import CRASH_POINTS, FlowRun, run

__all__ = ["CRASH_POINTS", "FlowRun", "run"]
