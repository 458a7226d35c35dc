"""Where the store is, from the environment (`LAMBDAHAT_*`), and the times of the job protocol."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _by_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class StoreSettings(BaseSettings):
    """Read once by each process."""

    model_config = SettingsConfigDict(env_prefix="LAMBDAHAT_", frozen=True)

    database_url: str = Field(description="postgresql://user:password@host/name, PostgreSQL 15 or newer.")
    broker_url: str = Field(description="redis://[:password@]host:port/0, or redis+socket:///path; Valkey or Redis.")
    blob_dir: Path = Field(description="Folder of the blobs, shared by the API and the workers.")

    database_seconds: float = Field(
        default=20.0, gt=0, description="A statement that takes longer, or whose answer does not come, is given up."
    )
    lease_seconds: float = Field(
        default=30.0, gt=0, description="A shard is another's after this long without a heartbeat."
    )
    heartbeat_seconds: float = Field(
        default=1.0, gt=0, description="A worker speaks this often: progress, and hears of cancels."
    )
    silence_seconds: float = Field(
        default=900.0, gt=0, description="A child of which nothing is heard for so long is ended: it hangs."
    )
    attempt_seconds: float = Field(
        default=7 * 24 * 3600.0, gt=0, description="A shard's attempt that computes longer is ended."
    )
    idle_seconds: float = Field(
        default=60.0,
        gt=0,
        description="A worker that hears no hint for so long, although some are sent, ends, to be started again.",
    )
    memory_bytes: int | None = Field(
        default=None, ge=2**28, description="Memory of a child; default: nine tenths of the machine's, shared by all."
    )
    save_seconds: float = Field(
        default=30.0, ge=0, description="A running shard saves this often what it has computed, to be resumed there."
    )
    dispatch_again_seconds: float = Field(
        default=30.0, gt=0, description="A hint not followed after this long is sent again."
    )
    dispatch_window: int = Field(default=256, ge=1, description="Hints under way at once.")
    sweep_seconds: float = Field(default=0.5, gt=0, description="The sweeper looks this often.")
    webhook_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_by_commas)] = Field(
        default=(), description="Networks to which webhooks are sent although they are not public; by commas."
    )
    webhook_http: bool = Field(default=False, description="Webhooks may be http://, not https:// only.")
    metrics_token: str | None = Field(
        default=None, min_length=16, description="Who sends it is given /metrics; without one, callers on this machine."
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path that the API is under behind a proxy, such as /lambdahat: what its links begin with.",
    )
    max_blob_bytes: int = Field(default=8 * 2**30, ge=1, description="Largest upload.")
    request_seconds: float = Field(
        default=30.0, gt=0, description="A request whose body stops coming for so long is given up."
    )
    rate_per_second: float = Field(
        default=500.0, gt=0, description="Requests of a key that an API process answers; more are refused for a moment."
    )
    upload_seconds: float = Field(
        default=24 * 3600.0, gt=0, description="An upload in parts that is not complete after so long is given up."
    )
    disk_floor_bytes: int = Field(
        default=2**30,
        ge=0,
        description="Uploads that would leave less than this free on the disk of blobs are refused.",
    )
    tenant_bytes: int | None = Field(default=None, ge=0, description="A tenant's files; default: any number.")
    tenant_checkpoints: int | None = Field(
        default=None, ge=0, description="A tenant's checkpoints; default: any number."
    )
    tenant_queued_shards: int | None = Field(
        default=None, ge=0, description="A tenant's shards that wait or run; default: any number."
    )
    draws_days: float | None = Field(
        default=None, gt=0, description="Draws are kept for so long; default: as long as their results."
    )
    collect_seconds: float = Field(
        default=3600.0, gt=0, description="The sweeper looks this often for files that nothing refers to any more."
    )
