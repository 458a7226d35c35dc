"""Runs jobs: a Celery app whose tasks are thin supervisors of child processes, and the sweeper. Sends webhooks, too."""
