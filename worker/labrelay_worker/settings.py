"""Settings of the worker side: the producer's, and what only workers need."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from labrelay.errors import InvalidInput
from labrelay.settings import PathList, ProducerSettings, StrategyName, config_file, load_settings, split_list


class Route(BaseModel):
    """One ``[[routes]]`` table: what the exports of matching instruments take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instrument: str = Field("*", description="shell pattern matched against instrument_pid")
    destinations: tuple[str, ...] = ()
    strategy: StrategyName | None = None


class RetrySettings(BaseModel):
    """When a failed delivery is tried again, and when it is given up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_delay: float = Field(
        2.0, gt=0, description="seconds; doubles with every attempt, with full jitter; never less after a lost answer"
    )
    longest_delay: float = Field(900.0, gt=0, description="seconds")
    attempts: int = Field(30, ge=1, description="failed attempts after which a delivery is given up")
    age: float = Field(7 * 86400.0, gt=0, description="seconds after the first attempt until it is given up")
    misconfigured_delay: float = Field(300.0, gt=0, description="seconds until a misconfigured one is tried again")


class BreakerSettings(BaseModel):
    """When a destination that is down is left alone, and when it is asked again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: int = Field(3, ge=1, description="calls in a row that find a destination down until it is left alone")
    open_seconds: float = Field(30.0, gt=0, description="seconds until it is asked again; doubles each time")
    longest_open_seconds: float = Field(600.0, gt=0, description="seconds")


class WorkerSettings(ProducerSettings):
    """Everything a worker process can be told."""

    destinations: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="[destinations.NAME] tables: type, priority, enabled and the type's options"
    )
    backends: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="[backends.NAME] tables: type and the type's options"
    )
    routes: tuple[Route, ...] = Field((), description="[[routes]]: destinations and strategy by instrument")
    plugin_path: PathList = Field((), description="folders with plugin modules")
    plugins: Annotated[tuple[str, ...], NoDecode] = Field((), description="plugins as package.module:Class")
    worker_profile: Literal["full", "headless"] = Field(
        "full", description="headless leaves out what needs a display or a JVM"
    )
    lease_seconds: float = Field(30.0, gt=0, description="how long a silent worker keeps an export")
    in_flight: int = Field(200, ge=1, description="exports one process works on at once")
    threads_per_destination: int = Field(8, ge=1, description="blocking calls to one destination at once")
    call_timeout: float = Field(300.0, gt=0, description="seconds one call of a destination may take")
    link_wait: float = Field(900.0, ge=0, description="seconds a destination waits for one it links to")
    on_unknown: Literal["park", "retry"] = Field(
        "park", description="what to do when a destination may have a record and cannot be asked"
    )
    poison_limit: int = Field(
        5, ge=1, description="times in a row an export may kill its worker until it is parked for a person"
    )
    pack_after_seconds: float = Field(
        60.0, ge=0, description="delivered exports are kept compressed in Redis after so many seconds; 0: never"
    )
    retention_days: float = Field(
        90.0, gt=0, description="delivered and cancelled exports go to the archive after so many days"
    )
    retry: RetrySettings = Field(default_factory=RetrySettings, description="[retry]: back-off and limits")
    breaker: BreakerSettings = Field(
        default_factory=BreakerSettings, description="[breaker]: when a destination that is down is left alone"
    )
    drain_seconds: float = Field(30.0, ge=0, description="seconds a running call may take once shutdown began")
    flower_address: str = Field("127.0.0.1", description="where Flower, the task view, listens")
    flower_port: int = Field(5555, ge=1, le=65_535, description="Flower's TCP port")
    flower_basic_auth: SecretStr | None = Field(
        None, description="user:password that Flower asks for; without it, Flower does not start"
    )
    flower_open: bool = Field(False, description="let everybody who reaches Flower see sessions, users and errors")
    reconcile_seconds: float = Field(1.0, gt=0, description="time between two looks for what is due")
    metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="port where Prometheus reads this worker; 0: any free one; unset: none"
    )
    metrics_host: str = Field("127.0.0.1", description="address of metrics_port; 0.0.0.0: every one of the machine")

    @field_validator("plugin_path", mode="before")
    @classmethod
    def _split_plugin_path(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator("plugins", mode="before")
    @classmethod
    def _split_plugins(cls, value: Any) -> Any:
        return split_list(value, paths=False)  # the colon of package.module:Class separates nothing


def load_worker_settings(**overrides: Any) -> WorkerSettings:
    """Read the worker's settings; a misspelled table or option of ``labrelay.toml`` is refused by name.

    Raises
    ------
    InvalidInput
        An option is unknown or has a bad value.
    """
    settings = load_settings(WorkerSettings, **overrides)
    path = config_file()
    if path.is_file():
        for name in tomllib.loads(path.read_text(encoding="utf-8")).keys() - WorkerSettings.model_fields.keys():
            raise InvalidInput(str(path), f"unknown option {name!r}", "`labrelay settings` lists the options")
    return settings
