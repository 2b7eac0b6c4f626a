"""GGUF files are parsed once while a model is loaded.

The package `gguf` reads the vocabulary entry by entry, some seconds for 49,000 tokens, and is asked
for the file by the configuration, the weights, the tokenizer and our own checks; it also makes one
table of the names of tensors for every module of the model.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# what is put into the package is seen by all threads
_LOCK = threading.RLock()


@contextmanager
def parsed_once() -> Iterator[None]:
    """While open, a file is parsed, and a table of names made, once however often it is asked for.

    Nothing changes what a reader holds. Other threads that load GGUF files wait.
    """
    import gguf

    with _LOCK:
        reader, names = gguf.GGUFReader, gguf.get_tensor_name_map

        @lru_cache(maxsize=1)
        def parsed(path: str) -> Any:
            return reader(path)

        package: Any = gguf
        package.GGUFReader = lambda path: parsed(os.fspath(path))
        package.get_tensor_name_map = lru_cache(maxsize=1)(names)
        try:
            yield
        finally:
            package.GGUFReader, package.get_tensor_name_map = reader, names
