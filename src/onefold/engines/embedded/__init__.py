"""The embedded engine: one process, no servers."""
