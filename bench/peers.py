"""What people back Firestore up with otherwise, on the same documents: two npm packages, where node is installed.

They are slow enough that a bounded number of documents tells their rate; who takes longer than two minutes is stopped.
The documents hold no references: ``firestore-backfire`` crashes on the first one, leaves an empty file and ends with 0.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.firestore import EVERYTHING, DatabaseAddress, Firestore, PlannedWrite
from agent.telemetry import Telemetry, quiet_telemetry
from bench.measure import Table
from bench.servers import Server

PEERS_DOCUMENTS = 1_000

_PACKAGES = ("firestore-backfire@2.6.0", "node-firestore-import-export@1.1.0")
_INSTALL_SECONDS = 300.0
_RUN_SECONDS = 120.0
_SOURCE = "peers"


class _Peers:
    """Both packages, installed into a folder of their own."""

    def __init__(self, server: Server, folder: Path, telemetry: Telemetry) -> None:
        self._server = server
        self._folder = folder
        self._telemetry = telemetry

    def install(self) -> str:
        """What is missing, in words; empty if both are there."""
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            return "node is not installed"
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(self._folder), *_PACKAGES]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return "npm did not install them in time"
        return "" if done.returncode == 0 else "npm could not install them"

    def seed(self, sample: Sequence[tuple[str, bytes]]) -> None:
        """The documents they export."""
        with self._open(_SOURCE) as source:
            source.write(
                PlannedWrite(name=source.address.name(path), fields=fields) for path, fields in sample
            ).finish()

    def count(self, project: str) -> int:
        with self._open(project) as target:
            return target.count(EVERYTHING)

    def run(self, project: str, program: str, *arguments: str) -> float | None:
        """Seconds, or ``None`` if it took too long or failed."""
        command = [str(self._folder / "node_modules" / ".bin" / program), *arguments]
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command, env=self._environment(project), capture_output=True, timeout=_RUN_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        return time.perf_counter() - began if done.returncode == 0 else None

    def key_file(self, project: str) -> Path:
        """The service account that one of them insists on, though no server here asks for one."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        account = {"type": "service_account", "project_id": project, "private_key": pem, "client_email": "bench@bench"}
        file = self._folder / f"{project}-account.json"
        file.write_text(json.dumps(account), encoding="utf-8")
        return file

    def _open(self, project: str) -> Firestore:
        return Firestore(DatabaseAddress(project=project, host=self._server.host), telemetry=self._telemetry)

    def _environment(self, project: str) -> Mapping[str, str]:
        return {**os.environ, "FIRESTORE_EMULATOR_HOST": self._server.host, "GOOGLE_CLOUD_PROJECT": project}


def measure_peers(server: Server, folder: Path, sample: Sequence[tuple[str, bytes]], table: Table) -> None:
    """Export and import by each; a line for each, or one that says why there are none.

    Args:
        sample: paths and fields of documents in root collections.
    """
    home = folder / "peers"
    home.mkdir()
    telemetry = quiet_telemetry()
    peers = _Peers(server, home, telemetry)
    missing = peers.install()
    if missing:
        table.note("firestore-backfire, node-firestore-import-export", missing)
    else:
        peers.seed(sample)
        _backfire(peers, server, home / "backfire.ndjson", len(sample), table)
        _import_export(peers, home / "import-export.json", len(sample), table)
    telemetry.shutdown()


def _backfire(peers: _Peers, server: Server, file: Path, documents: int, table: Table) -> None:
    emulator = f"--emulator={server.host}"
    seconds = peers.run(_SOURCE, "backfire", "export", str(file), f"--project={_SOURCE}", emulator)
    got = len(file.read_bytes().splitlines()) if file.exists() else 0
    _add(table, "firestore-backfire, export", seconds, got, documents)
    target = "by-backfire"
    seconds = peers.run(target, "backfire", "import", str(file), f"--project={target}", emulator)
    _add(table, "firestore-backfire, import", seconds, peers.count(target), documents)


def _import_export(peers: _Peers, file: Path, documents: int, table: Table) -> None:
    account = f"--accountCredentials={peers.key_file(_SOURCE)}"
    seconds = peers.run(_SOURCE, "firestore-export", account, f"--backupFile={file}")
    found = json.loads(file.read_bytes())["__collections__"] if file.exists() else {}
    got = sum(len(collection) for collection in found.values())
    _add(table, "node-firestore-import-export, export", seconds, got, documents)
    target = "by-import-export"
    account = f"--accountCredentials={peers.key_file(target)}"
    seconds = peers.run(target, "firestore-import", account, f"--backupFile={file}", "--yes")
    _add(table, "node-firestore-import-export, import", seconds, peers.count(target), documents)


def _add(table: Table, name: str, seconds: float | None, got: int, wanted: int) -> None:
    if seconds is None:
        table.note(name, f"failed, or longer than {_RUN_SECONDS:.0f} s; {got} of {wanted} documents")
    elif got < wanted:
        table.note(name, f"ended with 0 after {got} of {wanted} documents")
    else:
        table.add(name, got / seconds, "documents/s")
