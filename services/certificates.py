"""Certificates for tests, made by the openssl command and good for a day.

Source: the manual pages openssl-req(1) and openssl-x509(1).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from services.jars import ServiceMissing

__all__ = ["Authority"]


class Authority:
    """Whom clients and brokers trust. folder: where its files are made; name: its own name."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        subject = ["-subj", f"/CN={name}", "-days", "1"]
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", str(self._key), "-out", str(self.certificate), *subject)

    def issue(self, name: str, *, address: str = "", days: int = 1, password: str = "") -> tuple[Path, Path]:
        """A certificate and its key (PEM, PKCS 8; encrypted if there is a password). address: for instance
        IP:127.0.0.1. days: 0 is over in a second."""
        certificate, key, request = (self._folder / f"{name}.{ending}" for ending in ("pem", "key", "csr"))
        _openssl("req", "-new", *_NEW_KEY, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}")
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={address}\n" if address else "basicConstraints=CA:FALSE\n")
        signed_by = ["-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial"]
        about = ["-days", str(days), "-extfile", str(extensions)]
        _openssl("x509", "-req", "-in", str(request), *signed_by, *about, "-out", str(certificate))
        if password:
            plain = key.rename(key.with_suffix(".plain"))
            sealed = ["-topk8", "-in", str(plain), "-out", str(key), "-passout", f"pass:{password}"]
            _openssl("pkcs8", *sealed)
            plain.unlink()
        return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise ServiceMissing("no openssl command: install OpenSSL")
    ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ServiceMissing(f"openssl {arguments[0]} failed: {ran.stderr[-2000:]}")
