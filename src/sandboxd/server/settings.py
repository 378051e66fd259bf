"""Everything an operator can set, as values. The names of fields are the keys; `load` reads them from outside."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from sandboxd.core.errors import Invalid
from sandboxd.core.spec import MIB, MINIMUM_MEMORY
from sandboxd.images.place import default_images_folder
from sandboxd.server.neighbours import is_loopback

VARIABLE_PREFIX = "SANDBOXD_"


@dataclass(frozen=True, slots=True)
class About:
    """What a setting is for, and which values it takes. `pattern` and `choices` hold for every item of a list."""

    text: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    default: str = ""
    """How the reference tells a default that depends on the machine."""


@dataclass(frozen=True, slots=True)
class Http:
    """The port that REST, WebSocket and gRPC share."""

    host: Annotated[str, About("Address to listen on. Beyond loopback, `http.insecure` must be set.")] = "127.0.0.1"
    port: Annotated[int, About("Port to listen on; 0 = none.", 0, 65535)] = 8080
    prefixes: Annotated[
        tuple[str, ...], About("Path prefixes under which every route is served too.", pattern=r"(/[A-Za-z0-9._~-]+)+")
    ] = ("/v1/service/sandbox",)
    allowed_hosts: Annotated[
        tuple[str, ...],
        About(
            "Names in `Host` that are accepted besides those of loopback; beyond loopback others are refused only if "
            "there are any here.",
            pattern=r"[^\s/]+",
        ),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        About("Web origins that may call us besides those of loopback.", pattern=r"https?://[^\s/]+"),
    ] = ()
    insecure: Annotated[bool, About("Listen beyond loopback although nobody has to show a key.")] = False
    max_body_bytes: Annotated[
        int, About("Largest body of a request, but for those that are handed on as they come.", 1024)
    ] = 16 * MIB
    max_message_bytes: Annotated[int, About("Largest message of a WebSocket.", 1024)] = 16 * MIB
    grace_s: Annotated[
        float, About("How long calls may go on when the server was asked to end; then they are cut off.", 0)
    ] = 5.0


@dataclass(frozen=True, slots=True)
class Grpc:
    """gRPC, which answers on the HTTP port and, on the same address, on a port of its own."""

    port: Annotated[int, About("Port of gRPC alone; 0 = none.", 0, 65535)] = 50051
    max_call_s: Annotated[
        float, About("Longest time of a call, beyond that of the command it runs, if any; 0 = no maximum.", 0)
    ] = 600.0


@dataclass(frozen=True, slots=True)
class Tls:
    """Encryption of every port."""

    cert: Annotated[
        str, About("File with the certificate and those that lead to its CA, as PEM; empty = no encryption.")
    ] = ""
    key: Annotated[str, About("File with the certificate's private key, as PEM.")] = ""


@dataclass(frozen=True, slots=True)
class Image:
    """Images that are taken where nobody names one, and how images come from registries."""

    default: Annotated[str, About("Image of a sandbox whose user names none.")] = "sandboxd-base"
    interpreter: Annotated[str, About("Image that lends its python3 to sandboxes without one.")] = "sandboxd-base"
    pull: Annotated[
        str,
        About(
            "When a registry is asked for the image of a new sandbox: when it is not here, each time whether it has "
            "changed, or never.",
            choices=("missing", "always", "never"),
        ),
    ] = "missing"
    auth_file: Annotated[
        str,
        About(
            "File with the logins of registries.",
            default="`$REGISTRY_AUTH_FILE`, else `$XDG_RUNTIME_DIR/containers/auth.json`, else `~/.docker/config.json`",
        ),
    ] = ""
    certificates: Annotated[
        str, About("Folder of further CAs (`*.crt`) and client certificates for registries; empty = none.")
    ] = ""
    mirrors: Annotated[
        tuple[str, ...],
        About(
            "What is asked before a registry, or before a path in one: `docker.io=mirror.example/hub`.",
            pattern=r"[^\s=]+=[^\s=]+",
        ),
    ] = ()
    insecure_registries: Annotated[
        tuple[str, ...],
        About(
            "Registries whose certificates are not checked and that may speak plain HTTP, as those on loopback may.",
            pattern=r"[^\s/]+",
        ),
    ] = ()
    pull_timeout_s: Annotated[float, About("Longest time that pulling an image may take; 0 = no maximum.", 0)] = 600.0
    max_bytes: Annotated[
        int,
        About(
            "Size of all layers above which images that registries gave are removed after a pull, those not used for "
            "longest first; 0 = no maximum.",
            0,
        ),
    ] = 0


@dataclass(frozen=True, slots=True)
class Runtime:
    """Ways to isolate."""

    default: Annotated[
        str, About("Runtime that `auto` and an empty type mean; `auto` is the strongest that works here.")
    ] = "auto"
    flavours: Annotated[
        tuple[str, ...],
        About(
            "Programs that the runtime `container` may use; the first that works is taken.", choices=("crun", "runc")
        ),
    ] = ("crun", "runc")
    gvisor_flavours: Annotated[
        tuple[str, ...],
        About(
            "Programs that the runtime `gvisor` may use; the first that works is taken. `runsc` is a current one, "
            "`runsc-ptrace` the one that Debian 12 has.",
            choices=("runsc", "runsc-ptrace"),
        ),
    ] = ("runsc", "runsc-ptrace")


@dataclass(frozen=True, slots=True)
class Docker:
    """The daemon behind the runtime `docker`."""

    host: Annotated[
        str,
        About(
            "Where the daemon listens: `unix:///PATH` or `tcp://HOST:PORT`.",
            pattern=r"|(unix|tcp|http)://.+",
            default="`$DOCKER_HOST`, else `unix:///var/run/docker.sock`",
        ),
    ] = ""
    runtime: Annotated[
        str, About("Which of the daemon's own runtimes isolates, as `runsc`; empty = the daemon's default.")
    ] = ""
    share_files: Annotated[
        str,
        About(
            "Whether the daemon sees this server's files where it does: then the agent is lent, else uploaded into "
            "each sandbox. `auto` finds out.",
            choices=("auto", "yes", "no"),
        ),
    ] = "auto"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sandbox may use where its user is silent, and the most that a user may ask for."""

    memory_bytes: Annotated[int, About("Memory of a sandbox.", MINIMUM_MEMORY)] = 512 * MIB
    cpus: Annotated[float, About("Processors of a sandbox; 0 = no limit.", 0, 1024)] = 1.0
    pids: Annotated[int, About("Processes and threads of a sandbox.", 4)] = 512
    max_memory_bytes: Annotated[int, About("Most memory that may be asked for; 0 = no maximum.", 0)] = 0
    max_cpus: Annotated[float, About("Most processors that may be asked for; 0 = no maximum.", 0)] = 0.0
    max_pids: Annotated[int, About("Most processes that may be asked for; 0 = no maximum.", 0)] = 0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a sandbox may exist."""

    default_s: Annotated[float, About("Lifetime where the user names none; 0 = for ever.", 0)] = 0.0
    max_s: Annotated[float, About("Longest lifetime; 0 = no maximum.", 0)] = 0.0
    retention_s: Annotated[float, About("How long a sandbox that stopped or was lost stays known.", 0)] = 3600.0


@dataclass(frozen=True, slots=True)
class Idle:
    """How long a sandbox may exist without being used."""

    default_s: Annotated[float, About("Idle time where the user names none; 0 = for ever.", 0)] = 0.0
    max_s: Annotated[float, About("Longest idle time; 0 = no maximum.", 0)] = 0.0


@dataclass(frozen=True, slots=True)
class Exec:
    """Commands in sandboxes."""

    max_s: Annotated[float, About("Longest time that a command may run; 0 = no maximum.", 0)] = 24 * 3600.0
    max_output_bytes: Annotated[int, About("Most output that is kept of each stream of a command.", 1024)] = 16 * MIB


@dataclass(frozen=True, slots=True)
class Create:
    """Making sandboxes."""

    timeout_s: Annotated[float, About("Longest time until a new sandbox runs commands.", 1)] = 60.0
    free_memory_bytes: Annotated[int, About("Memory of the node that must be free for a new sandbox.", 0)] = 256 * MIB
    free_disk_bytes: Annotated[int, About("Disk of the node that must be free for a new sandbox.", 0)] = 512 * MIB


@dataclass(frozen=True, slots=True)
class Log:
    """What is told on stderr."""

    level: Annotated[
        str, About("Least important kind of line that is written.", choices=("debug", "info", "warning", "error"))
    ] = "info"
    json: Annotated[bool, About("Write lines as JSON for programs, not as text for people.")] = False


def default_state_folder() -> Path:
    """Return `/var/lib/sandboxd` for root, else a folder in the XDG state folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/sandboxd")
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "sandboxd"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one server. `check` says whether they fit together."""

    state: Annotated[
        Path,
        About(
            "Folder of the state file, the sandboxes and the snapshots; one server at a time uses it.",
            default="`/var/lib/sandboxd` for root, else `$XDG_STATE_HOME/sandboxd`",
        ),
    ] = field(default_factory=default_state_folder)
    images: Annotated[
        Path,
        About(
            "Folder of the images, shared by all servers of this machine.",
            default="`/var/lib/sandboxd/images` for root, else `$XDG_DATA_HOME/sandboxd/images`",
        ),
    ] = field(default_factory=default_images_folder)
    cell: Annotated[
        str, About("Two characters that every sandbox id carries, to tell nodes apart.", pattern="[a-z2-7]{2}")
    ] = "aa"
    stop_sandboxes: Annotated[
        bool, About("Destroy all sandboxes when the server is asked to end; else they run on and are found again.")
    ] = False
    http: Http = field(default_factory=Http)
    grpc: Grpc = field(default_factory=Grpc)
    tls: Tls = field(default_factory=Tls)
    image: Image = field(default_factory=Image)
    runtime: Runtime = field(default_factory=Runtime)
    docker: Docker = field(default_factory=Docker)
    limits: Limits = field(default_factory=Limits)
    lifetime: Lifetime = field(default_factory=Lifetime)
    idle: Idle = field(default_factory=Idle)
    exec: Exec = field(default_factory=Exec)
    create: Create = field(default_factory=Create)
    log: Log = field(default_factory=Log)

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            Invalid: a default is above its maximum, no runtime program is left, a certificate has no key, or
                strangers could reach us unasked.
        """
        if (self.http.port or self.grpc.port) and not self.http.insecure and not is_loopback(self.http.host):
            raise Invalid(
                f"listening on `{self.http.host}` lets anyone who reaches it run commands, for there are no keys yet",
                hint="listen on 127.0.0.1, or accept that with --insecure (`http.insecure`)",
            )
        if bool(self.tls.cert) != bool(self.tls.key):
            given, missing = ("cert", "key") if self.tls.cert else ("key", "cert")
            raise Invalid(f"`tls.{given}` is set without `tls.{missing}`", hint="set both, or none")
        for key, programs in (("flavours", self.runtime.flavours), ("gvisor_flavours", self.runtime.gvisor_flavours)):
            if not programs:
                raise Invalid(f"`runtime.{key}` names no program")
        for name, default, maximum in (
            ("limits.memory_bytes", self.limits.memory_bytes, self.limits.max_memory_bytes),
            ("limits.cpus", self.limits.cpus or math.inf, self.limits.max_cpus),
            ("limits.pids", self.limits.pids, self.limits.max_pids),
            ("lifetime.default_s", self.lifetime.default_s, self.lifetime.max_s),
            ("idle.default_s", self.idle.default_s, self.idle.max_s),
        ):
            if maximum and default > maximum:
                raise Invalid(f"the default `{name}` of {default} is above the maximum of {maximum}")


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: where it stands, of which type it is, and what it is for. `section` is empty at the top."""

    section: str
    name: str
    kind: Any
    about: About

    @property
    def dotted(self) -> str:
        """The key as people write it: `http.port`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        """The environment variable that sets it: `SANDBOXD_HTTP_PORT`."""
        return VARIABLE_PREFIX + self.dotted.replace(".", "_").upper()


@cache
def keys() -> dict[str, Key]:
    """Return every setting by its dotted key, in the order of the reference."""
    found = [*_keys_of(Settings, "")]
    for section, kind in sections().items():
        found += _keys_of(kind, section)
    return {key.dotted: key for key in found}


@cache
def sections() -> dict[str, type]:
    """Return the class of every section by its name."""
    hints = get_type_hints(Settings)
    return {entry.name: hints[entry.name] for entry in fields(Settings) if is_dataclass(hints[entry.name])}


def _keys_of(owner: type, section: str) -> list[Key]:
    hints = get_type_hints(owner, include_extras=True)
    found = []
    for entry in fields(owner):
        hint = hints[entry.name]
        if get_origin(hint) is Annotated:
            kind, about = get_args(hint)
            found.append(Key(section, entry.name, kind, about))
    return found
