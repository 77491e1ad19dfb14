"""Download of the files of a public data set."""

import os
import urllib.request
from http.client import HTTPException
from pathlib import Path
from uuid import uuid4


def fetch(address: str, file: Path) -> None:
    """Download a file. It appears under its name only when complete, even if several processes fetch it at once."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(address, timeout=60) as source:
            content = source.read()
        part = file.with_name(f"{file.name}.{uuid4().hex}")
        try:
            part.write_bytes(content)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, HTTPException) as error:
        remedy = "put the files into task.path yourself, or use task=digits"
        raise ValueError(f"{address} could not be fetched into {file.parent}: {error}; {remedy}") from None
