import json
import os
import traceback
import urllib.parse

import pytest
from raw_exchange import open_descriptors

from worker.credentials import LIMIT_BYTES, SecretMissing, masked, resolve
from worker.spec import Secret

KEY = "s3cr3t-k3y"


@pytest.fixture
def key_file(tmp_path):
    def write(raw):
        path = tmp_path / "key"
        path.write_bytes(raw)
        return Secret("file", str(path))

    return write


def refusal(secret):
    with pytest.raises(SecretMissing) as caught:
        resolve(secret)
    text = "".join(traceback.format_exception(caught.value))
    assert KEY not in text
    return str(caught.value)


def test_a_variable_is_taken_as_it_is(monkeypatch):
    monkeypatch.setenv("FEEDWARDEN_TEST_KEY", f" {KEY} ")
    assert resolve(Secret("env", "FEEDWARDEN_TEST_KEY")) == f" {KEY} "


def test_a_missing_or_empty_variable_names_the_variable_and_the_mend(monkeypatch):
    monkeypatch.delenv("FEEDWARDEN_TEST_KEY", raising=False)
    secret = Secret("env", "FEEDWARDEN_TEST_KEY")
    assert refusal(secret) == (
        "env:FEEDWARDEN_TEST_KEY: is not set; set the environment variable FEEDWARDEN_TEST_KEY"
    )
    monkeypatch.setenv("FEEDWARDEN_TEST_KEY", "")
    assert "is empty" in refusal(secret)


def test_a_variable_that_is_no_utf_8_is_refused(monkeypatch):
    monkeypatch.setitem(os.environb, b"FEEDWARDEN_TEST_KEY", KEY.encode() + b"\xff")
    assert "is no UTF-8" in refusal(Secret("env", "FEEDWARDEN_TEST_KEY"))


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n", b"\nsecond line\n", b"\n\n"])
def test_of_a_file_the_first_line_counts(key_file, tail):
    assert resolve(key_file(KEY.encode() + tail)) == KEY


def test_a_file_is_read_anew_each_time(key_file):
    secret = key_file(b"old\n")
    assert resolve(secret) == "old"
    key_file(b"new\n")
    assert resolve(secret) == "new"


def test_spaces_and_letters_beyond_ascii_are_kept(key_file):
    assert resolve(key_file(" pä ss\t\n".encode())) == " pä ss\t"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_of_64_kib_passes_and_one_byte_more_does_not(key_file, end):
    assert resolve(key_file(b"k" * LIMIT_BYTES + end)) == "k" * LIMIT_BYTES
    assert f"more than {LIMIT_BYTES} bytes" in refusal(key_file(b"k" * (LIMIT_BYTES + 1) + end))


def test_a_long_second_line_does_not_matter(key_file):
    assert resolve(key_file(KEY.encode() + b"\n" + b"x" * 2 * LIMIT_BYTES)) == KEY


@pytest.mark.parametrize("raw", [b"", b"\n", b"\r\n", b"\n" + KEY.encode()])
def test_an_empty_first_line_is_refused(key_file, raw):
    assert "first line is empty" in refusal(key_file(raw))


def test_bytes_that_are_no_utf_8_are_refused_and_not_quoted(key_file):
    assert "no UTF-8" in refusal(key_file(KEY.encode() + b"\xff"))


@pytest.mark.timeout(10)
def test_a_missing_file_a_directory_a_fifo_and_a_nul_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    before = open_descriptors()
    assert "No such file" in refusal(Secret("file", str(tmp_path / "absent")))
    assert "no regular file" in refusal(Secret("file", str(tmp_path)))
    assert "no regular file" in refusal(Secret("file", str(tmp_path / "fifo")))
    assert "is no path" in refusal(Secret("file", "a\0b"))
    assert open_descriptors() == before


def test_a_symbolic_link_is_followed_as_orchestrators_lay_them_out(key_file, tmp_path):
    key_file(KEY.encode())
    (tmp_path / "link").symlink_to(tmp_path / "key")
    assert resolve(Secret("file", str(tmp_path / "link"))) == KEY


def test_a_credential_is_a_file_in_the_directory_that_systemd_names(monkeypatch, tmp_path):
    (tmp_path / "api-key").write_text(KEY + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert resolve(Secret("credential", "api-key")) == KEY
    assert "LoadCredential=other:" in refusal(Secret("credential", "other"))


@pytest.mark.parametrize("name", ["../key", "/etc/hostname", "a/b", "", ".", ".."])
def test_a_credential_cannot_lead_out_of_its_directory(monkeypatch, tmp_path, name):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert "is no name of a credential" in refusal(Secret("credential", name))


def test_without_systemd_a_credential_says_so(monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "CREDENTIALS_DIRECTORY is not set" in refusal(Secret("credential", "api-key"))


def test_what_is_printed_of_a_secret_is_its_reference(key_file):
    secret = key_file(KEY.encode())
    resolve(secret)
    assert repr(secret) == f"Secret(file:{secret.value})"
    assert KEY not in f"{secret} {secret!r}"


@pytest.mark.parametrize(
    "quoting",
    [
        str,
        repr,
        json.dumps,
        urllib.parse.quote,
        urllib.parse.quote_plus,
        lambda value: urllib.parse.quote(value, safe=""),
    ],
)
def test_what_quotes_a_secret_is_told_without_it(quoting):
    secret = 'a/b+c "d"\\ é&'
    text = f"GET https://x/?key={quoting(secret)} failed"
    said = masked(text, [secret, "a/b+c", "", "GET"])
    assert "***" in said
    assert quoting(secret) not in said
    assert said.startswith("GET https://x/?key="), "too short to be a secret"


def test_of_two_secrets_the_longer_one_leaves_nothing_behind():
    assert masked("abcdefgh abcd", ["abcd", "abcdefgh"]) == "*** ***"
