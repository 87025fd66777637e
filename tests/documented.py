"""Examples that users copy from docs/; tests use them, so that neither can change alone."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page of docs/ in one language, in order."""
    text = (DOCS / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def block(page: str, language: str, beginning: str) -> str:
    """The block that begins with this text."""
    [found] = [block for block in blocks(page, language) if block.startswith(beginning)]
    return found


def placed(conf: str, folder: Path, port: int) -> str:
    """The mosquitto.conf with its files in `folder`, listening on 127.0.0.1:`port`."""
    for place in ("/etc/mosquitto", "/var/lib/mosquitto"):
        conf = conf.replace(place, str(folder))
    return conf.replace("listener 8883\n", f"listener {port} 127.0.0.1\n")


def queries(page: str, language: str) -> list[str]:
    '''The queries in `query = """…"""` and `…query …`, in order.'''
    quoted = r'query = """(.*?)"""'
    return [
        query.strip()
        for text in blocks(page, language)
        for query in re.findall(quoted, text, flags=re.DOTALL)
    ]


def for_broker(query: str, broker_id: int) -> str:
    """The query with a broker's id in place of the 1 in the page."""
    changed, count = re.subn(r"\b1 = ANY \(broker_ids\)", f"{broker_id} = ANY (broker_ids)", query)
    assert count == 1, query
    return changed


def numbered(query: str) -> tuple[str, list[str]]:
    """The query as EMQX prepares it, with `$1`, `$2` for `${name}`; and the names in order."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        names.append(found[1])
        return f"${len(names)}"

    return re.sub(r"\$\{(\w+)\}", number, query), names
