"""Delta Lake tables."""

from __future__ import annotations

from onefold.connectors.delta.endpoint import DeltaTableEndpoint, delta

__all__ = ["DeltaTableEndpoint", "delta"]
