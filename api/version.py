"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("carrel-server")
except PackageNotFoundError:  # running from a checkout that was not installed
    VERSION = "0+checkout"
