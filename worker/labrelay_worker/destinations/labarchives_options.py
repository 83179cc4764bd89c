"""Options of ``type = "labarchives"``, and those that suffice to log in."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, SecretStr, field_validator

from labrelay_worker.destinations.base import Options
from labrelay_worker.tls import TlsOptions

#: Hosts of the service: ``caapi`` serves the API of what people read at ``ca-mynotebook``.
_SERVICE = "api.labarchives.com"


class AccessOptions(Options):
    """Where the API is, and who signs."""

    url: HttpUrl = Field(
        HttpUrl(f"https://{_SERVICE}/api"), description="address of the API of your region, ending in /api"
    )
    access_key_id: SecretStr = Field(description="access key id (akid) from LabArchives")
    access_password: SecretStr = Field(description="access password from LabArchives, which signs the requests")
    timeout: float = Field(60.0, gt=0, description="seconds for one request")
    tls: TlsOptions = Field(default_factory=TlsOptions)

    @field_validator("url")
    @classmethod
    def _complete(cls, url: HttpUrl) -> HttpUrl:
        """Add the path of the API; refuse to send the service's credentials unencrypted."""
        if url.scheme == "http" and (url.host or "").endswith(".labarchives.com"):
            msg = "LabArchives takes https only; let it begin with https://"
            raise ValueError(msg)
        return HttpUrl(f"{str(url).rstrip('/')}/api") if (url.path or "/") == "/" else url


class LabArchivesOptions(AccessOptions):
    """Options of ``type = "labarchives"``."""

    user_id: SecretStr = Field(description="user id (uid) of that access key; `labrelay labarchives login` gets it")
    notebook_id: str = Field(
        "",
        description="notebook that takes the sessions; `labrelay labarchives login` lists them",
        validate_default=True,
    )
    folder: str = Field("NexusLIMS Records", min_length=1, description="the notebook's folder for all records")
    preview_bytes: int = Field(
        5 * 2**20, ge=0, description="bytes of HTML that a session's previews may take; more are named, not shown"
    )
    read_back: bool = Field(
        True, description="read the attachment back and compare its checksum; false: compare its size alone"
    )
    web_url: HttpUrl | None = Field(None, description="address that people read at; default: that of the region")

    @field_validator("notebook_id")
    @classmethod
    def _not_the_inbox(cls, notebook_id: str) -> str:
        if notebook_id.strip() in ("", "0"):
            msg = (
                "name a notebook (`labrelay labarchives login` lists them); the Inbox cannot be searched, so after a "
                "lost answer nobody could tell whether a session is there"
            )
            raise ValueError(msg)
        return notebook_id.strip()

    @property
    def web_address(self) -> str:
        """Where people read, without a slash at its end."""
        if self.web_url is not None:
            return str(self.web_url).rstrip("/")
        parts = urlsplit(str(self.url))
        host = parts.hostname or ""
        if not host.endswith(_SERVICE):
            return f"{parts.scheme}://{parts.netloc}"
        region = host.removesuffix(_SERVICE)
        return f"https://{region}-mynotebook.labarchives.com" if region else "https://mynotebook.labarchives.com"
