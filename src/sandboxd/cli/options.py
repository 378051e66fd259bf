"""Options that several subcommands share, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandboxd.server.loading import load, split_override

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandboxd.server.settings import Settings

Config = Annotated[Path | None, typer.Option(metavar="FILE", help="Config file (TOML).")]
State = Annotated[Path | None, typer.Option(metavar="DIR", help="State folder; one server at a time uses it.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting by its key, as in docs/settings.md; repeatable."),
]


def settings_from(config: Path | None, changes: Sequence[str] | None, flags: Mapping[str, object]) -> Settings:
    """Return the settings; `flags` are options of their own by setting, `None` where not given, and win over `--set`.

    Raises:
        Invalid: a setting is unknown or wrong.
    """
    given = [(key, str(value)) for key, value in flags.items() if value is not None]
    return load(config=config, overrides=[*(split_override(change) for change in changes or ()), *given])
