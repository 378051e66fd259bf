"""Unpacking a large image: ours against `umoci unpack`, in turns, with the most memory that each took.

python -m bench.images [--mib 1024] [--rounds 3]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import print_most

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = 4
AIM = 2.0
OURS, THEIRS = "sandboxd", "umoci unpack"
_MIB = 1024 * 1024
_IMPORT = """
import sys
from pathlib import Path
from sandboxd.images.store import ImageStore
ImageStore(Path(sys.argv[1])).add("bench", Path(sys.argv[2]))
"""


@dataclass
class Arm:
    """What one program took in each round."""

    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """The time in the middle."""
        return sorted(self.seconds)[len(self.seconds) // 2]


def compare(mib: int, rounds: int, folder: Path) -> dict[str, Arm]:
    """Unpack an image of so many MiB with each program in turns; everything made for it is removed."""
    layout = folder / "layout"
    # Made elsewhere: the memory of whoever starts a program counts as that program's.
    maker = multiprocessing.get_context("fork").Process(target=make_layout, args=(layout, mib))
    maker.start()
    maker.join()
    arms = {OURS: Arm(), THEIRS: Arm()}
    for number in range(rounds):
        commands = {
            OURS: [sys.executable, "-c", _IMPORT, str(folder / "images"), str(layout)],
            THEIRS: ["umoci", "unpack", "--image", f"{layout}:bench", str(folder / "bundle")],
        }
        for name in (OURS, THEIRS) if number % 2 else (THEIRS, OURS):
            seconds, peak = _timed(commands[name])
            arms[name].seconds.append(seconds)
            arms[name].peak_mib.append(peak)
            for made in ("images", "bundle"):
                shutil.rmtree(folder / made, ignore_errors=True)
    return arms


def _timed(command: list[str]) -> tuple[float, float]:
    """Return the seconds until all is on the disk, and the most memory in MiB."""
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"`{' '.join(command[:2])}` failed")
    os.sync()
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def make_layout(folder: Path, mib: int) -> None:
    """Make an OCI layout of an image of several layers, small files and large, half as large when packed."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    rng = random.Random(1)  # noqa: S311 - the same image each time
    words = [rng.randbytes(rng.randint(2, 6)).hex().encode() for _ in range(4000)]
    pool = b" ".join(rng.choices(words, k=1_500_000)) + rng.randbytes(12 * _MIB)
    layers, diff_ids = [], []
    for number in range(LAYERS):
        draft = folder / "draft"
        diff_ids.append(_write_layer(draft, number, mib * _MIB // LAYERS, pool, rng))
        layers.append(_put(blobs, draft.read_bytes(), "layer.v1.tar+gzip"))
        draft.unlink()
    machine = "arm64" if os.uname().machine == "aarch64" else "amd64"
    config = {"architecture": machine, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "config": _put(blobs, json.dumps(config).encode(), "config.v1+json"),
        "layers": layers,
    }
    entry = _put(blobs, json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _write_layer(draft: Path, number: int, size: int, pool: bytes, rng: random.Random) -> str:
    digest = hashlib.sha256()
    with draft.open("wb") as file, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
        for part in _tar(number, size, pool, rng):
            digest.update(part)
            packed.write(part)
    return f"sha256:{digest.hexdigest()}"


def _tar(number: int, size: int, pool: bytes, rng: random.Random) -> Iterator[bytes]:
    count = 0
    while size > 0:
        length = min(size, int(rng.lognormvariate(9.5, 2.0)) + 1, len(pool) // 2)
        start = rng.randrange(len(pool) - length)
        info = tarfile.TarInfo(f"usr/lib/{number}/{count // 200}/file-{count}")
        info.size, info.mtime, info.mode = length, 1_700_000_000, 0o644
        header = info.tobuf(tarfile.PAX_FORMAT)
        yield header + pool[start : start + length] + bytes(-length % 512)
        size -= length
        count += 1
    yield bytes(1024)


def _put(blobs: Path, data: bytes, kind: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def report(arms: dict[str, Arm], mib: int) -> None:
    """Print the figures, and whether the aim is met."""
    print(f"unpack of a {mib} MiB image in {LAYERS} layers")
    for name, arm in arms.items():
        each = ", ".join(f"{seconds:.2f}" for seconds in arm.seconds)
        print(f"  {name:14} median {arm.median_s:6.2f} s ({each})   peak {max(arm.peak_mib):6.1f} MiB")
    ratio = arms[OURS].median_s / arms[THEIRS].median_s
    print_most(f"unpack of {mib} MiB / `umoci unpack`", ratio, AIM, "x")


def measure(mib: int = 1024, rounds: int = 3) -> dict[str, dict[str, list[float]]]:
    """Compare in a folder of the disk, print it, and return every figure."""
    if shutil.which("umoci") is None:
        raise SystemExit("`umoci` is not installed: ./dev setup brings it")
    with tempfile.TemporaryDirectory(prefix="sandboxd-bench-", dir="/var/tmp") as folder:
        arms = compare(mib, rounds, Path(folder))
    report(arms, mib)
    return {name: {"seconds": arm.seconds, "peak_mib": arm.peak_mib} for name, arm in arms.items()}


def main() -> None:
    """Measure, report."""
    parser = argparse.ArgumentParser(prog="bench.images", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the image when unpacked (default 1024)")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each (default 3)")
    asked = parser.parse_args()
    measure(asked.mib, asked.rounds)


if __name__ == "__main__":
    main()
