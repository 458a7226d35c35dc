"""The client, the recorder, the command line, the picture."""
