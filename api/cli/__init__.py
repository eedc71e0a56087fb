"""The `carrel` command. All but the processes and `doctor` are clients of the HTTP API."""
