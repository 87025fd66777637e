"""Answers of management APIs: EMQX, RabbitMQ, and the lists of Mosquitto's dynamic security."""

from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from registry_service.admission.reconciler.dynamic_security import Command
from registry_service.admission.reconciler.http_management import (
    EmqxClients,
    RabbitConnection,
    _decoded,
)
from registry_service.admission.reconciler.listings import LISTS, Moved, Reading, read_client
from registry_service.admission.reconciler.mosquitto_client import _read, _require_done
from registry_service.errors import CommandsRefused, ControlUnreadable
from tests.fuzz.given import chosen

TOKEN = "0123456789abcdef"
COMMANDS = [Command("listClients", "listClients", {}), Command("deleteRole", "r", {})]
PAGES = (
    b'{"totalCount":1,"clients":[{"username":"u","textname":"mooring","roles":[{"rolename":"r"}]}]}',
    (
        b'{"totalCount":1,"roles":[{"rolename":"r","acls":[{"acltype":"t","topic":"#","priority":1,'
        b'"allow":true}]}]}'
    ),
    b'{"totalCount":0,"groups":[]}',
)
SEEDS = (
    b'\0{"data":[{"clientid":"a/b"},{"clientid":"\\u00e4"}],"meta":{"count":2}}',
    b'\1[{"name":"127.0.0.1:1 -> 127.0.0.1:2","user":"u"},{"name":""},{}]',
    b'\2{"responses":[{"correlationData":"%b:0","error":"x"},{"correlationData":"%b:1"}]}'
    % (TOKEN.encode(), TOKEN.encode()),
    *(bytes((3 + index,)) + page for index, page in enumerate(PAGES)),
    b'\6{"client":{"username":"u","textname":"mooring","disabled":true,"groups":[]}}',
)
WORDS = (
    *(b'"totalCount":', b'"clients":[', b'"username":', b'"rolename":', b'"priority":-1', b"[]"),
    *(b'"error":"Role not found"', TOKEN.encode(), b"[" * 1_100, b"\\ud800", b"\xed\xa0\x80"),
    *(b"\xef\xbb\xbf", b"1e999", b"99999999999999999999", b"null", b'"groupname":', b'"acls":['),
)


def _emqx(text: bytes) -> None:
    for client in _decoded(_answer(text), EmqxClients).data:
        assert unquote(quote(client.clientid, safe="")) == client.clientid


def _rabbitmq(text: bytes) -> None:
    for connection in _decoded(_answer(text), list[RabbitConnection]):
        quote(connection.name, safe="")


def _answers(text: bytes) -> None:
    with suppress(CommandsRefused):
        _require_done(zip(COMMANDS, _read(text, TOKEN, len(COMMANDS)), strict=True))


def _page(text: bytes, name: str) -> None:
    reading = Reading()
    with suppress(Moved, msgspec.ValidationError):
        reading.take(name, _decoded(_answer(text), object))
        assert name not in [question.name for question in reading.questions()]
        reading.actual()


def _client(text: bytes) -> None:
    with suppress(msgspec.ValidationError):
        assert read_client(_decoded(_answer(text), object)).username is not None


def _answer(text: bytes) -> Any:
    return SimpleNamespace(status_code=200, content=text)


def attempt(data: bytes) -> None:
    which, text = chosen(data, range(7))
    with suppress(ControlUnreadable):
        match which:
            case 0:
                _emqx(text)
            case 1:
                _rabbitmq(text)
            case 2:
                _answers(text)
            case 6:
                _client(text)
            case _:
                _page(text, list(LISTS)[which - 3])
