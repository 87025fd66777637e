"""The settings to paste into brokers are those of the documents, with the addresses of this one."""

import pytest

from gateway.console.brokers.snippets import FOLDER, KINDS, adapted, snippets_for, text_of
from tests.documented import DOCS

USED = [(page, file) for *_, page, files in KINDS for _, file in files]
DOCUMENTED = "https://mooring.example.com:4003"


@pytest.mark.parametrize(("page", "file"), USED)
def test_a_text_is_a_block_of_its_document(page: str, file: str) -> None:
    assert f"\n{text_of(file)}```" in (DOCS.parent / page).read_text()


def test_every_text_is_used() -> None:
    assert {file for _, file in USED} == {file.name for file in FOLDER.iterdir()}


@pytest.mark.parametrize("access", ["https://10.0.0.7:4103", "http://127.0.0.1:9003"])
def test_no_address_of_the_documents_is_left(access: str) -> None:
    kinds = snippets_for(7, 1884, "http://gateway:4002", access, secret="mbs_new")
    texts = [snippet.text for kind in kinds for snippet in kind.snippets]
    for text in texts:
        for foreign in ("mooring.example.com", ":4003", "_port 4003", "$GATEWAY", "mbs_…", "s/1 "):
            assert foreign not in text
    asking = [text for text in texts if "mbs_new" in text]
    assert len(asking) == 6
    for text in asking:
        host, _, port = access.partition("://")[2].partition(":")
        assert access in text or (f"_host {host}\n" in text and f"_port {port}\n" in text)
        assert ("ssl {" in text) <= access.startswith("https")
    assert "with_tls true" in "".join(texts) or access.startswith("http:")
    assert any("listener 1884\n" in text for text in texts)


def test_the_documents_are_true_of_their_own_addresses() -> None:
    """With the values of the documents a text with TLS stays as it is."""
    for file in ("emqx_asking.conf", "emqx_online.conf", "vernemq_asking.conf"):
        same = adapted(text_of(file), 1, 8883, "$GATEWAY_URL", DOCUMENTED, "")
        assert same == text_of(file)
