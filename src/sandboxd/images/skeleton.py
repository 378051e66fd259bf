"""What a sandbox made of this machine's programs sees beside them: its own /etc and folders, nothing of ours.

Only what is listed here is taken from the machine, all of it public and readable by everyone.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxd.images.entry import Entry, Kind, split

if TYPE_CHECKING:
    from collections.abc import Iterator

Item = tuple[Entry, bytes]
"""An entry with its content."""

ETC = Path("/etc")
_LARGEST = 4 * 1024 * 1024
_LINKED_INTO_USR = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FOLDERS = {
    "": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "run/lock": 0o1777,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}
_LINKS = {
    "var/run": "/run",
    "var/lock": "/run/lock",
    "etc/mtab": "../proc/self/mounts",
    "etc/os-release": "../usr/lib/os-release",
}
_PUBLIC = (
    "debian_version",
    "fonts/**/*",
    "gai.conf",
    "host.conf",
    "inputrc",
    "java-*-openjdk/**/*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d/*",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "protocols",
    "services",
    "ssl/certs/java/cacerts",
    "ssl/openssl.cnf",
    "terminfo/**/*",
    "timezone",
    "alternatives/*",
)
_OWN = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        "user:x:1000:1000:user:/home/user:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": (
        "root:x:0:\ndaemon:x:1:\ntty:x:5:\nmail:x:8:\nstaff:x:50:\nusers:x:100:\nuser:x:1000:\nnogroup:x:65534:\n"
    ),
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/hostname": "sandbox\n",
    "etc/resolv.conf": "",
    "etc/nsswitch.conf": (
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
        "protocols: files\nservices: files\nethers: files\nrpc: files\n"
    ),
    "etc/shells": "/bin/sh\n/bin/bash\n",
    "etc/profile": (
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        'if [ -n "$BASH_VERSION" ] && [ -n "$PS1" ]; then . /etc/bash.bashrc; fi\n'
    ),
    "etc/bash.bashrc": "[ -n \"$PS1\" ] && PS1='\\u@\\h:\\w\\$ '\n",
    "etc/gitconfig": "[user]\n\tname = sandbox\n\temail = sandbox@localhost\n",
}
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n")
_AUTHORITIES = Path("/usr/share/ca-certificates")
_USER = 1000


def skeleton() -> list[Item]:
    """Return everything outside /usr."""
    return [
        *(_folder(path, mode) for path, mode in _FOLDERS.items()),
        _folder("home/user", 0o755, owner=_USER),
        *(_link(path, target) for path, target in _LINKS.items()),
        *(_file(path, text.encode()) for path, text in _OWN.items()),
        *_roots(),
        *_public(),
        *_certificates(),
    ]


def unmerged() -> list[str]:
    """Return the names of the machine's program folders that are beside /usr rather than links into it."""
    return [name for name in _LINKED_INTO_USR if (path := Path("/", name)).is_dir() and not path.is_symlink()]


def mask() -> tuple[list[Item], list[str]]:
    """Return what lies over the machine's /usr, with the folders of it whose own content is hidden.

    Hidden are /usr/local and /usr/src, where administrators keep their own things, and the mark that stops pip from
    installing. A `python` is added where there is only `python3`.
    """
    items = [_folder(path, 0o755) for path in ("", "local", "src")]
    items += [_folder(f"local/{name}", 0o755) for name in ("bin", "etc", "include", "lib", "sbin", "share", "src")]
    for mark in sorted(Path("/usr/lib").glob("python3*/EXTERNALLY-MANAGED")):
        items.append(_folder(f"lib/{mark.parent.name}", 0o755))
        items.append((Entry(split(f"lib/{mark.parent.name}/{mark.name}".encode()), Kind.CHARACTER, mode=0), b""))
    if Path("/usr/bin/python3").exists() and not Path("/usr/bin/python").exists():
        items.append(_folder("bin", 0o755))
        items.append(_link("bin/python", "python3"))
    return items, ["local", "src"]


def _roots() -> Iterator[Item]:
    for name in _LINKED_INTO_USR:
        path = Path("/", name)
        if path.is_symlink():
            yield _link(name, str(path.readlink()))
        elif path.is_dir():
            yield _folder(name, 0o755)


def _public() -> Iterator[Item]:
    for pattern in _PUBLIC:
        for path in sorted(ETC.glob(pattern)):
            facts = path.lstat()
            inside = f"etc/{path.relative_to(ETC)}"
            if stat.S_ISLNK(facts.st_mode):
                yield _link(inside, str(path.readlink()))
            elif stat.S_ISREG(facts.st_mode) and facts.st_mode & stat.S_IROTH and facts.st_size <= _LARGEST:
                yield _file(inside, path.read_bytes())


def _certificates() -> Iterator[Item]:
    """Return the authorities that this machine trusts, certificates only."""
    folder = ETC / "ssl" / "certs"
    bundle = folder / "ca-certificates.crt"
    if bundle.is_file():
        yield _file("etc/ssl/certs/ca-certificates.crt", b"".join(_CERTIFICATE.findall(bundle.read_bytes())))
    for path in sorted(folder.glob("*")):
        if path.is_symlink() and path.resolve().is_relative_to(_AUTHORITIES):
            yield _link(f"etc/ssl/certs/{path.name}", str(path.readlink()))


def _folder(path: str, mode: int, *, owner: int = 0) -> Item:
    return Entry(split(path.encode()), Kind.DIRECTORY, mode=mode, uid=owner, gid=owner), b""


def _link(path: str, target: str) -> Item:
    return Entry(split(path.encode()), Kind.SYMLINK, mode=0o777, target=target.encode(errors="surrogateescape")), b""


def _file(path: str, content: bytes) -> Item:
    size = len(content)
    return Entry(split(path.encode()), Kind.FILE, mode=0o644, size=size, pieces=((0, size),)), content
