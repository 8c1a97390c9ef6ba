"""TLS of the server's ports: a certificate that is taken up anew when its file changes."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from ramify.errors import ConfigError

_log = logging.getLogger(__name__)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CHECK_EVERY_S = 30.0


class Certificate:
    """A certificate chain and its key.

    Args:
        certfile, keyfile: PEM.
        min_version: "1.2" or "1.3".

    Raises:
        ConfigError: they cannot be read or do not belong together.
    """

    def __init__(self, certfile: str, keyfile: str, min_version: str) -> None:
        self._files = (certfile, keyfile)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = _VERSIONS[min_version]
        try:
            self._seen = self._stamp()
            self.context.load_cert_chain(certfile, keyfile, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigError(f"ssl_certfile {certfile!r} and ssl_keyfile {keyfile!r} do not work: {error}") from error

    def reload_if_changed(self) -> bool:
        """Take up a renewed certificate for connections to come; a broken one leaves the old in place."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files, password=_no_password)
            self.context.load_cert_chain(*self._files, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            _log.error("the renewed certificate does not work, the old one stays: %s", error)
            return False
        self._seen = stamp
        _log.info("the certificate was renewed")
        return True

    async def keep_fresh(self) -> None:
        """Look again and again; runs until it is cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await asyncio.to_thread(self.reload_if_changed)

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        return tuple((status.st_mtime_ns, status.st_size) for status in (Path(path).stat() for path in self._files))


def _no_password() -> str:
    """Instead of asking a terminal that nobody sits at."""
    raise ValueError("the private key has a password: give it without one, readable by the server only")
