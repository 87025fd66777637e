"""Programs that tests and the benchmark need beside Python, without installing anything.

What is installed is used. Otherwise Debian's packages are downloaded and unpacked into
`.cache/debian`, together with whatever they need and this machine lacks. Where that cannot be
done, `CannotRun` names the packages.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from local.errors import CannotRun

CACHE = Path(__file__).parents[1] / ".cache" / "debian"
COMMAND_S = 300
# Where the package has another name than the program.
PACKAGE_OF = {
    "mosquitto_passwd": "mosquitto",
    "mosquitto_pub": "mosquitto-clients",
    "mosquitto_sub": "mosquitto-clients",
    "h2load": "nghttp2-client",
}


def program(name: str) -> tuple[Path, dict[str, str]]:
    """The program `name`, and the environment to start it with."""
    installed = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if installed:
        return Path(installed), dict(os.environ)
    root = unpacked(PACKAGE_OF.get(name, name))
    found = next(root.glob(f"usr/*bin/{name}"))
    return found, {**os.environ, **libraries_of(root)}


def tree(package: str, part: str) -> Path:
    """The folder that has the package's files at the places the package gives them.

    That is / where something matches the glob `part` of it there, and what was unpacked where not.
    """
    root = Path("/")
    return root if any(root.glob(part)) else unpacked(package)


def libraries_of(root: Path) -> dict[str, str]:
    """LD_LIBRARY_PATH for the shared libraries that were unpacked under `root`."""
    folders = {library.parent for library in root.glob("**/lib/**/*.so*")}
    # The outermost of each: plugins lie further in, and are asked for by their path.
    outermost = [folder for folder in folders if not folders & set(folder.parents)]
    return {"LD_LIBRARY_PATH": ":".join(map(str, sorted(outermost)))}


def unpacked(*packages: str) -> Path:
    """The folder that the packages, and what they need and this machine lacks, were unpacked into.

    Kept for later runs; two runs at once make it once.
    """
    folder = CACHE / "+".join(sorted(packages))
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(), TemporaryDirectory(dir=CACHE) as temporary:
        if not folder.exists():
            unfinished = Path(temporary, "root")
            unfinished.mkdir()
            try:
                for archive in _downloaded(packages, Path(temporary)):
                    _run(["dpkg", "-x", str(archive), str(unfinished)])
            except (OSError, subprocess.SubprocessError) as error:
                said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
                raise CannotRun(
                    f"install {', '.join(packages)}: not found, and Debian packages could not be "
                    f"unpacked here ({said[-1] if said else error})"
                ) from None
            unfinished.rename(folder)
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _downloaded(packages: Sequence[str], into: Path) -> Iterator[Path]:
    """The packages' archives, from the machine's package lists, or from fresh ones of our own."""
    try:
        _download(packages, into, [])
    except subprocess.CalledProcessError:
        # The lists are missing, as in most containers, or too old. A container's user may not
        # want ours, and only root may change them: so these are kept apart.
        state = into / "apt"
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "archives" / "partial").mkdir(parents=True)
        apart = [
            *("-o", f"Dir::State::lists={state / 'lists'}"),
            *("-o", f"Dir::Cache={state}"),
            *("-o", "APT::Sandbox::User="),
            *("-o", "Debug::NoLocking=1"),
        ]
        _run(["apt-get", *apart, "--quiet", "update"])
        _download(packages, into, apart)
    return into.glob("*.deb")


def _download(packages: Sequence[str], into: Path, options: Sequence[str]) -> None:
    # What an installation would install is what this machine lacks.
    plan = _run(
        ["apt-get", *options, "--simulate", "--no-install-recommends", "install", *packages]
    )
    lacking = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    sandbox = ("-o", "APT::Sandbox::User=")
    _run(["apt-get", *options, *sandbox, "--quiet", "download", *(lacking or packages)], into)


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    return subprocess.run(
        command,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
    ).stdout
