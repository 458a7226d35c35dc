"""Prefixed ids, made by the application: `ser_` and a UUIDv7, so that they sort by time of creation."""

from typing import Literal

import uuid_utils

Prefix = Literal["ten", "key", "upl", "dst", "mdl", "ser", "ckp", "job", "shd", "stg", "whk", "msg"]


def new_id(prefix: Prefix) -> str:
    """A fresh id, for example `job_0192f0c1b7a87c3e9d0f1a2b3c4d5e6f`."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
