"""The files in `/etc` that say who and where a machine is."""

from __future__ import annotations


def name_files(hostname: str) -> dict[str, str]:
    """Return their texts, by name, for a machine without a network."""
    return {
        "hostname": f"{hostname}\n",
        "hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n",
        "resolv.conf": "",
    }
