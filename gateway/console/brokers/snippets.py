"""Settings to paste into each kind of broker, with the addresses and ids of this installation.

The files in `snippet_texts/` are blocks of docs/brokers/, so the documents and these pages do not
differ; a test compares them.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

FOLDER = Path(__file__).parent / "snippet_texts"
# As the documents name them.
ACCESS = ("https://mooring.example.com:4003", "http://127.0.0.1:4003")
SECRET = "mbs_…"  # noqa: S105 - stands for one
SSL = "ssl {"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text to copy, and where it goes."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of broker, or a way to connect one."""

    id: str
    name: str
    summary: str
    # Its page of docs/.
    page: str
    snippets: tuple[Snippet, ...]


# For each kind: its id, name, summary and page, and its snippets as titles and files.
KINDS: tuple[tuple[str, str, str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "mosquitto",
        "Mosquitto, managed by Mooring",
        "For up to 1,000 devices. Mooring keeps Mosquitto's list of clients; no secret is needed.",
        "docs/brokers/mosquitto.md",
        (
            ("mosquitto.conf", "mosquitto_managed.conf"),
            ("Once, before Mosquitto first starts", "mosquitto_managed.sh"),
        ),
    ),
    (
        "mosquitto-certificates",
        "Mosquitto, certificates",
        "For any number of devices that have certificates of their own. No secret is needed.",
        "docs/brokers/mosquitto.md",
        (("mosquitto.conf", "mosquitto_certificates.conf"),),
    ),
    (
        "mosquitto-plugin",
        "Mosquitto, a plugin that asks",
        "With mosquitto-go-auth, which is archived. Give the file mode 0640: it has the secret.",
        "docs/brokers/mosquitto.md",
        (("mosquitto.conf", "mosquitto_asking.conf"),),
    ),
    (
        "emqx",
        "EMQX",
        "EMQX 5 asks Mooring when a client connects.",
        "docs/brokers/emqx.md",
        (
            ("etc/emqx.conf of every node", "emqx_asking.conf"),
            ("To end the sessions of disabled devices", "emqx_sessions.sh"),
            ("To see which devices are online", "emqx_online.conf"),
        ),
    ),
    (
        "rabbitmq",
        "RabbitMQ",
        "RabbitMQ's MQTT plugin asks Mooring. The file contains the secret: give it mode 0640.",
        "docs/brokers/rabbitmq.md",
        (
            ("rabbitmq.conf", "rabbitmq_asking.conf"),
            ("advanced.config, where Mooring is asked over TLS", "rabbitmq_tls.config"),
            ("To end the sessions of disabled devices", "rabbitmq_sessions.sh"),
        ),
    ),
    (
        "vernemq",
        "VerneMQ",
        "VerneMQ asks Mooring by webhooks. The file contains the secret: give it mode 0640.",
        "docs/brokers/vernemq.md",
        (("vernemq.conf", "vernemq_asking.conf"),),
    ),
    (
        "hivemq",
        "HiveMQ",
        "An extension of your own asks this question; the document says what it has to do.",
        "docs/brokers/hivemq.md",
        (("The question that the extension asks", "hivemq_question.sh"),),
    ),
)


@functools.cache
def text_of(file: str) -> str:
    """A text as the documents have it."""
    return (FOLDER / file).read_text()


def adapted(
    text: str, broker_id: int, port: int, gateway_url: str, access_url: str, secret: str
) -> str:
    """A text of the documents with the addresses, the id and the secret of a broker."""
    access = urlsplit(access_url)
    is_tls = access.scheme == "https"
    text = text.replace("$GATEWAY_URL", gateway_url)
    text = text.replace("/brokers/1 ", f"/brokers/{broker_id} ")
    text = text.replace("--broker 1 ", f"--broker {broker_id} ")
    text = text.replace("listener 8883\n", f"listener {port}\n")
    for url in ACCESS:
        text = text.replace(url, access_url)
    text = text.replace(
        "plugin_opt_http_host 127.0.0.1\nplugin_opt_http_port 4003\n",
        f"plugin_opt_http_host {access.hostname}\n"
        f"plugin_opt_http_port {access.port or (443 if is_tls else 80)}\n"
        + ("plugin_opt_http_with_tls true\nplugin_opt_http_verify_peer true\n" if is_tls else ""),
    )
    if not is_tls:
        lines = text.splitlines(keepends=True)
        text = "".join(line for line in lines if not line.strip().startswith(SSL))
    return text.replace(SECRET, secret or SECRET)


def snippets_for(
    broker_id: int, port: int, gateway_url: str, access_url: str, *, secret: str = ""
) -> list[Kind]:
    """The kinds of brokers with their settings; without `secret` its place is marked."""
    return [
        Kind(
            kind,
            name,
            summary,
            page,
            tuple(
                Snippet(
                    title,
                    adapted(text_of(file), broker_id, port, gateway_url, access_url, secret),
                )
                for title, file in files
            ),
        )
        for kind, name, summary, page, files in KINDS
    ]
