"""The command line: one file per command, `main.py` the application; the only place that prints."""
