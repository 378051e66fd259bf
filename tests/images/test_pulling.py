"""Images from a real registry."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tarfile
import tomllib
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.images.layout import MINE, OTHER, Layout, sha256, tar
from tests.images.registry import PASSWORD, USER, Registry, running

from sandboxd.core.errors import Denied, Invalid, SandboxdError, Unavailable
from sandboxd.core.records import ImageConfig
from sandboxd.core.spec import PullPolicy
from sandboxd.images.registries import Address, Credentials, Registries
from sandboxd.images.store import ImageStore
from sandboxd.images.watch import Progress, Step, Watch

if TYPE_CHECKING:
    from pathlib import Path

LOWER = tar(("etc/old", {}, b"old"), ("bin/python3", {"mode": 0o755}, b"#!"), ("dir/below", {}, b"1"))
UPPER = tar(("etc/.wh.old", {}, b""), ("etc/new", {}, b"new"), ("dir/.wh..wh..opq", {}, b""), ("dir/above", {}, b"2"))


def layer(images: Path, tarred: bytes) -> Path:
    return images / "layers" / sha256(tarred).removeprefix("sha256:")


async def test_an_image_that_is_missing_is_pulled_with_all_that_belongs_to_it(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    reference = registry.push(layout.image(LOWER, UPPER), "whole/app:1.2")
    rootfs = await pulling.rootfs(reference, user="u")
    assert rootfs.trees[0].lowers == (layer(images, UPPER), layer(images, LOWER))
    assert rootfs.python == ("/bin/python3",)
    assert rootfs.config == ImageConfig(
        env=(("PATH", "/bin"), ("EMPTY", ""), ("ODD", "a=b")),
        user="1000:1000",
        cwd="/srv",
        entrypoint=("/entry", "with space"),
        command=("serve",),
    )
    upper = layer(images, UPPER)
    assert stat.S_ISCHR((upper / "etc/old").lstat().st_mode)
    assert os.getxattr(upper / "dir", "trusted.overlay.opaque") == b"y"
    assert (upper / "etc/new").read_text() == "new"


@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
def test_layers_come_in_every_packing_and_are_the_same(
    packing: str, pulling: ImageStore, registry: Registry, layout: Layout
) -> None:
    reference = registry.push(layout.image(LOWER, UPPER, packing=packing), f"packed{packing.replace('+', '-')}")
    assert pulling.pull(reference).layers == (sha256(LOWER), sha256(UPPER))


def test_the_variant_for_this_node_is_pulled_from_a_list(
    pulling: ImageStore, registry: Registry, layout: Layout
) -> None:
    mine, other = layout.manifest(LOWER), layout.manifest(UPPER, architecture=OTHER)
    windows = layout.manifest(UPPER)
    platforms = {f"linux/{OTHER}": other, f"windows/{MINE}": windows, f"linux/{MINE}": mine}
    reference = registry.push(layout.list_of(platforms), "listed:v1")
    record = pulling.pull(reference)
    assert record.layers == (sha256(LOWER),)
    (entry,) = json.loads((layout.folder / "index.json").read_text())["manifests"]
    index = entry["digest"]
    assert f"{reference.rpartition(':')[0]}@{index}" in record.origins
    assert len(record.origins) == 2
    assert set(registry.blobs_given("listed")) == {mine["config"]["digest"], mine["layers"][0]["digest"]}


async def test_a_registry_s_digest_names_the_image_and_is_not_asked_for_again(
    pulling: ImageStore, registry: Registry, layout: Layout
) -> None:
    reference = registry.push(layout.image(LOWER), "pinned:1")
    record = pulling.pull(reference)
    (origin,) = record.origins
    before = registry.requests()
    for name in (
        origin,
        f"{reference}@{origin.partition('@')[2]}",
        record.digest,
        f"{origin.partition('@')[0]}@{record.digest}",
    ):
        assert (await pulling.rootfs(name, user="u")).image.digest == record.digest
    assert registry.requests() == before
    with pytest.raises(Invalid, match="no image"):
        await pulling.rootfs("sha256:" + "0" * 64, user="v")


async def test_an_image_pulled_by_digest_stays_until_its_name_is_removed(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    manifest = layout.manifest(LOWER)
    registry.push(layout.index(layout.described(manifest)), "by/digest:x")
    reference = f"{registry.host}/by/digest@{layout.described(manifest)['digest']}"
    assert (await pulling.rootfs(reference, user="u")).image.name == reference
    await pulling.release("u")
    pulling.collect()
    assert [record.name for record in pulling.records()] == [reference]
    pulling.remove(reference)
    assert not [*(images / "layers").iterdir()]


async def test_what_is_here_is_not_pulled_unless_always(
    pulling: ImageStore, registry: Registry, layout: Layout, tmp_path: Path
) -> None:
    reference = registry.push(layout.image(LOWER), "moving:v")
    first = await pulling.rootfs(reference, user="u")
    registry.push(Layout(tmp_path / "second").image(LOWER, UPPER), "moving:v")
    assert await pulling.rootfs(reference, user="u") == first
    assert await pulling.rootfs(reference, user="u", pull=PullPolicy.NEVER) == first
    assert pulling.pull(reference, policy=PullPolicy.MISSING).digest == first.image.digest
    second = await pulling.rootfs(reference, user="u", pull=PullPolicy.ALWAYS)
    assert second.image.layers == (sha256(LOWER), sha256(UPPER))
    assert (await pulling.rootfs(reference, user="u")).image == second.image


async def test_always_downloads_nothing_that_has_not_changed(
    pulling: ImageStore, registry: Registry, layout: Layout
) -> None:
    reference = registry.push(layout.image(LOWER), "same:v")
    await pulling.rootfs(reference, user="u")
    given = registry.blobs_given("same")
    asked = len(registry.requests())
    await pulling.rootfs(reference, user="u", pull=PullPolicy.ALWAYS)
    assert registry.blobs_given("same") == given
    assert len(registry.requests()) > asked


def test_layers_that_are_here_are_not_downloaded_again(
    pulling: ImageStore, registry: Registry, layout: Layout, tmp_path: Path
) -> None:
    pulling.pull(registry.push(layout.image(LOWER), "grown:1"))
    grown = Layout(tmp_path / "grown")
    record = pulling.pull(registry.push(grown.image(LOWER, UPPER), "grown:2"))
    assert record.layers == (sha256(LOWER), sha256(UPPER))
    lower = layout.manifest(LOWER)["layers"][0]["digest"]
    assert registry.blobs_given("grown").count(lower) == 1


async def test_always_takes_what_was_imported_or_tagged_here_as_it_is(
    pulling: ImageStore, registry: Registry, layout: Layout
) -> None:
    pulling.add("mine", layout.image(UPPER))
    pulling.pull(registry.push(layout.image(LOWER), "tagged:1"))
    pulling.tag(f"{registry.host}/tagged:1", "other")
    before = registry.requests()
    for name in ("mine", "other"):
        await pulling.rootfs(name, user="u", pull=PullPolicy.ALWAYS)
    assert registry.requests() == before


async def test_never_pulls_nothing(pulling: ImageStore, registry: Registry, layout: Layout) -> None:
    reference = registry.push(layout.image(LOWER), "forbidden:1")
    before = registry.requests()
    with pytest.raises(Invalid, match="there is no image") as refused:
        await pulling.rootfs(reference, user="u", pull=PullPolicy.NEVER)
    assert "image pull" in refused.value.hint
    assert registry.requests() == before


def test_a_layer_s_links_setuid_files_and_devices_come_as_they_are(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    special = tar(
        ("bin/su", {"mode": 0o4755}, b"su"),
        ("bin/same", {"type": tarfile.LNKTYPE, "linkname": "bin/su"}, b""),
        ("dev/null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}, b""),
    )
    pulling.pull(registry.push(layout.image(special), "special:1"))
    folder = layer(images, special)
    assert stat.S_IMODE((folder / "bin/su").stat().st_mode) == 0o4755
    assert (folder / "bin/su").stat().st_ino == (folder / "bin/same").stat().st_ino
    assert (folder / "dev/null").stat().st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize(
    "member",
    [
        ("../out", {}, b"1"),
        ("a/../../out", {}, b"1"),
        ("link", {"type": tarfile.LNKTYPE, "linkname": "../../etc/shadow"}, b""),
        ("nowhere", {"type": tarfile.LNKTYPE, "linkname": "etc/none"}, b""),
    ],
    ids=["climbs", "climbs later", "links out", "links to nothing"],
)
def test_a_hostile_layer_is_refused_and_leaves_nothing(
    member: tuple[str, dict[str, object], bytes], pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    reference = registry.push(layout.image(LOWER, tar(member)), f"hostile{abs(hash(member[0]))}")
    with pytest.raises(Invalid):
        pulling.pull(reference)
    assert_empty(images)


def test_a_hard_link_to_a_file_of_a_lower_layer_brings_it_along(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    lower = tar(("etc/old", {"mode": 0o4750, "uid": 7, "gid": 8, "mtime": 9}, b"old"), ("gone/f", {}, b"1"))
    linked = tar(("bin/new", {"type": tarfile.LNKTYPE, "linkname": "etc/old"}, b""))
    pulling.pull(registry.push(layout.image(lower, linked), "across:1"))
    folder = layer(images, linked)
    facts = (folder / "bin/new").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mtime) == (7, 8, 9)
    assert stat.S_IMODE(facts.st_mode) == 0o4750
    assert (folder / "etc/old").stat().st_ino == facts.st_ino
    assert (folder / "bin/new").read_bytes() == b"old"


@pytest.mark.parametrize("whiteout", ["gone/.wh.f", ".wh.gone", "gone/.wh..wh..opq"])
def test_a_hard_link_to_what_its_layer_hides_is_refused(
    whiteout: str, pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    lower = tar(("gone/f", {}, b"1"))
    upper = tar((whiteout, {}, b""), ("bin/new", {"type": tarfile.LNKTYPE, "linkname": "gone/f"}, b""))
    with pytest.raises(Invalid, match=r"not there|through"):
        pulling.pull(registry.push(layout.image(lower, upper), f"hidden{len(whiteout)}"))
    assert_empty(images)


def test_files_below_a_link_do_not_leave_the_layer(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path, tmp_path: Path
) -> None:
    link = ("way", {"type": tarfile.SYMTYPE, "linkname": str(tmp_path)}, b"")
    with pytest.raises(Invalid, match="through"):
        pulling.pull(registry.push(layout.image(tar(link, ("way/out", {}, b"1"))), "through:1"))
    assert not (tmp_path / "out").exists()
    assert_empty(images)


def assert_empty(images: Path) -> None:
    for room in ("names", "manifests", "layers", "staging", "pulls", "leases", "used"):
        assert not [*(images / room).iterdir()], room


REFUSED: list[tuple[str, type[SandboxdError], str]] = [
    ("{host}/refused:none", Invalid, "there is no image `{host}/refused:none` at its registry"),
    ("{host}/never/there", Invalid, "there is no image `{host}/never/there:latest` at its registry"),
    ("{host}/refused@sha256:" + "0" * 64, Invalid, "at its registry"),
    ("{host}/foreign", Invalid, f"no variant for this node's linux/{MINE}, only linux/{OTHER}"),
    ("{host}/alone", Invalid, f"the image is for {OTHER}"),
    ("127.0.0.1:1/x", Unavailable, "the registry of `127.0.0.1:1/x:latest` cannot be reached"),
    ("127.0.0.1:1/denied/certificate", Unavailable, "cannot be reached"),
]


@pytest.mark.parametrize(("reference", "kind", "sentence"), REFUSED)
async def test_a_pull_that_fails_says_why_and_leaves_nothing(
    reference: str,
    kind: type[SandboxdError],
    sentence: str,
    pulling: ImageStore,
    registry: Registry,
    layout: Layout,
    images: Path,
    tmp_path: Path,
) -> None:
    registry.push(layout.image(LOWER), "refused:1")
    foreign = Layout(tmp_path / "foreign")
    registry.push(foreign.list_of({f"linux/{OTHER}": foreign.manifest(UPPER, architecture=OTHER)}), "foreign")
    registry.push(Layout(tmp_path / "alone").image(UPPER, architecture=OTHER), "alone")
    with pytest.raises(kind) as refused:
        await pulling.rootfs(reference.format(host=registry.host), user="u")
    assert sentence.format(host=registry.host) in refused.value.message
    assert "\n" not in str(refused.value)
    assert_empty(images)


def test_a_blob_that_the_registry_lost_fails_the_whole_pull(
    pulling: ImageStore, registry: Registry, layout: Layout, images: Path
) -> None:
    reference = registry.push(layout.image(LOWER, unique := tar(("unique", {}, b"lost"))), "lost:1")
    registry.forget(layout.manifest(LOWER, unique)["layers"][1]["digest"])
    with pytest.raises(SandboxdError):
        pulling.pull(reference)
    assert_empty(images)


def test_a_full_disk_is_told_and_leaves_nothing(
    images: Path, registry: Registry, layout: Layout, tmp_path: Path
) -> None:
    reference = registry.push(layout.image(tar(("f", {}, os.urandom(3_000_000)))), "large:1")
    images.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", images], check=True)
    try:
        with (
            closing(ImageStore(images)) as small,
            pytest.raises(Unavailable, match="disk under the image folder is full"),
        ):
            small.pull(reference)
        assert_empty(images)
    finally:
        subprocess.run(["umount", images], check=True)


def test_a_registry_with_logins_wants_one(
    images: Path, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none.json"))
    (tmp_path / "auth").mkdir()
    good = Credentials(USER, PASSWORD)
    with running(tmp_path / "auth", login=True) as registry, closing(ImageStore(images)) as store:
        reference = registry.push(layout.image(LOWER), "private:1")
        for credentials in (None, Credentials(USER, "wrong")):
            with pytest.raises(Denied, match="does not let this node pull"):
                store.pull(reference, credentials=credentials)
        assert_empty(images)
        assert store.pull(reference, credentials=good).layers == (sha256(LOWER),)
        store.remove(reference)
        (tmp_path / "auth.json").write_text(good.auth_file(registry.host))
        given = Registries(auth_file=tmp_path / "auth.json")
        with closing(ImageStore(images, registries=given)) as another:
            assert another.pull(reference).layers == (sha256(LOWER),)
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
        store.remove(reference)
        assert store.pull(reference).layers == (sha256(LOWER),)
    assert PASSWORD not in repr(good)


def test_certificates_are_checked_where_they_must_be(images: Path, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    with running(tmp_path / "tls", tls=True) as registry:
        reference = registry.push(layout.image(LOWER), "secret:1")
        with (
            closing(ImageStore(images, registries=Registries(verify=True))) as strict,
            pytest.raises(Unavailable, match="cannot be trusted: x509"),
        ):
            strict.pull(reference)
        assert_empty(images)
        with closing(ImageStore(images, registries=Registries(verify=True, certificates=tmp_path / "tls/ca"))) as knows:
            assert knows.pull(reference).layers == (sha256(LOWER),)
            knows.remove(reference)
        with closing(ImageStore(images, registries=Registries())) as lax:
            assert lax.pull(reference).layers == (sha256(LOWER),)


def test_a_mirror_is_asked_first(images: Path, registry: Registry, layout: Layout) -> None:
    registry.push(layout.image(LOWER), "hub/org/app:1")
    mirrored = Registries(mirrors=(("registry.invalid", f"{registry.host}/hub"),))
    with closing(ImageStore(images, registries=mirrored)) as store:
        record = store.pull("registry.invalid/org/app:1")
        assert record.name == "registry.invalid/org/app:1"
        assert record.origins[0].startswith("registry.invalid/org/app@")


def test_progress_is_told_in_bytes(pulling: ImageStore, registry: Registry, layout: Layout) -> None:
    told: list[Progress] = []
    pulling.pull(registry.push(layout.image(LOWER, UPPER), "told:1"), watch=Watch(told=told.append))
    total = sum(blob["size"] for blob in layout.manifest(LOWER, UPPER)["layers"])
    assert [*dict.fromkeys(progress.step for progress in told)] == [Step.ASKING, Step.DOWNLOADING, Step.UNPACKING]
    assert told[-1] == Progress(Step.UNPACKING, total, total)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("docker.io/library/alpine:3", "docker.io/library/alpine:3"),
        ("org/app:1", "docker.io/org/app:1"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("ghcr.io/org/app:1@sha256:" + "a" * 64, "ghcr.io/org/app@sha256:" + "a" * 64),
    ],
)
def test_names_lie_where_users_of_other_tools_expect_them(name: str, address: str) -> None:
    assert str(Address.of(name)) == address


@pytest.mark.parametrize(
    ("host", "registries", "checked"),
    [
        ("ghcr.io", Registries(), True),
        ("localhost:5000", Registries(), False),
        ("127.0.0.1:5000", Registries(), False),
        ("localhost.example", Registries(), True),
        ("localhost:5000", Registries(verify=True), True),
        ("ghcr.io", Registries(verify=False), False),
    ],
)
def test_only_registries_on_loopback_are_trusted_unchecked(host: str, registries: Registries, *, checked: bool) -> None:
    assert registries.must_verify(host) is checked


def test_mirrors_and_insecure_registries_are_told_in_skopeo_s_own_words() -> None:
    told = Registries(
        mirrors=(("docker.io", "one.example/hub"), ("docker.io", "two.example")), insecure=("two.example",)
    )
    found = tomllib.loads(told.configuration())["registry"]
    assert [entry["prefix"] for entry in found] == ["docker.io", "two.example"]
    assert found[0]["insecure"] is False
    assert found[1]["insecure"] is True
    assert found[0]["mirror"] == [
        {"location": "one.example/hub", "insecure": False},
        {"location": "two.example", "insecure": True},
    ]
    assert Registries().configuration() == ""
