"""autotuner finds the launch flags that serve a large language model best, by measuring them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("autotuner")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
