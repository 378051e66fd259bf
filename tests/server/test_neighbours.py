"""Which Host and Origin a server on loopback believes."""

from __future__ import annotations

import pytest

from sandboxd.server.neighbours import Neighbours, is_loopback, judging

NEIGHBOURS = Neighbours(["Box.Example"], ["https://app.example:8443", "http://plain.example"])


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.0.0.1:9", "127.8.8.8:80", "[::1]",
     "[::1]:8080", "[::ffff:127.0.0.1]:80", "box.example", "box.example:8080"],
)  # fmt: skip
def test_loopback_and_configured_hosts_pass_with_any_port(host: str) -> None:
    assert NEIGHBOURS.refusal([(b"host", host.encode())]) == ""


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1:80",  # noqa: S104 - judged, not bound
     "[::]", "", "localhost evil", "box.example.evil", "[", "[::1", "localhos\xfft", "app.example"],
)  # fmt: skip
def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    assert NEIGHBOURS.refusal([(b"host", host.encode("latin-1"))])


@pytest.mark.parametrize("headers", [[], [(b"host", b"localhost"), (b"host", b"localhost")]])
def test_there_is_exactly_one_host(headers: list[tuple[bytes, bytes]]) -> None:
    assert "exactly one Host" in NEIGHBOURS.refusal(headers)


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "https://box.example",
     "https://app.example:8443", "http://plain.example"],
)  # fmt: skip
def test_our_own_origins_pass(origin: str) -> None:
    assert NEIGHBOURS.refusal([(b"host", b"localhost"), (b"origin", origin.encode())]) == ""


@pytest.mark.parametrize(
    "origin",
    ["null", "https://evil.example", "http://localhost.evil.example", "https://app.example", "http://app.example:8443",
     "", "http://192.168.0.1"],
)  # fmt: skip
def test_foreign_origins_are_refused(origin: str) -> None:
    assert "foreign" in NEIGHBOURS.refusal([(b"host", b"localhost"), (b"origin", origin.encode())])


@pytest.mark.parametrize(
    ("host", "verdict"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False), ("::", False),  # noqa: S104 - judged, not bound
     ("box.example", False), ("192.168.1.1", False)],
)  # fmt: skip
def test_listening_on_loopback_is_told_apart(host: str, *, verdict: bool) -> None:
    assert is_loopback(host) is verdict


ANYWHERE = "0.0.0.0"  # noqa: S104 - judged, not bound


def _refusal(hosts: list[str], origins: list[str], *headers: tuple[bytes, bytes]) -> str:
    judge = judging(ANYWHERE, hosts, origins)
    assert judge is not None
    return judge.refusal(headers)


def test_beyond_loopback_what_is_configured_is_enforced() -> None:
    host, other = (b"host", b"box.example"), (b"host", b"attacker.example")
    page, foreign = (b"origin", b"https://app.example"), (b"origin", b"https://attacker.example")
    assert judging(ANYWHERE, [], []) is None
    assert _refusal(["box.example"], [], host) == ""
    assert "http.allowed_hosts" in _refusal(["box.example"], [], other)
    assert "http.allowed_origins" in _refusal(["box.example"], [], host, foreign)
    assert _refusal([], ["https://app.example"], other, page) == ""
    assert "http.allowed_origins" in _refusal([], ["https://app.example"], other, foreign)
    assert _refusal([], ["https://app.example"]) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_on_loopback_everything_is_judged(host: str) -> None:
    judge = judging(host, [], [])
    assert judge is not None
    assert judge.refusal([(b"host", b"attacker.example")])
