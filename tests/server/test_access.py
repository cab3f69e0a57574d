"""Who gets in, and what nobody gets."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.server.conftest import Running, picture

ROUTES = [
    ("GET", "/v1/health"),
    ("GET", "/v1/models"),
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/0123456789abcdef"),
    ("GET", "/v1/jobs/0123456789abcdef/events"),
    ("POST", "/v1/jobs/0123456789abcdef/cancel"),
    ("GET", "/v1/jobs/0123456789abcdef/files/head.json"),
    ("DELETE", "/v1/jobs/0123456789abcdef"),
    ("POST", "/v1/heads/0123456789abcdef/preview"),
    ("POST", "/v1/shutdown"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
]


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", "Bearer é", "Basic {token}", "{token}"]
)
def test_wrong_token(shared: Running, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.format(token=shared.facts["token"]).encode()}
    for method, path in ROUTES:
        # A fresh client: the shared one would add the token.
        with shared.connect() as client:
            del client.headers["Authorization"]
            reply = client.request(method, path, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "token"), path


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:1", "127.0.0.1", "0.0.0.0", ""]
)
def test_other_host_names(shared: Running, host: str) -> None:
    reply = shared.client.get("/v1/health", headers={"Host": host})
    assert (reply.status_code, reply.json()["error"]["code"]) == (421, "host")


def test_web_pages(shared: Running) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", ""):
        reply = shared.client.get("/v1/health", headers={"Origin": origin})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "origin")
    reply = shared.client.get("/v1/health", headers={"Origin": shared.facts["url"]})
    assert reply.status_code == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_no_way_out_of_the_folder_of_results(shared: Running) -> None:
    id = shared.make()
    shared.ended(id)
    secret = shared.data / "engine.json"
    assert secret.is_file()
    (shared.data / "jobs" / id / "result" / "link.json").symlink_to(secret)
    port = int(shared.facts["url"].rpartition(":")[2])
    names = [
        "../../../engine.json",
        "..%2F..%2F..%2Fengine.json",
        "%2e%2e/%2e%2e/%2e%2e/engine.json",
        "..\\..\\..\\engine.json",
        "..%5C..%5C..%5Cengine.json",
        quote(str(secret)),
        f"/{quote(str(secret))}",
        quote(str(secret), safe=""),
        "../input.jpg",
        "./head.json",
        "link.json",
        "",
        "%00",
        "head.json%00.png",
    ]
    for name in names:
        # http.client sends the path as it is; others tidy it up first.
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        path = f"/v1/jobs/{id}/files/{name}"
        connection.putrequest("GET", path)
        connection.putheader("Authorization", f"Bearer {shared.facts['token']}")
        connection.endheaders()
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        assert reply.status == 404, name
        assert shared.facts["token"].encode() not in body


def test_ids_are_ids(shared: Running) -> None:
    for id in ("..", "..%2F..", "0123456789ABCDEF", "0123456789abcde", "x' OR '1'='1"):
        assert shared.client.get(f"/v1/jobs/{id}").status_code in (404, 422)
        assert shared.client.delete(f"/v1/jobs/{id}").status_code in (404, 405, 422)


def test_errors_have_one_shape(shared: Running) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("PUT", "/v1/jobs", 405),
        ("GET", "/v1/jobs?limit=x", 422),
        ("GET", "/v1/jobs?state=odd", 422),
        ("GET", f"/v1/jobs/{'0' * 16}", 404),
    ):
        reply = shared.client.request(method, path)
        assert reply.status_code == status
        assert set(reply.json()) == {"error"}
        assert set(reply.json()["error"]) == {"code", "message"}
        assert reply.json()["error"]["message"].endswith(".")


def test_interface_is_described(shared: Running) -> None:
    described = shared.client.get("/openapi.json").json()
    assert {
        "/v1/health",
        "/v1/models",
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/{id}/events",
        "/v1/jobs/{id}/cancel",
        "/v1/jobs/{id}/files/{name}",
        "/v1/heads/{id}/preview",
    } <= set(described["paths"])
    body = described["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"kind", "refine", "labels", "variants", "face_box"} <= set(
        body["properties"]["settings"]["properties"]
    )
    assert "$ref" not in str(body)


def test_large_upload_is_refused_while_it_comes_in(shared: Running) -> None:
    big = b"\xff\xd8\xff" + bytes(3 * 2**20)  # the limit of this server is 1 MB
    reply = shared.send(big)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert "1 MB" in reply.json()["error"]["message"]

    start = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    pieces = [start, *[bytes(2**16)] * 48]  # sent in chunks, so that no length is declared
    reply = shared.client.post(
        "/v1/jobs", content=iter(pieces), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert shared.send(picture()).status_code == 202


def test_nothing_of_a_refused_upload_stays(shared: Running) -> None:
    before = set((shared.data / "jobs").iterdir())
    assert shared.send(b"no picture").status_code == 415
    assert set((shared.data / "jobs").iterdir()) == before
    assert not list(Path(shared.data).glob("*.part"))
