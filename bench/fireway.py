"""fireway (npm), the migration tool of the Node.js world, with the example's transform on the same server.

Installed into a folder of its own for the time of the bench; left out, with a word on standard error, where there is no
node, no npm, or no registry. Its time is that of the transform alone, without the start of node, which is in fireway's
favour. It has no undo, so each run gets a database of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = "fireway@1.1.0"
_INSTALL_SECONDS, _RUN_SECONDS = 180, 120

# migrations/0001_schema_version.py in JavaScript, as fireway's documentation does it: read, change, write in batches.
_MIGRATION = """
const move = (data, map, ...names) => {
  const moved = {...(data[map] || {})};
  for (const name of names) if (name in data) { moved[name] = data[name]; delete data[name]; }
  return {...data, [map]: moved};
};
const reshape = {
  users: data => {
    const {displayName, ...rest} = data;
    if (typeof displayName !== 'string') return data;
    const parts = displayName.trim().split(' ');
    const family = parts.length > 1 ? parts.pop() : '';
    return {...rest, name: {given: parts.join(' '), family}};
  },
  lessons: data => {
    const {level, ...rest} = data;
    return level == null ? data : {...rest, jlptLevel: Number(level.replace(/^N/, ''))};
  },
  reviews: data => move(data, 'schedule', 'intervalDays', 'ease'),
  review_items: data => move(data, 'memory', 'repetitions', 'lapses', 'easeFactor'),
  progress: data => move(data, 'completion', 'percent', 'completed'),
};
module.exports.migrate = async ({firestore}) => {
  const began = Date.now();
  let written = 0;
  for (const [collection, change] of Object.entries(reshape)) {
    const found = (await firestore.collectionGroup(collection).get()).docs;
    for (let start = 0; start < found.length; start += 500) {
      const batch = firestore.batch();
      for (const document of found.slice(start, start + 500)) {
        const data = document.data();
        if (data.schemaVersion === 2) continue;
        batch.set(document.ref, {...change(data), schemaVersion: 2});
        written += 1;
      }
      await batch.commit();
    }
  }
  console.log('FIGURES ' + JSON.stringify({written, seconds: (Date.now() - began) / 1000}));
};
"""


class Fireway:
    """An installed fireway.

    Args:
        folder: where it is installed, with the migration beside it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rate(self, host: str, project: str) -> float | None:
        """Documents a second of the example's transform on ``project``; ``None`` if it failed or took too long."""
        command = ["node", "node_modules/fireway/src/cli.js", "migrate", "--quiet", f"--projectId={project}"]
        environment = {**os.environ, "FIRESTORE_EMULATOR_HOST": host, "GCLOUD_PROJECT": project}
        try:
            said = subprocess.run(
                command,
                cwd=self._folder,
                env=environment,
                timeout=_RUN_SECONDS,
                capture_output=True,
                text=True,
                check=True,
            )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            return None
        figures = [line.partition(" ")[2] for line in said.stdout.splitlines() if line.startswith("FIGURES ")]
        if not figures:
            return None
        found = json.loads(figures[0])
        return float(found["written"] / found["seconds"])


@contextmanager
def installed(folder: Path) -> Iterator[Fireway | None]:
    """fireway for the time of the block; ``None``, with the reason on standard error, where it can't be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        print("fireway is left out: node and npm are not installed", file=sys.stderr)
        yield None
        return
    (folder / "migrations").mkdir(parents=True)
    (folder / "migrations" / "v0.0.1__schema_version.js").write_text(_MIGRATION, encoding="utf-8")
    (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", _PACKAGE]
    try:
        subprocess.run(command, cwd=folder, timeout=_INSTALL_SECONDS, capture_output=True, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        print(f"fireway is left out: npm could not install it ({error})", file=sys.stderr)
        yield None
        return
    try:
        yield Fireway(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
