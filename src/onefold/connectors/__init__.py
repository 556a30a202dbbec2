"""Sources and sinks, one file or folder a system. Connectors never import each other."""
