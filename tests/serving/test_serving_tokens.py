"""Who may do what: tokens, their end, their renewal without a restart, administrators, addresses, TLS."""

import asyncio
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import orjson
import pytest
import tritonclient.grpc as triton
from running_service import body_of, request, started
from tritonclient.utils import InferenceServerException

from flyweight.errors import InputError
from flyweight.serving.access import PASSED_ON, Access, Origin, check_binding, is_admin, is_loopback
from flyweight.serving.grpc_guard import _origin as grpc_origin
from flyweight.serving.http_guard import guarded
from flyweight.serving.refusal import Refusal
from flyweight.serving.security import Security
from flyweight.serving.tls import check_certificate
from flyweight.serving.tokens import TokenFile, read_tokens

USER, NEWER, ADMIN = "user-" + "u" * 20, "newer-" + "n" * 20, "admin-" + "a" * 20
BODY = orjson.dumps(body_of(request(5)))
INFER = "/v2/models/ranker/infer"
UNLOAD, LOAD = (f"/v2/repository/models/ranker/{verb}" for verb in ("unload", "load"))


def moment(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def words(access: Access, check: str, origin: Origin) -> str:
    with pytest.raises(Refusal) as refused:
        getattr(access, check)(origin)
    return f"{refused.value.status.http} {refused.value}"


def test_token_file_is_read_again_and_a_bad_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyweight.serving.tokens.LOOK_SECONDS", 0)
    path = tmp_path / "tokens"
    path.write_text(f"# of the shop\n{USER} {moment(60)}  # until then\n")
    tokens = TokenFile(path)
    tokens.check(f"Bearer {USER}")
    tokens.check(f"bearer  {USER} ")
    path.write_text(f"{NEWER}\n{USER} {moment(-1)}\n")
    tokens.check(f"Bearer {NEWER}")
    with pytest.raises(Refusal, match=r"The token expired at 20.*; send a newer one"):
        tokens.check(f"Bearer {USER}")
    path.write_text("short\n")
    tokens.check(f"Bearer {NEWER}")
    path.unlink()
    tokens.check(f"Bearer {NEWER}")
    with pytest.raises(Refusal, match="The token is not known here"):
        tokens.check(f"Bearer {ADMIN}")
    with pytest.raises(Refusal, match="seen the scheme 'Basic'"):
        tokens.check("Basic YTpi")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no token"),
        ("# nothing\n", "holds no token"),
        (f"{USER}\nshort\n", "line 2: give TOKEN of 16 letters or more, then EXPIRES or nothing; seen 5 letters"),
        (f"{USER} 2027-13-01", "line 1: '2027-13-01' is no moment"),
        (f"{USER} 2027-01-01 12:00", "seen 3 words"),
        (f"\ufeff{USER}", "line 1: the token holds letters outside of ASCII, which no header can carry"),
        (f"{USER[:-1]}\u00fc", "line 1: the token holds letters outside of ASCII"),
    ],
)
def test_bad_token_file_is_told_without_its_tokens(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tokens").write_text(text, "utf-8")
    with pytest.raises(InputError, match=said) as refused:
        read_tokens(tmp_path / "tokens")
    assert USER not in str(refused.value)


def test_admin_without_tokens_comes_from_this_machine_alone() -> None:
    access = Access(Security())
    here = Origin("127.0.0.1", host="localhost:8000")
    access.check_admin(here)
    access.check_use(Origin("10.0.0.9"))
    assert "403" in words(access, "check_admin", Origin("10.0.0.9", host="10.0.0.1"))
    assert "--admin-token-file" in words(access, "check_admin", Origin("127.0.0.1", forwarded=True, host="localhost"))
    strange = Origin("127.0.0.1", page="https://evil.example", host="localhost:8000")
    assert "A page of 'https://evil.example' may not" in words(access, "check_admin", strange)
    rebound = Origin("127.0.0.1", page="http://evil.example:8000", host="evil.example:8000")
    assert "must be localhost or an address" in words(access, "check_admin", rebound)
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("")
    assert is_admin("/v1/admin/models")


@pytest.mark.parametrize("name", PASSED_ON)
def test_what_a_proxy_passed_on_is_not_from_this_machine(name: str) -> None:
    sent = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def passed(*_: Any) -> None:
        raise AssertionError("it must not pass")

    scope = {"type": "http", "path": UNLOAD, "client": ("127.0.0.1", 5), "headers": [(name.encode(), b"x")]}
    desk: Any = SimpleNamespace(refuse=lambda *_: None)
    asyncio.run(guarded(passed, Access(Security()), desk)(scope, None, send))
    assert sent[0]["status"] == 403
    metadata = grpc_origin({name: "x"}, "ipv4:127.0.0.1:5")
    assert metadata.forwarded
    assert metadata.address == "127.0.0.1"


def test_binding_to_a_network_needs_tokens_or_insecure(tmp_path: Path) -> None:
    assert check_binding("127.0.0.1", Security()) == []
    with pytest.raises(InputError, match=r"--host 0\.0\.0\.0 lets whoever reaches .* Give --token-file, or --insecure"):
        check_binding("0.0.0.0", Security())
    assert "can use the service (--insecure)" in check_binding("0.0.0.0", Security(insecure=True))[0]
    assert "can be read on their way" in check_binding("::", Security(token_file="x"))[0]
    with pytest.raises(InputError, match="--certificate is given without --key"):
        check_binding("localhost", Security(certificate="x"))
    (tmp_path / "c").write_text("none")
    with pytest.raises(InputError, match="are no certificate with its key"):
        check_certificate(str(tmp_path / "c"), str(tmp_path / "c"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this machine and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_guarded_service_over_tls(hoisted: Path, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    users, admins = tmp_path / "users", tmp_path / "admins"
    users.write_text(f"{USER}\n")
    admins.write_text(f"{ADMIN}\n")
    options = ["--drain", "0", "--token-file", users, "--admin-token-file", admins, "--grpc-port", "0"]
    options += ["--certificate", certificate[0], "--key", certificate[1]]
    with started(hoisted, *options) as service:
        trusted = ssl.create_default_context(cafile=str(certificate[0]))
        connection = HTTPSConnection(service.http, timeout=20, context=trusted)

        def ask(method: str, path: str, token: str = "") -> tuple[int, str, str | None]:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            connection.request(method, path, BODY if path == INFER else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.getheader("www-authenticate")

        assert ask("GET", "/v2/health/ready")[0] == 200
        assert ask("GET", "/")[0] == 200
        assert ask("POST", INFER)[::2] == (401, 'Bearer realm="flyweight"')
        for path in ("/v1/status", "/metrics", "/docs", "/openapi.json", "/v2", "/none"):
            assert ask("GET", path)[0] == 401
        document = orjson.loads(ask("GET", "/openapi.json", USER)[1])
        for path, methods in document["paths"].items():
            for method, route in methods.items():
                told = ask(method.upper(), path.replace("{model}", "ranker").replace("{version}", "1"))[0]
                assert str(told) in route["responses"], path
                assert told == (200 if "health" in path else 401)
        assert ask("POST", INFER, USER)[0] == 200
        assert ask("POST", INFER, ADMIN)[0] == 200
        status, words, _ = ask("POST", UNLOAD, USER)
        assert status == 403
        assert "may use the service and not change what is served" in words
        assert ask("POST", UNLOAD)[0] == 401
        assert ask("POST", UNLOAD, ADMIN)[0] == 200
        assert ask("POST", LOAD, ADMIN)[0] == 200
        assert 'kind="unauthorized"' in ask("GET", "/metrics", USER)[1]
        users.write_text(f"{NEWER}\n{USER} {moment(-5)}\n")
        end = time.monotonic() + 10
        while (answer := ask("POST", INFER, USER))[0] == 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert answer[0] == 401
        assert "The token expired at" in answer[1]
        assert ask("POST", INFER, NEWER)[0] == 200
        connection.close()
        check_grpc(service.grpc, certificate[0])
    assert "".join(service.lines).count(USER) == 0


def check_grpc(address: str, certificate: Path) -> None:
    """The same rules with Triton's client over gRPC."""
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    client = triton.InferenceServerClient(address, creds=credentials)

    def as_who(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    assert client.is_server_live()
    with pytest.raises(InferenceServerException, match="A token is needed") as refused:
        client.get_server_metadata()
    assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
    assert client.get_server_metadata(headers=as_who(NEWER)).name == "flyweight"
    with pytest.raises(InferenceServerException, match="The token expired at"):
        client.get_server_metadata(headers=as_who(USER))
    with pytest.raises(InferenceServerException, match="may use the service and not change"):
        client.unload_model("ranker", headers=as_who(NEWER))
    client.unload_model("ranker", headers=as_who(ADMIN))
    client.close()
