"""`python -m broker_service.simulate FILE`: simulates a pool that is described in a TOML or JSON
file, prints how the devices spread, move and recover, and can draw a picture. It needs no server
and no configuration.
"""

import argparse
import sys
from pathlib import Path

from broker_service.simulate.description import Description, DescriptionInvalid, parsed
from broker_service.simulate.picture import drawn
from broker_service.simulate.report import lines
from broker_service.simulate.simulation import simulated

LARGEST_BYTES = 2**20


def read(file: Path) -> Description:
    """The description in the file. Raises `DescriptionInvalid`."""
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise DescriptionInvalid(str(error.strerror)) from None
    except UnicodeDecodeError:
        raise DescriptionInvalid("it is not UTF-8") from None
    if len(content) > LARGEST_BYTES:
        raise DescriptionInvalid(f"it is larger than {LARGEST_BYTES:,} bytes")
    return parsed(text, is_json=file.suffix == ".json")


def main() -> int:
    """Returns the exit status: 2 if the arguments or the description are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m broker_service.simulate",
        description="Simulates devices in a pool of brokers: docs/simulation.md.",
    )
    parser.add_argument(
        "file", type=Path, help="the description, in TOML, or in JSON if it ends so"
    )
    parser.add_argument("--picture", type=Path, metavar="SVG", help="where to write a picture")
    arguments = parser.parse_args()
    try:
        outcome = simulated(read(arguments.file))
    except DescriptionInvalid as error:
        print(f"{arguments.file}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print("\n".join(lines(outcome)))  # noqa: T201
    if arguments.picture is not None:
        try:
            arguments.picture.write_text(drawn(outcome))
        except OSError as error:
            print(f"{arguments.picture}: {error.strerror}", file=sys.stderr)  # noqa: T201
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
