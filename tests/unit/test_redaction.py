"""Redaction: no secret in anything that is kept or shown, and ordinary text as it was."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrelay.redaction import MASK, Redactor, is_secret_name, mask_table, redact

SECRET = "Zx9-hunter2-Qw"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: bearer {}",
        "sent with Bearer {} to the host",
        "Authorization: Basic dXNlcjp7{}",
        "Authorization: Token {}",
        "Proxy-Authorization: Basic {}",
        "X-API-Key: {}",
        "Cookie: session={}; csrftoken={}",
        "Set-Cookie: sessionid={}; HttpOnly",
        "https://user:{}@host/path",
        "redis://:{}@127.0.0.1:6379/0",
        "https://{}@host/path",
        "https://host/api?akid=lab&expires=1700000000&sig={}",
        "https://host/api?uid={}&x=1",
        "https://host/api?akid={}",
        "https://bucket/x?X-Amz-Signature={}&X-Amz-Date=1",
        "https://host/x?access_token={}",
        '{{"api_key": "{}", "name": "x"}}',
        "{{'apiKey': '{}'}}",
        '{{"token":"{}"}}',
        '{{"client_secret": "{}"}}',
        "password={}",
        "PASSWORD: {}",
        "passphrase = {}",
        "LABRELAY_DESTINATIONS__HOOK__TOKEN={}",
        "POST /x\r\nHost: h\r\nAuthorization: Bearer {}\r\nAccept: */*",
        "headers={{'Authorization': 'Bearer {}', 'Accept': '*/*'}}",
        "accessToken: {}",
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    # Given a text as libraries and servers write them, when it is kept, then without the secret
    redacted = redact(text.format(*[SECRET] * text.count("{}")))
    assert SECRET not in redacted
    assert MASK in redacted


@pytest.mark.parametrize(
    "text",
    [
        "/mnt/titan/2026-11-20 session/secret garden.dm3",
        "/data/tokens/author/image.dm3",
        "signal: 3 of 4",
        "signal=HAADF",
        "design: 3",
        "authored by Åsa",
        "author: Åsa Lindqvist",
        "assigned: yes",
        "HTTP 401: token expired",
        "HTTP 403: authentication required (check token and rights)",
        "basic information about the session",
        "token verification failed",
        "bearer authentication failed",
        "2026-11-20T10:00:00+01:00",
        "no answer within 60 s",
        "waits for cdcs",
        "OSError: [Errno 28] No space left on device: '/srv/exports'",
        "session=https://nemo.example.org/api/usage_events/?id=1001 instrument=FEI-Titan-TEM strategy=by route",
        "compass: north, bypass=true",
        "guid: 6f0d4c36-5c5c-5a7e-9d0f-2f6f5b1c7a10",
        "uuid=6f0d4c36-5c5c-5a7e-9d0f-2f6f5b1c7a10",
        "fluid: water",
        "me@example.org wrote https://example.org/a@b",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    # Given a text without a secret, when it is kept, then as it was
    assert redact(text) == text


def test_what_stands_beside_a_secret_can_still_be_read() -> None:
    # Given a signed address, when it is masked, then host and other parts say where the problem is
    redacted = redact(f"GET https://host/api?akid=lab&expires=1700&sig={SECRET}&page=2 failed")
    assert redacted == f"GET https://host/api?akid={MASK}&expires=1700&sig={MASK}&page=2 failed"


def test_known_values_are_masked_wherever_they_stand() -> None:
    # Given secrets from the settings
    clean = Redactor(["p@ss/word", "p@ss/word-longer", "abc"])
    # When they turn up without any name, or spelled for a URL
    assert clean("login p@ss/word-longer, p@ss/word") == f"login {MASK}, {MASK}"
    assert clean("https://host/?q=p%40ss%2Fword") == f"https://host/?q={MASK}"
    # Then they are masked; very short ones would make every text unreadable
    assert clean("abcdef") == "abcdef"


def test_a_text_is_shortened_after_it_was_masked() -> None:
    # Given a long text with a secret at the cut
    text = "x" * 1995 + SECRET + "y" * 100
    # When it is kept, then no part of the secret is left over
    redacted = Redactor([SECRET])(text)
    assert len(redacted) < 2010
    assert SECRET[:4] not in redacted


@given(st.text(max_size=300))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


def test_masking_a_long_text_takes_no_time_to_speak_of() -> None:
    # Given texts on which careless patterns would take minutes, when masked, then the test's time limit is not met
    for text in (
        "a" * 200_000,
        "token" * 40_000,
        "://" * 60_000,
        "-" * 200_000 + "=",
        "sig-" * 50_000,
        '"' * 200_000,
    ):
        redact(text)


def test_settings_are_masked_by_name_however_deep() -> None:
    # Given tables as people write them
    tables = {
        "cdcs": {"url": "https://me:pw@host", "token": "abc", "tags": ["a", {"api_key": "x"}]},
        "hook": {"headers": {"X-Lab": "abc"}, "tls": {"verify": True}},
        "from_environment": {"headers": '{"X-Lab": "abc"}', "url": "https://host/in?lab=7&sig=abc"},
        "author": "Åsa",
    }
    # When they are shown, then without secrets; headers are secret whatever they are called
    assert mask_table(tables) == {
        "cdcs": {"url": f"https://{MASK}@host", "token": MASK, "tags": ["a", {"api_key": MASK}]},
        "hook": {"headers": {"X-Lab": MASK}, "tls": {"verify": True}},
        "from_environment": {"headers": MASK, "url": f"https://host/in?lab=7&sig={MASK}"},
        "author": "Åsa",
    }


_NAMES = (
    "password", "passwd", "api_key", "access-key", "privateKey", "token", "secret", "sig", "pwd", "akid", "uid",
    "user_id", "auth", "authorization", "cookie", "credentials", "signature", "bearer", "basic",
)  # fmt: skip


@given(st.text(alphabet="aehiknorstuwyBKS:=@/._- &'\"1·\u017f", max_size=60), st.sampled_from(_NAMES))
def test_the_short_way_for_plain_lines_hides_no_secret(noise, name):
    # Given any text, with a secret in it or not
    value = "Hidden-1-and-quite-long-value"
    for text in (
        noise,
        f"{noise} {name}={value} {noise}",
        f"{name.upper()} {value}{noise}",
        f"ftp://{value}@{noise}",
    ):
        # Then it reads as after the long way, which a letter that may stand for an ASCII one forces
        assert redact(text) == redact(f"\u0131\n{text}").removeprefix("\u0131\n")


def test_no_letter_beyond_ascii_hides_a_secret_name():
    # Given every letter that a pattern takes for an ASCII one
    letters = [chr(code) for code in range(128, 0x11_0000) if re.fullmatch("[a-z]", chr(code), re.IGNORECASE)]
    # Then a name that is spelled with it is as secret
    assert len(letters) == 4
    for letter in letters:
        plain = next(c for c in "aehiknorstuwy" if re.fullmatch(c, letter, re.IGNORECASE))
        names = [name for name in _NAMES if plain in name and is_secret_name(name)]
        assert names
        for name in names:
            assert "hidden" not in redact(f"· {name.replace(plain, letter, 1)}=hidden1Value ·"), name
