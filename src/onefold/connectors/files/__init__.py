"""Files: a source that follows a pattern, and a folder as a data set with a commit log of its own."""

from onefold.connectors.files.endpoint import FilesEndpoint, files
from onefold.connectors.files.sink import FilesSink
from onefold.connectors.files.source import FilesSource

__all__ = ["FilesEndpoint", "FilesSink", "FilesSource", "files"]
