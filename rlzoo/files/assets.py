"""Weight files: what they are, where they are kept, how they get there.

Light: plugins announce `Asset` records in their `__init__`. A file is looked for in three places, in this order: an
explicit path (a plugin's `checkpoint` option), the cache, a download. A download is resumed where it stopped, verified
against the announced SHA-256, and renamed into place only then; a file under its final name is therefore complete.

Environment: `RLZOO_CACHE` (directory of the cache), `RLZOO_OFFLINE` (`1` forbids every download).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rlzoo.errors import DataError

if TYPE_CHECKING:
    import httpx

CHUNK_BYTES = 1 << 20
ATTEMPTS = 4
"""Number of attempts to continue a broken download."""

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all)."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One published file. `size` in bytes, `sha256` in lower-case hex."""

    name: str
    """Unique; what `rlzoo assets pull NAME` takes."""
    url: str
    sha256: str
    size: int
    licence: str
    commercial_use: bool
    """True if the licence allows commercial use."""
    source: str
    """Who published it, for people to look up."""

    @property
    def filename(self) -> str:
        """The last part of its address."""
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])

    @property
    def path(self) -> Path:
        """Path in the cache. The file may not exist."""
        return cache_dir() / "assets" / self.name / self.filename

    def terms(self) -> str:
        """The licence and what it forbids, in one line."""
        return self.licence if self.commercial_use else f"{self.licence} (NO COMMERCIAL USE)"


WAV2VEC2_ASR = Asset(
    name="wav2vec2-base-960h",
    url="https://download.pytorch.org/torchaudio/models/wav2vec2_fairseq_base_ls960_asr_ls960.pth",
    sha256="488fd4f16de84438ffc945334278c1b9fb9b7159a806c1080b16111a958c945d",
    size=377_664_473,
    licence="MIT",
    commercial_use=True,
    source="wav2vec 2.0 base tuned on 960 h of LibriSpeech (fairseq), as torchaudio publishes it",
)
"""Used by several rewards, as a recogniser and as an encoder."""


def cache_dir() -> Path:
    """`RLZOO_CACHE`, else the platform's cache directory for `rlzoo`."""
    chosen = os.environ.get("RLZOO_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("rlzoo", appauthor=False))


def is_offline() -> bool:
    """True if `RLZOO_OFFLINE` forbids downloads."""
    return os.environ.get("RLZOO_OFFLINE", "").lower() not in ("", "0", "false", "no")


def cached(asset: Asset) -> Path | None:
    """Its path if the cache has it in full length. Cheap: the checksum was verified on arrival, see `verify`."""
    path = asset.path
    return path if path.is_file() and path.stat().st_size == asset.size else None


def at_hand(assets: Iterable[Asset], checkpoint: Path | None = None) -> bool:
    """True if weights are available without a download. A named checkpoint always counts: if it is missing, that is an
    error to report and not a reason to use something else."""
    return checkpoint is not None or all(cached(asset) is not None for asset in assets)


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file in hex. Raises DataError when it cannot be read."""
    digest, done, size = hashlib.sha256(), 0, 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                if progress:
                    progress(done, size)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}", "check the path and its permissions") from error
    return digest.hexdigest()


def verify(asset: Asset, path: Path | None = None) -> Path:
    """Check size and SHA-256 of the cached file, or of `path`. Raises DataError with what was expected and found."""
    target = path or asset.path
    again = f"run `rlzoo assets pull {asset.name} --force` to fetch it again"
    if not target.is_file():
        raise DataError(f"'{asset.name}' is not at '{target}'", f"run `rlzoo assets pull {asset.name}`")
    size = target.stat().st_size
    if size != asset.size:
        raise DataError(f"'{target}' has {size:,} bytes, '{asset.name}' has {asset.size:,}", again)
    found = sha256_of(target)
    if found != asset.sha256:
        raise DataError(f"'{target}' has SHA-256 {found}, '{asset.name}' has {asset.sha256}", again)
    return target


def obtain(asset: Asset, checkpoint: Path | None = None, *, offline: bool | None = None) -> Path:
    """The file: `checkpoint` if given, else the cache, else a download, shown on standard error.

    `checkpoint` may be any file of the same layout (somebody's own training), so its checksum is not asked for.
    Raises DataError (exit 4) if it is unavailable.
    """
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise DataError(f"checkpoint '{checkpoint}' does not exist", "check the path of the option `checkpoint`")
        return checkpoint
    if (path := cached(asset)) is not None:
        return path
    if not (is_offline() if offline is None else offline):
        announce(asset)
    with bar(asset) as progress:
        return fetch(asset, offline=offline, progress=progress)


def fetch(
    asset: Asset,
    *,
    offline: bool | None = None,
    force: bool = False,
    progress: Progress | None = None,
    timeout_seconds: float = 30.0,
) -> Path:
    """Download into the cache and return the path; at once if it is there already, unless `force`.

    `timeout_seconds` bounds how long the server may stay silent, not the whole download. What arrived before a failure
    stays beside the target as `*.part` and is continued next time. Raises DataError.
    """
    if not force and (path := cached(asset)):
        return path
    if is_offline() if offline is None else offline:
        raise DataError(
            f"'{asset.name}' is not in the cache, and downloads are switched off",
            f"put the file from {asset.url} at '{asset.path}', or allow downloads (unset RLZOO_OFFLINE)",
        )
    part = asset.path.with_name(asset.path.name + ".part")
    with _writing(asset), _exclusive(asset):
        if not force and (path := cached(asset)):  # another process may have fetched it while we waited
            return path
        _download(asset, part, progress, timeout_seconds)
        _check_arrival(asset, part)
        os.replace(part, asset.path)
    return asset.path


def _check_arrival(asset: Asset, part: Path) -> None:
    found = sha256_of(part)
    if found == asset.sha256:
        return
    part.unlink()
    raise DataError(
        f"download of '{asset.name}' has SHA-256 {found}, expected {asset.sha256}; it was deleted",
        "try again; if it happens twice, the file behind the address has changed: report it, do not use it",
    )


def _download(asset: Asset, part: Path, progress: Progress | None, timeout_seconds: float) -> None:
    """Bring `part` to the full size, taking broken connections up again as long as bytes keep coming."""
    import httpx

    hopeless = (httpx.ConnectError, httpx.TooManyRedirects, httpx.InvalidURL, httpx.UnsupportedProtocol)
    timeout = httpx.Timeout(timeout_seconds)
    failures = 0
    with httpx.Client(follow_redirects=True, timeout=timeout) as client:
        while (before := _size(part)) < asset.size:
            try:
                _request(client, asset, part, progress)
                cause: Exception | None = None
            except (httpx.RequestError, httpx.StreamError, httpx.InvalidURL) as error:
                cause = error
            after = _size(part)
            failures = 0 if after > before else failures + 1
            if failures >= ATTEMPTS or (failures and isinstance(cause, hopeless)):
                reason = f"{type(cause).__name__}: {cause}".rstrip(": ") if cause else "the server sends no more"
                raise DataError(
                    f"download of '{asset.name}' stopped at {after:,} of {asset.size:,} bytes ({reason})",
                    "check the connection and run the command again: it continues where it stopped",
                ) from cause
    if _size(part) > asset.size:
        size = _size(part)
        part.unlink()
        raise DataError(
            f"'{asset.url}' sent {size:,} bytes, expected {asset.size:,}",
            "the file behind the address has changed: report it, do not use it",
        )


def _request(client: httpx.Client, asset: Asset, part: Path, progress: Progress | None) -> None:
    have = _size(part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    # Compressed transfer would break both the byte count and the resumption.
    headers["Accept-Encoding"] = "identity"
    with client.stream("GET", asset.url, headers=headers) as response:
        if response.status_code not in (200, 206):
            raise DataError(
                f"'{asset.url}' answers {response.status_code} {response.reason_phrase}",
                f"fetch the file by hand ({asset.size:,} bytes, SHA-256 {asset.sha256}) and put it at '{asset.path}'",
            )
        starts_at = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        continues = response.status_code == 206 and starts_at == str(have)
        with part.open("ab" if continues else "wb") as file:
            done = have if continues else 0
            for chunk in response.iter_raw():  # as it comes: a chunk size would lose the last one when it breaks
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, asset.size)
                if done > asset.size:
                    return


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _exclusive(asset: Asset) -> Iterator[None]:
    """One download of one asset at a time, over all processes of the machine (ranks start together)."""
    import filelock

    with filelock.FileLock(str(asset.path) + ".lock"):
        yield


@contextmanager
def _writing(asset: Asset) -> Iterator[None]:
    try:
        asset.path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            f"cannot write '{asset.path}': {error.strerror or error}",
            f"'{asset.name}' needs {asset.size / 1e6:,.0f} MB; free some space or set RLZOO_CACHE to another directory",
        ) from error


def announce(asset: Asset) -> None:
    """Say on standard error what is being fetched, from where and under which terms."""
    from rich.console import Console

    Console(stderr=True).print(
        f"Fetching '{asset.name}' ({asset.size / 1e6:,.1f} MB) from {asset.url}\n"
        f"SHA-256 {asset.sha256}\nLicence: {asset.terms()}. Kept at {asset.path}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def bar(asset: Asset) -> Iterator[Progress]:
    """A progress bar on standard error; shows nothing until the first bytes come, nor where nobody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    watched = sys.stderr.isatty()
    shown = Bar(
        *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True), disable=not watched
    )
    task = shown.add_task(asset.name, total=asset.size, visible=False)
    with shown:
        yield lambda done, size: shown.update(task, completed=done, total=size, visible=True)


__all__ = [
    "WAV2VEC2_ASR",
    "Asset",
    "announce",
    "at_hand",
    "bar",
    "cache_dir",
    "cached",
    "fetch",
    "is_offline",
    "obtain",
    "sha256_of",
    "verify",
]
