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

    lease_seconds: float = Field(
        default=30.0, gt=0, description="A shard is another's after this long without a heartbeat."
    )
    heartbeat_seconds: float = Field(
        default=1.0, gt=0, description="A worker speaks this often: progress, and hears of cancels."
    )
    dispatch_again_seconds: float = Field(
        default=30.0, gt=0, description="A hint not followed after this long is sent again."
    )
    dispatch_window: int = Field(default=256, ge=1, description="Hints under way at once.")
    sweep_seconds: float = Field(default=0.5, gt=0, description="The sweeper looks this often.")
    max_blob_bytes: int = Field(default=8 * 2**30, ge=1, description="Largest upload.")
