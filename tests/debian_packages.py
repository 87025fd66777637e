"""Programs that tests and the benchmark need beside Python, without installing anything.

Installed programs are used. Otherwise Debian's packages are downloaded and unpacked into
`.cache/debian`, with their dependencies that this machine lacks. Of another suite of Debian all
dependencies are unpacked, and its programs are started with that suite's loader, so that one
machine can run brokers of several suites. If that is not possible, `CannotRun` names the packages.

`python -m tests.debian_packages PACKAGE SUITE` unpacks one, and prints where.
"""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from local.errors import CannotRun

CACHE = Path(__file__).parents[1] / ".cache" / "debian"
COMMAND_S = 300
# Programs whose package has another name.
PACKAGE_OF = {
    "mosquitto_passwd": "mosquitto",
    "mosquitto_pub": "mosquitto-clients",
    "mosquitto_sub": "mosquitto-clients",
    "h2load": "nghttp2-client",
}
# Packages that are needed only to install and start system services.
NOT_NEEDED = ("adduser", "debconf", "init-system-helpers", "logrotate", "perl", "socat", "systemd")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
LOADER = "usr/lib/*/ld-linux*.so.*"


def program(name: str, suite: str = "") -> tuple[Path, dict[str, str]]:
    """The program `name`, and the environment to start it with."""
    installed = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if installed and not suite:
        return Path(installed), dict(os.environ)
    root = unpacked(PACKAGE_OF.get(name, name), suite=suite)
    found = next(root.glob(f"usr/*bin/{name}"))
    return found, dict(os.environ) if suite else {**os.environ, **libraries_of(root)}


def tree(package: str, part: str, suite: str = "") -> Path:
    """The folder that has the package's files at the paths of the package.

    That is / if the glob `part` matches there, else the folder where the package was unpacked.
    """
    root = Path("/")
    is_installed = not suite and any(root.glob(part))
    return root if is_installed else unpacked(package, suite=suite)


def libraries_of(root: Path) -> dict[str, str]:
    """LD_LIBRARY_PATH for the shared libraries that were unpacked under `root`."""
    return {"LD_LIBRARY_PATH": ":".join(map(str, _folders_of_libraries(root)))}


def unpacked(*packages: str, suite: str = "") -> Path:
    """The folder into which the packages were unpacked, with their dependencies.

    Of this machine's suite these are the ones that the machine lacks. Of another `suite` they are
    all, and the folder's programs can be started directly. The folder is kept for later runs; two
    concurrent runs make it once.
    """
    folder = CACHE / suite / "+".join(sorted(packages))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(), TemporaryDirectory(dir=CACHE) as temporary:
        if not folder.exists():
            unfinished = Path(temporary, "root")
            unfinished.mkdir()
            try:
                for archive in _downloaded(packages, Path(temporary), suite):
                    _run(["dpkg", "-x", str(archive), str(unfinished)])
                if suite:
                    _make_runnable(unfinished, folder)
            except (OSError, subprocess.SubprocessError, StopIteration) as error:
                said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
                of_suite = f" of Debian {suite}" if suite else ""
                raise CannotRun(
                    f"install {', '.join(packages)}{of_suite}: not found, and Debian packages could"
                    f" not be unpacked here ({said[-1] if said else error})"
                ) from None
            unfinished.rename(folder)
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _downloaded(packages: Sequence[str], into: Path, suite: str) -> Iterator[Path]:
    """The packages' archives, by the machine's package lists, or by fresh lists of our own."""
    if suite:
        _download(packages, into, _lists_of_our_own(into, suite))
        return into.glob("*.deb")
    try:
        _download(packages, into, [])
    except subprocess.CalledProcessError:
        # The lists are missing, as in most containers, or out of date.
        _download(packages, into, _lists_of_our_own(into))
    return into.glob("*.deb")


def _lists_of_our_own(into: Path, suite: str = "") -> Sequence[str]:
    """Options of apt for separate lists: users may not want ours, and only root may change theirs.

    With `suite` they are that suite's, and apt assumes a machine on which almost nothing is
    installed.
    """
    state = into / "apt"
    for name in ("lists/partial", "archives/partial", "sources"):
        (state / name).mkdir(parents=True)
    options = [
        *("-o", f"Dir::State::lists={state / 'lists'}"),
        *("-o", f"Dir::Cache={state}"),
        *("-o", "APT::Sandbox::User="),
        *("-o", "Debug::NoLocking=1"),
    ]
    if suite:
        (state / "sources" / "suite.list").write_text(_source_of(suite))
        (state / "status").write_text("".join(map(_as_installed, NOT_NEEDED)))
        options += [
            *("-o", "Dir::Etc::SourceList=/dev/null"),
            *("-o", f"Dir::Etc::SourceParts={state / 'sources'}"),
            *("-o", f"Dir::State::status={state / 'status'}"),
            *("-o", "Acquire::Languages=none"),
        ]
    _run(["apt-get", *options, "--quiet", "update"])
    return options


def _source_of(suite: str) -> str:
    """The line for apt; the suite is downloaded from the same server as this machine's Debian."""
    wanted = ("--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages")
    for line in _run(["apt-get", "indextargets", *wanted]).splitlines():
        uri, component = line.split()
        if uri.rstrip("/").endswith("/debian") and component == "main":
            return f"deb [signed-by={KEYS}] {uri} {suite} main\n"
    raise FileNotFoundError("this machine's packages do not come from Debian")


def _as_installed(package: str) -> str:
    """A paragraph of dpkg's status file."""
    return (
        f"Package: {package}\nStatus: install ok installed\nVersion: 999\nArchitecture: all\n"
        "Multi-Arch: foreign\nMaintainer: -\nDescription: -\n\n"
    )


def _download(packages: Sequence[str], into: Path, options: Sequence[str]) -> None:
    # The packages that an installation would install are those that this machine lacks.
    plan = _run(
        ["apt-get", *options, "--simulate", "--no-install-recommends", "install", *packages]
    )
    lacking = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    sandbox = ("-o", "APT::Sandbox::User=")
    _run(["apt-get", *options, *sandbox, "--quiet", "download", *(lacking or packages)], into)


def _make_runnable(root: Path, becomes: Path) -> None:
    """Makes the programs below `root`, which will be moved to `becomes`, use their own libraries.

    Otherwise the kernel would load this machine's C library, which may be older. Each program is
    replaced by a script that calls the loader, so that it also works for programs that start
    programs.
    """
    folders = _folders_of_libraries(root)
    # Some packages let the installation make these links.
    _run(["/sbin/ldconfig", "-n", *map(str, folders)])
    loader = next(root.glob(LOADER))
    path = ":".join(str(becomes / folder.relative_to(root)) for folder in folders)
    for file in sorted(root.glob("**/*bin/*")):
        if file.is_symlink() or not file.is_file() or not _is_program(file):
            continue
        moved = file.parent / "behind" / file.name
        moved.parent.mkdir(exist_ok=True)
        file.rename(moved)
        command = [becomes / loader.relative_to(root), "--library-path", path]
        file.write_text(
            f'#!/bin/sh\nexec {shlex.join(map(str, command))} --argv0 "$0"'
            f' {shlex.quote(str(becomes / moved.relative_to(root)))} "$@"\n'
        )
        file.chmod(0o755)


def _is_program(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(4) == b"\x7fELF" and os.access(file, os.X_OK)


def _folders_of_libraries(root: Path) -> Sequence[Path]:
    folders = {library.parent for library in root.glob("**/lib/**/*.so*")}
    # Only the outermost folders: plugins are in deeper ones, and are loaded by their path.
    return sorted(folder for folder in folders if not folders & set(folder.parents))


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


if __name__ == "__main__":
    package, suite = sys.argv[1:]
    print(unpacked(package, suite=suite))  # noqa: T201 - it is a command
