"""What is remembered: tables, queries, the job protocol, blobs. PostgreSQL is the truth. Imports no torch."""
