"""REST catalogs whose requests end."""

from __future__ import annotations

from typing import Any

from pyiceberg.catalog.rest import RestCatalog
from requests.adapters import HTTPAdapter

__all__ = ["TimedRestCatalog"]

REQUEST_SECONDS = 60.0
"""pyiceberg sets no limit: a catalog that hangs would hang the sink. A commit without an answer is unknown."""

CONNECT_SECONDS = 10.0


class TimedRestCatalog(RestCatalog):  # type: ignore[misc]
    """A REST catalog that gives up a request after a while."""

    def _config_headers(self, session: Any) -> None:
        """Called for every session that is made, before anything is sent in it."""
        for prefix in ("http://", "https://"):
            session.mount(prefix, _Timed())
        super()._config_headers(session)

    def _create_session(self) -> Any:
        session = super()._create_session()
        for adapter in session.adapters.values():
            if not isinstance(adapter, _Timed):  # such as the one that signs requests
                _limit(adapter)
        return session


class _Timed(HTTPAdapter):  # type: ignore[misc]
    def send(self, request: Any, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or (CONNECT_SECONDS, REQUEST_SECONDS)
        return super().send(request, **options)


def _limit(adapter: Any) -> None:
    send = adapter.send

    def send_timed(request: Any, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or (CONNECT_SECONDS, REQUEST_SECONDS)
        return send(request, **options)

    adapter.send = send_timed
