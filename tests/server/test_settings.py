"""Settings: where they come from, which wins, and what is refused."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from sandboxd.core.errors import Invalid
from sandboxd.core.spec import Limits
from sandboxd.server import reference
from sandboxd.server.loading import load, split_override
from sandboxd.server.settings import Settings, keys, sections

TREE = Path(__file__).parents[2]


def config(folder: Path, text: str) -> Path:
    path = folder / "sandboxd.toml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold() -> None:
    assert load(environment={}) == Settings()
    assert Settings().http.host == "127.0.0.1"


def test_the_defaults_of_a_sandbox_are_those_of_the_spec() -> None:
    limits = Settings().limits
    assert Limits() == Limits(memory_bytes=limits.memory_bytes, cpus=limits.cpus, pids=limits.pids)


def test_every_default_passes_its_own_checks() -> None:
    texts = []
    for key in keys().values():
        settings: object = Settings()
        value = getattr(getattr(settings, key.section) if key.section else settings, key.name)
        texts.append((key.dotted, ",".join(value) if isinstance(value, tuple) else str(value)))
    assert load(environment={}, overrides=texts) == Settings()


def test_every_field_is_a_key_with_a_sentence_and_a_variable_of_its_own() -> None:
    leaves = {name.name for name in fields(Settings)} - set(sections())
    for section, kind in sections().items():
        assert is_dataclass(kind)
        leaves |= {f"{section}.{entry.name}" for entry in fields(kind)}
    assert leaves == set(keys())
    assert all(key.about.text.endswith(".") for key in keys().values())
    assert max(Counter(key.variable for key in keys().values()).values()) == 1


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = config(tmp_path, '[http]\nport = 1\nhost = "::1"\nprefixes = ["/a", "/b/c"]\n[lifetime]\ndefault_s = 5\n')
    assert load(config=path, environment={}).http.port == 1
    environment = {"SANDBOXD_HTTP_PORT": "2", "SANDBOXD_IDLE_MAX_S": "1.5", "HOME": "/root", "SANDBOXD_CELL": ""}
    assert load(config=path, environment=environment).http.port == 2
    settings = load(config=path, environment=environment, overrides=[("http.port", "3"), ("http.port", "4")])
    assert (settings.http.port, settings.http.host, settings.http.prefixes) == (4, "::1", ("/a", "/b/c"))
    assert (settings.lifetime.default_s, settings.idle.max_s, settings.cell) == (5.0, 1.5, "aa")


def test_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/anna")
    settings = load(environment={"SANDBOXD_IMAGES": "~/pictures"}, overrides=[("state", "here")])
    assert settings.state == tmp_path / "here"
    assert settings.images == Path("/home/anna/pictures")


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("TRUE", True), ("false", False), ("0", False)]
)
def test_true_and_false_are_understood(text: str, *, value: bool) -> None:
    assert load(environment={}, overrides=[("log.json", text)]).log.json is value


def test_a_list_may_be_emptied() -> None:
    assert load(environment={}, overrides=[("http.prefixes", "")]).http.prefixes == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[http]\nprot = 1", "there is no setting `http.prot`.*did you mean `http.port`"),
        ("cel = 'aa'", "there is no setting `cel`.*did you mean `cell`"),
        ("[colour]\nred = 1", "there is no setting `colour`"),
        ("http = 1", "`http` in .* is a section; set one of its keys, such as `http.host`"),
        ("[http]\nport = '80'", "`http.port` in .* is `80`, not a whole number"),
        ("[http]\nport = true", "`http.port` in .* is `True`, not a whole number"),
        ("[http]\ninsecure = 1", "not true or false"),
        ("[http]\nprefixes = '/a'", "not a list of text"),
        ("[http]\nprefixes = [1]", "not a list of text"),
        ("[http]\nprefixes = ['a']", "does not match"),
        ("[idle]\nmax_s = inf", "not a number"),
        ("[idle]\nmax_s = -1", "below the minimum of 0"),
        ("state = 7", "not a path"),
        ("state = ''", "not a path"),
        ("[http", "is not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_refused_by_name(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence) as caught:
        load(config=config(tmp_path, text), environment={})
    assert str(tmp_path) in str(caught.value)


def test_a_config_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="No such file"):
        load(config=tmp_path / "none.toml", environment={})


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("http.prot", "1", "there is no setting `http.prot`, which is in the command line; did you mean `http.port`"),
        ("http", "1", "`http` in the command line is a section"),
        ("http.port", "many", "`http.port` in the command line is `many`, not a whole number"),
        ("http.port", "70000", "is 70000, above the maximum of 65535"),
        ("http.port", "", "not a whole number"),
        ("log.level", "loud", "is `loud`; it takes: debug, info, warning, error"),
        ("log.json", "yes please", "not true or false"),
        ("cell", "a1", "does not match"),
        ("lifetime.max_s", "nan", "not a number"),
        ("runtime.flavours", "crun,docker", "is `docker`; it takes: crun, runc"),
        ("runtime.flavours", "", "names no program"),
        ("images", "", "not a path"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_refused_by_name(name: str, text: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        load(environment={}, overrides=[(name, text)])


def test_an_unknown_variable_is_refused_with_a_suggestion() -> None:
    with pytest.raises(Invalid, match="`SANDBOXD_HTTP_PROT` is no setting; did you mean `SANDBOXD_HTTP_PORT`"):
        load(environment={"SANDBOXD_HTTP_PROT": "1"})


@pytest.mark.parametrize(
    "variable", ["SANDBOXD_AGENT", "SANDBOXD_PORT", "SANDBOXD_SERVICE_HOST", "SANDBOXD_PORT_8080_TCP_ADDR"]
)
def test_variables_of_others_are_left_alone(variable: str) -> None:
    assert load(environment={variable: "tcp://10.0.0.1:8080"}) == Settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - that is the point
def test_listening_beyond_loopback_needs_to_be_called_insecure(host: str) -> None:
    with pytest.raises(Invalid, match="--insecure"):
        load(environment={}, overrides=[("http.host", host)])
    load(environment={}, overrides=[("http.host", host), ("http.insecure", "true")])
    load(environment={}, overrides=[("http.host", host), ("http.port", "0"), ("grpc.port", "0")])
    with pytest.raises(Invalid, match="--insecure"):
        load(environment={}, overrides=[("http.host", host), ("http.port", "0")])


@pytest.mark.parametrize(
    ("name", "maximum"),
    [
        ("limits.max_memory_bytes", "8388608"),
        ("limits.max_cpus", "0.5"),
        ("limits.max_pids", "4"),
    ],
)
def test_a_default_above_its_maximum_is_refused(name: str, maximum: str) -> None:
    with pytest.raises(Invalid, match="is above the maximum"):
        load(environment={}, overrides=[(name, maximum)])


def test_processors_without_limit_are_above_any_maximum() -> None:
    with pytest.raises(Invalid, match=re.escape("limits.cpus")):
        load(environment={}, overrides=[("limits.cpus", "0"), ("limits.max_cpus", "4")])


def test_an_override_without_equals_is_refused() -> None:
    assert split_override("http.port=1=2") == ("http.port", "1=2")
    with pytest.raises(Invalid, match="is not KEY=VALUE"):
        split_override("http.port")


def test_the_reference_is_current() -> None:
    assert reference.main(["--check", str(TREE / "docs" / "settings.md")]) == 0


def test_the_reference_notices_that_it_is_not_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "settings.md"
    assert reference.main(["--check", str(page)]) == 1
    assert reference.main([str(page)]) == 0
    assert reference.main(["--check", str(page)]) == 0
    page.write_text(page.read_text() + "more")
    assert reference.main(["--check", str(page)]) == 1
    assert "is not current" in capsys.readouterr().err
