"""Settings of the producer side, and how every setting is found.

Precedence, highest first: arguments, environment ``LABRELAY_*``, ``.env``, a secrets directory, ``labrelay.toml``.
"""

from __future__ import annotations

import os
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from platformdirs import user_state_path
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from labrelay.errors import InvalidInput, LedgerUnavailable
from labrelay.logs import LogFormat
from labrelay.names import Keys
from labrelay.priorities import Priority
from labrelay.redis_address import RedisAddress

ENV_PREFIX = "LABRELAY_"
StrategyName = Literal["all", "first_success", "best_effort"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_CONFIG_FILE = "labrelay.toml"


def split_list(value: Any, *, paths: bool = True) -> Any:
    """Accept ``a,b`` beside a JSON or TOML list, and the platform's own spelling of a list of paths."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        return tomllib.loads(f"v = {text}")["v"]
    separator = os.pathsep if paths and os.pathsep in text else ","
    return [part.strip() for part in text.split(separator) if part.strip()]


PathList = Annotated[tuple[Path, ...], NoDecode]


class ProducerSettings(BaseSettings):
    """What an instrument pipeline needs to know. Each option says what it is for; `SecretStr` marks secrets."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", env_file=".env", extra="ignore", frozen=True
    )

    redis_url: SecretStr | None = Field(
        None,
        description="Redis (redis://, rediss://, unix://, sentinel://) of ledger and wake-ups; unset: embedded",
    )
    redis_replicas: int | None = Field(
        None, ge=0, description="replicas that must hold a write before it counts; unset: 1 with sentinel://, else 0"
    )
    home: Path = Field(
        default_factory=lambda: user_state_path("labrelay"),
        description="folder of everything labrelay keeps on this machine",
    )
    key_prefix: str = Field("labrelay:", description="prefix of every Redis key; one per installation")
    strategy: StrategyName = Field("all", description="strategy of exports that name none and match no route")
    priorities: dict[str, Priority] = Field(
        default_factory=dict,
        description="[priorities]: shell patterns of instruments to urgent, normal or bulk; the first match counts",
    )
    path_map: dict[str, str] = Field(
        default_factory=dict, description="path prefixes as the producer sees them, to those the workers see"
    )
    data_roots: PathList = Field(
        (), description="folders that exports may read from; files elsewhere are refused by name"
    )
    hash_limit: int = Field(64 * 2**20, ge=0, description="bytes; larger files are hashed while delivered")
    settle_seconds: float = Field(0.5, ge=0, description="a file modified within this time is looked at twice")
    max_context_bytes: int = Field(4 * 2**20, gt=0, description="largest context accepted, bytes")
    redis_timeout: float = Field(3.0, gt=0, description="seconds after which Redis counts as away")
    outbox: bool = Field(True, description="keep on disk what is submitted while Redis is away, and send it later")
    outbox_max_entries: int = Field(10_000, gt=0, description="submissions that the outbox holds at most")
    outbox_max_bytes: int = Field(2**30, gt=0, description="bytes that the outbox holds at most")
    submit_seconds: float = Field(
        1.5, gt=0, le=2, description="seconds that a submit waits for a silent Redis before the outbox takes over"
    )
    wake_up_grace: float = Field(30.0, gt=0, description="seconds until a lost wake-up is sent again")
    log_format: LogFormat = Field("console", description="lines of the log for people, or JSON for collectors")
    log_level: LogLevel | None = Field(
        None, description="lowest level logged; unset: INFO in workers, nothing beside their answers in commands"
    )
    traces: bool = Field(
        False, description="send OpenTelemetry spans (extra `otel`) to where OTEL_EXPORTER_OTLP_ENDPOINT says"
    )
    archive_folder: Path | None = Field(
        None, description="where ended exports go when they leave Redis, as JSON Lines; unset: archive in the home"
    )

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator("home", "data_roots")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(path.expanduser().absolute() for path in value)
        return value.expanduser().absolute()

    @field_validator("redis_url")
    @classmethod
    def _usable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            RedisAddress(value.get_secret_value())
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add ``labrelay.toml`` below everything else."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        return init_settings, env_settings, dotenv_settings, file_secret_settings, toml

    @cached_property
    def keys(self) -> Keys:
        """The ledger's key names."""
        return Keys(self.key_prefix)

    @property
    def embedded_folder(self) -> Path:
        """Where the embedded Redis keeps its data and says how to reach it."""
        return self.home / "redis"

    @property
    def archive(self) -> Path:
        """Where ended exports go when they leave Redis."""
        return self.archive_folder.expanduser().absolute() if self.archive_folder else self.home / "archive"

    @property
    def knows_a_redis(self) -> bool:
        """Whether a Redis is configured, or an embedded one has run: it may be away, but there is one."""
        return self.redis_url is not None or self.embedded_folder.is_dir()

    @property
    def redis_address(self) -> RedisAddress:
        """Where Redis is; raises as `resolve_redis_url` does."""
        return RedisAddress(self.resolve_redis_url())

    @property
    def required_replicas(self) -> int:
        """Replicas that must hold a write before it counts: a failover forgets what only the master had."""
        if self.redis_replicas is not None:
            return self.redis_replicas
        return int(self.redis_address.is_sentinel)

    def resolve_redis_url(self) -> str:
        """Return the Redis address: the configured one, else that of the running embedded server.

        Raises
        ------
        LedgerUnavailable
            None is configured and no embedded server runs; the text says how to start one.
        """
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        try:
            return (self.embedded_folder / "url").read_text().strip()
        except FileNotFoundError:
            msg = "no Redis: start the embedded one with `labrelay up`, or set LABRELAY_REDIS_URL"
            raise LedgerUnavailable(msg) from None


def config_file() -> Path:
    """Return the settings file in force: ``LABRELAY_CONFIG``, else ``labrelay.toml`` here, else in the home."""
    named = os.environ.get("LABRELAY_CONFIG")
    if named:
        return Path(named)
    here = Path(_CONFIG_FILE)
    if here.exists():
        return here
    home = os.environ.get("LABRELAY_HOME")
    return (Path(home).expanduser() if home else user_state_path("labrelay")) / _CONFIG_FILE


Settings = TypeVar("Settings", bound=ProducerSettings)


def load_settings(cls: type[Settings], **overrides: Any) -> Settings:
    """Read the settings, with one-line errors that name the option and where to correct it.

    Raises
    ------
    InvalidInput
        An option has a bad value, or the settings file is not TOML or cannot be read.
    """
    try:
        path = config_file()
        if os.environ.get("LABRELAY_CONFIG") and not path.is_file():
            raise InvalidInput("LABRELAY_CONFIG", f"no such file {path}", "Correct or unset it")
        secrets = os.environ.get("LABRELAY_SECRETS_DIR")
        return cls(_secrets_dir=secrets, **overrides) if secrets else cls(**overrides)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(str(config_file()), f"not valid TOML ({error})", "Correct the line it names") from None
    except UnicodeDecodeError:
        raise InvalidInput(str(config_file()), "not UTF-8 text", "Save it as UTF-8, as TOML must be") from None
    except OSError as error:
        # Of files in the working folder, too: `sudo -u labrelay` in root's home may not even look for them.
        cure = "Give this user the right to read it, or start in a folder that it may enter"
        raise InvalidInput(str(error.filename), f"cannot be read ({error.strerror})", cure) from None
    except SettingsError as error:
        found = re.search(r'field "(\w+)"', str(error))
        name = found.group(1) if found else "settings"
        if isinstance(error.__cause__, OSError):  # a secret's file
            problem = f"its file cannot be read ({error.__cause__.strerror})"
            raise InvalidInput(name, problem, "Correct what is in LABRELAY_SECRETS_DIR, or its rights") from None
        raise InvalidInput(name, "not valid JSON", f"Correct {ENV_PREFIX}{name.upper()}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        where = f"Correct {ENV_PREFIX}{name.upper().replace('.', '__')} or {config_file().name}"
        raise InvalidInput(name, first["msg"].removeprefix("Value error, "), where) from None


class EffectiveOption(BaseModel):
    """One option as `labrelay settings` shows it."""

    name: str
    value: str
    source: str
    help: str
    sensitive: bool

    mask: ClassVar[str] = "********"


def effective_options(settings: ProducerSettings) -> list[EffectiveOption]:
    """List every option with its value (secrets masked) and where it came from."""
    from labrelay.redaction import mask_table  # noqa: PLC0415  only the settings listing needs it

    toml: dict[str, Any] = {}
    if config_file().is_file():
        toml = tomllib.loads(config_file().read_text(encoding="utf-8"))
    options = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        environment = [key for key in os.environ if _names(key, name)]
        if environment:
            source = ", ".join(sorted(environment))
        elif name in toml:
            source = str(config_file())
        else:
            source = "default" if name not in settings.model_fields_set else ".env, secrets or argument"
        sensitive = "SecretStr" in str(field.annotation)
        options.append(
            EffectiveOption(
                name=name,
                value=EffectiveOption.mask if sensitive and value is not None else str(mask_table(value)),
                source=source,
                help=field.description or "",
                sensitive=sensitive,
            )
        )
    return options


def _names(variable: str, option: str) -> bool:
    wanted = (ENV_PREFIX + option).upper()
    return variable.upper() == wanted or variable.upper().startswith(wanted + "__")
