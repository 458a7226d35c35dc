"""Alembic's environment and revisions: one reason per revision."""
