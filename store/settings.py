"""Where the store is, from the environment (`LAMBDAHAT_*`), and the times of the job protocol."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    metrics_token: str | None = Field(
        default=None, min_length=16, description="Who sends it is given /metrics; without one, callers on this machine."
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path that the API is under behind a proxy, such as /lambdahat: what its links begin with.",
    )
    max_blob_bytes: int = Field(default=8 * 2**30, ge=1, description="Largest upload.")
