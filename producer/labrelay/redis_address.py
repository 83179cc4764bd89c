"""Where Redis is, as each library wants to be told: one address for the ledger's clients, the broker and Flower.

One server is ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads them. Servers behind Sentinel are::

    sentinel://USER:PASSWORD@HOST:26379,HOST:26379,HOST:26379/DB?master=NAME

with, where the sentinels ask for them, ``sentinel_username`` and ``sentinel_password``, and TLS to servers and
sentinels with any option that begins with ``ssl_`` (``ssl_ca_certs=/etc/labrelay/ca.pem``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_SCHEMES = ("redis", "rediss", "unix", "sentinel")
_SENTINEL_PORT = 26379
_SSL = "ssl_"
_SENTINEL_OPTIONS = frozenset({"master", "sentinel_username", "sentinel_password"})


@dataclass(frozen=True)
class RedisAddress:
    """A Redis address that was read once; its text may hold a password, so it is kept out of ``repr``.

    Raises
    ------
    ValueError
        It is none; the text says what it must look like.
    """

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        scheme, found, _ = self.url.partition("://")
        if found and "cluster" in scheme:
            msg = "Celery has no Redis Cluster transport; give a single server, or sentinel://"
            raise ValueError(msg)
        if not found or scheme not in _SCHEMES:
            msg = "must begin with redis://, rediss://, unix:// or sentinel://"
            raise ValueError(msg)
        if self.is_sentinel:
            self._require_sentinel_parts()

    @property
    def is_sentinel(self) -> bool:
        """Whether sentinels say which server is the master."""
        return self.url.startswith("sentinel://")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine for certain."""
        if self.is_sentinel:
            return False  # whoever is elected may be anywhere
        return self.url.startswith("unix:") or self._parts.hostname in (None, "127.0.0.1", "localhost", "::1")

    def client(self, **options: Any) -> redis.Redis:
        """Return a client of the server, or of whichever server is the master."""
        import redis  # noqa: PLC0415  `import labrelay` must not load it

        if not self.is_sentinel:
            return redis.Redis.from_url(self.url, **options)
        from redis.sentinel import Sentinel, SentinelConnectionPool  # noqa: PLC0415

        class Pool(SentinelConnectionPool):
            def disconnect(self, inuse_connections: bool = True) -> None:
                super().disconnect(inuse_connections)
                self.sentinel_manager.close()

        sentinel: Any = Sentinel(self._hosts, sentinel_kwargs=self._asking(options), **options, **self._server())  # type: ignore[no-untyped-call]
        client: redis.Redis = sentinel.master_for(self._master, connection_pool_class=Pool)
        return client

    def async_client(self, **options: Any) -> redis.asyncio.Redis:
        """Return the same for an event loop."""
        import redis.asyncio  # noqa: PLC0415

        if not self.is_sentinel:
            return redis.asyncio.Redis.from_url(self.url, **options)
        from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool  # noqa: PLC0415

        class Pool(SentinelConnectionPool):
            async def disconnect(self, inuse_connections: bool = True) -> None:
                await super().disconnect(inuse_connections)
                for each in self.sentinel_manager.sentinels:
                    await each.aclose()

        sentinel: Any = Sentinel(self._hosts, sentinel_kwargs=self._asking(options), **options, **self._server())  # type: ignore[no-untyped-call]
        client: redis.asyncio.Redis = sentinel.master_for(self._master, connection_pool_class=Pool)
        return client

    def broker(self) -> dict[str, Any]:
        """Return Celery's settings for this address; the transport options are to be merged with others."""
        settings: dict[str, Any] = {"broker_url": self.url, "broker_transport_options": {}}
        if self.url.startswith("unix://"):
            # Flower does not decode percent signs, and macOS has a blank in its state folder.
            path, mark, options = self.url.removeprefix("unix://").partition("?")
            settings["broker_url"] = f"redis+socket://{unquote(path)}{mark}{options}"
        elif self.is_sentinel:
            login = self._parts.netloc.rpartition("@")[0]
            at = f"{login}@" if login else ""
            # kombu moves on to the next one with nothing but its own address, so each carries the password.
            settings["broker_url"] = ";".join(f"sentinel://{at}{_at(*host)}/{self._db}" for host in self._hosts)
            settings["broker_transport_options"] = {"master_name": self._master, "sentinel_kwargs": self._asking({})}
        elif self.url.startswith("rediss://"):
            kept = "&".join(f"{k}={quote(v)}" for k, v in self._options.items() if not k.startswith(_SSL))
            settings["broker_url"] = self.url.partition("?")[0] + (f"?{kept}" if kept else "")
        if self._uses_tls:
            settings["broker_use_ssl"] = self._tls()
        return settings

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def _options(self) -> dict[str, str]:
        return dict(parse_qsl(self._parts.query))

    @property
    def _hosts(self) -> list[tuple[str, int]]:
        hosts = []
        for each in self._parts.netloc.rpartition("@")[2].split(","):
            one = urlsplit(f"//{each}")
            hosts.append((one.hostname or "", one.port or _SENTINEL_PORT))
        return hosts

    @property
    def _master(self) -> str:
        return self._options.get("master", "")

    @property
    def _db(self) -> int:
        return int(self._parts.path.strip("/") or 0)

    @property
    def _uses_tls(self) -> bool:
        return self.url.startswith("rediss://") or any(name.startswith(_SSL) for name in self._options)

    def _tls(self) -> dict[str, Any]:
        """Return the TLS options; a certificate that nobody checks protects from nothing, so it is by default."""
        given: dict[str, Any] = {k: v for k, v in self._options.items() if k.startswith(_SSL)}
        if "ssl_check_hostname" in given:
            given["ssl_check_hostname"] = given["ssl_check_hostname"].lower() not in ("false", "0", "no")
        return {"ssl_cert_reqs": "required"} | given

    def _server(self) -> dict[str, Any]:
        user, _, password = self._parts.netloc.rpartition("@")[0].partition(":")
        login = {"username": unquote(user) or None, "password": unquote(password) or None}
        return {"db": self._db, **login} | ({"ssl": True} | self._tls() if self._uses_tls else {})

    def _asking(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return what connections to the sentinels need."""
        asking = {k: v for k, v in options.items() if k.startswith("socket_")}
        for name in ("username", "password"):
            if value := self._options.get(f"sentinel_{name}"):
                asking[name] = value
        return asking | ({"ssl": True} | self._tls() if self._uses_tls else {})

    def _require_sentinel_parts(self) -> None:
        form = "give sentinel://USER:PASSWORD@HOST:26379,HOST:26379/0?master=NAME"
        try:
            hosts, _ = self._hosts, self._db
        except ValueError:
            msg = f"has a port or database that is no number; {form}"
            raise ValueError(msg) from None
        if not all(host for host, _ in hosts) or not self._master:
            msg = f"names no sentinel or no master; {form}"
            raise ValueError(msg)
        for name in self._options:
            if name not in _SENTINEL_OPTIONS and not name.startswith(_SSL):
                msg = f"has an unknown option {name!r}; {form}"
                raise ValueError(msg)


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
