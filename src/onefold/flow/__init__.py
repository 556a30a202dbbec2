"""What the user builds: flows and streams, and the plan that they become."""

from onefold.flow.flow import Flow
from onefold.flow.grouping import Grouped, Windowed
from onefold.flow.schema import Schema
from onefold.flow.stream import Stream

__all__ = ["Flow", "Grouped", "Schema", "Stream", "Windowed"]
