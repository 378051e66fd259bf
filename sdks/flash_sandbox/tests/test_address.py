"""An address means the same to both clients, but for the port that goes without saying."""

from __future__ import annotations

from typing import Any

import pytest

from flash_sandbox import HTTPClient, SandboxClient

HTTP: list[tuple[dict[str, Any], str]] = [
    ({"host": "myhost", "port": 9090}, "http://myhost:9090/"),
    ({"host": "myhost"}, "http://myhost:8080/"),
    ({"host": "::1"}, "http://[::1]:8080/"),
    ({"host": "[::1]:9"}, "http://[::1]:9/"),
    ({"host": "h:9"}, "http://h:9/"),
    ({"host": "h/path", "port": 9}, "http://h:80/path/"),
    ({"host": "https://h"}, "https://h:443/"),
    ({"host": ""}, "http://:8080/"),
    ({"address": "http://10.0.0.1:8080"}, "http://10.0.0.1:8080/"),
    ({"address": "localhost:8092/v1/service/sandbox"}, "http://localhost:8092/v1/service/sandbox/"),
    ({"address": "https://proxy.example.com:443/prefix"}, "https://proxy.example.com:443/prefix/"),
    ({"host": "ignored", "port": 1111, "address": "http://used:2222"}, "http://used:2222/"),
    ({"address": "https://proxy.example.com"}, "https://proxy.example.com:443/"),
    ({"address": "localhost"}, "http://localhost:80/"),
    ({"address": "http://h:8080/"}, "http://h:8080/"),
    ({"address": "http://h:8080/a/b/"}, "http://h:8080/a/b/"),
    ({"address": "  http://h:8080 \n"}, "http://h:8080/"),
    ({"address": "http://H.Example.COM:9/"}, "http://h.example.com:9/"),
    ({"address": "http://h/p?q=1#f"}, "http://h:80/p/"),
    ({"address": "user:pw@h:1/x"}, "http://h:1/x/"),
    ({"address": "http://h:0/"}, "http://h:80/"),
    ({"address": ""}, "http://localhost:80/"),
    ({"address": "/only/path"}, "http://localhost:80/only/path/"),
    ({"address": "[::1]:8080"}, "http://[::1]:8080/"),
    ({"address": "http://[::1]:8080/p"}, "http://[::1]:8080/p/"),
    ({"address": "HTTP://h:80/x"}, "http://h:80/x/"),
    ({"address": "h:80/to?u=http://x"}, "http://h:80/to/"),
]

GRPC: list[tuple[dict[str, Any], str]] = [
    ({"host": "h"}, "h:50051"),
    ({"host": "h", "port": 9}, "h:9"),
    ({"host": "::1"}, "[::1]:50051"),
    ({"host": "http://h:9/x"}, "h:9"),
    ({"host": "ignored", "address": "used:1"}, "used:1"),
    ({"host": "h", "address": ""}, "h:50051"),
    ({"address": "localhost:8092/v1/service/sandbox"}, "localhost:8092"),
    ({"address": "http://10.0.0.1:8080"}, "10.0.0.1:8080"),
    ({"address": "localhost:8092/"}, "localhost:8092"),
    ({"address": "https://proxy.example.com:443/prefix"}, "proxy.example.com:443"),
    ({"address": "https://proxy.example.com"}, "proxy.example.com:443"),
    ({"address": "proxy.example.com"}, "proxy.example.com:80"),
    ({"address": "http://h/p?q=1#f"}, "h:80"),
    ({"address": "[::1]:8080"}, "[::1]:8080"),
    ({"address": "/only/path"}, "localhost:80"),
    ({"address": "  h:1"}, "h:1"),
]


@pytest.mark.parametrize(("given", "base"), HTTP, ids=str)
def test_http_asks_at(given: dict[str, Any], base: str) -> None:
    with HTTPClient(**given) as client:
        assert client._base_url == base


@pytest.mark.parametrize(("given", "target"), GRPC, ids=str)
def test_grpc_dials(given: dict[str, Any], target: str) -> None:
    with SandboxClient(**given) as client:
        assert client.address == target


@pytest.mark.parametrize("client", [HTTPClient, SandboxClient])
@pytest.mark.parametrize("address", ["h:notaport", "h:65536", "ftp://h/x"])
def test_what_is_no_address_is_refused(client: type[HTTPClient | SandboxClient], address: str) -> None:
    with pytest.raises(ValueError, match=r"[Pp]ort|only http and https"):
        client(address=address)


@pytest.mark.parametrize("client", [HTTPClient, SandboxClient])
def test_without_any_address_there_is_no_client(client: type[HTTPClient | SandboxClient]) -> None:
    with pytest.raises(ValueError, match="Must provide either"):
        client()
