"""TLS: certificates that work, that change, and that do not work."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from ramify.errors import ConfigError
from ramify.serving.tls import Certificate

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates for tests are made by openssl")


def make_certificate(folder: Path, name: str, password: str | None = None) -> tuple[str, str]:
    """A certificate for localhost that signs itself; paths of it and of its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-passout", f"pass:{password}"] if password else ["-nodes"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return str(certificate), str(key)


def presented(context: ssl.SSLContext, version: ssl.TLSVersion | None = None) -> bytes:
    """The certificate that a client is shown."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection = listening.accept()[0]
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        if version is not None:
            client.maximum_version = version
        try:
            with client.wrap_socket(socket.create_connection(listening.getsockname())) as connection:
                return connection.getpeercert(binary_form=True) or b""
        finally:
            thread.join()


def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    certfile, keyfile = make_certificate(tmp_path, "served")
    renewed, renewed_key = make_certificate(tmp_path, "renewed")
    certificate = Certificate(certfile, keyfile, "1.2")
    first = presented(certificate.context)
    assert not certificate.reload_if_changed()
    Path(certfile).write_bytes(Path(renewed).read_bytes())  # the key is still the old one
    assert not certificate.reload_if_changed()
    assert presented(certificate.context) == first
    Path(keyfile).write_bytes(Path(renewed_key).read_bytes())
    assert certificate.reload_if_changed()
    assert presented(certificate.context) not in (first, b"")
    Path(certfile).unlink()
    assert not certificate.reload_if_changed()


def test_old_versions_are_not_spoken(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "served")
    assert Certificate(*files, "1.2").context.minimum_version == ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match=r"(?i)alert|version|protocol"):
        presented(Certificate(*files, "1.3").context, ssl.TLSVersion.TLSv1_2)


def test_files_that_do_not_work_are_refused_before_anything_starts(tmp_path: Path) -> None:
    certfile, keyfile = make_certificate(tmp_path, "one")
    other_certificate, _ = make_certificate(tmp_path, "other")
    locked_certificate, locked_key = make_certificate(tmp_path, "locked", password="a password")
    pairs = [(other_certificate, keyfile), (certfile, str(tmp_path / "missing")), (locked_certificate, locked_key)]
    for pair in pairs:
        with pytest.raises(ConfigError, match="ssl_certfile"):
            Certificate(*pair, "1.2")
