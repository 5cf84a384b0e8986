"""Reading the header of a GGUF file: what it says, and that nothing it says can do harm."""

from __future__ import annotations

import contextlib
import os
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import gguf
from tests.gguf import header, small, write


def read(folder, data: bytes) -> gguf.Header:
    path = folder / "one.gguf"
    path.write_bytes(data)
    return gguf.read(path)


def test_a_model_says_what_it_is(tmp_path):
    more = {"general.size_label": "15M", "general.languages": ["en", "es"], "general.license": "mit"}
    found = read(tmp_path, header({**small(), **more}))
    assert found == gguf.Header(
        architecture="llama",
        name="Tiny 15M",
        size_label="15M",
        context=512,
        languages=("en", "es"),
        license="mit",
        token_bytes=2 * 4 * 16 * 2 * 2,
    )


def test_the_real_model_says_what_its_publisher_says(weights):
    found = gguf.read(weights)
    assert (found.size_label, found.context, found.languages, found.license) == ("135M", 8_192, ("en",), "apache-2.0")
    assert (found.template, found.tools) == (True, False)
    assert found.token_bytes == 30 * 3 * 64 * 2 * 2


def test_a_size_is_taken_from_the_name_when_the_header_has_none(tmp_path):
    assert read(tmp_path, header(small())).size_label == "15M"
    assert gguf.read(write(tmp_path, "Qwen2.5-1.5B-Instruct-Q4_K_M", general__name="Qwen")).size_label == "1.5B"
    assert gguf.read(write(tmp_path, "Mixtral-8x7b", general__name="")).size_label == "8x7B"
    assert gguf.read(write(tmp_path, "B12-model", general__name="")).size_label == ""


def test_a_template_is_found_behind_the_words_of_the_tokenizer_which_are_not_read(tmp_path):
    """They are most of a header, and a question waits."""

    def data(template: str) -> bytes:
        words = {"tokenizer.ggml.tokens": [f"word{n}" for n in range(5_000)]}
        return header({**small(), **words, **({"tokenizer.chat_template": template} if template else {})})

    for template, told in (("{{ messages }}", (True, False)), ("{% if tools %}", (True, True)), ("", (False, False))):
        found = read(tmp_path, data(template))
        assert (found.template, found.tools) == told
    assert read(tmp_path, data("{{ messages }}")[:400]).context == 512


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is no GGUF file"),
        (b"GG", "is no GGUF file"),
        (b"PK\x03\x04 and so on", "is no GGUF file"),
        (b"GGUF", "is cut off"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "has GGUF version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
        (header({}), "does not say what kind"),
        (header(small(), count=2**60), "entries in its header"),
        (header(small(), count=50), "is cut off"),
        (header(small())[:-2], "is cut off"),
        (header({})[:-8] + struct.pack("<QQ", 1, 2**62) + b"x" * 64, "a text of"),
        (header({}, count=1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 2**50) + bytes(64), "is cut off"),
        (header({}, count=1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 4, 2**61) + b"x" * 64, "is cut off"),
        (header({}, count=1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1) + bytes(64), "a list of type 9"),
        (header({}, count=1) + struct.pack("<Q1sI", 1, b"k", 99), "an entry of type 99"),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(tmp_path, data, told):
    with pytest.raises(gguf.NoModel, match=told):
        read(tmp_path, data)


@given(st.binary(max_size=400), st.integers(0, 200))
def test_no_bytes_can_make_it_fail_otherwise(tmp_path_factory, noise, cut):
    """The file comes from somewhere on the internet."""
    folder = tmp_path_factory.getbasetemp()
    for data in (b"GGUF" + noise, header(small())[:cut] + noise):
        with contextlib.suppress(gguf.NoModel):
            assert read(folder, data).architecture


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    """A pipe has no end until somebody comes: switch would hang."""
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(gguf.NoModel, match="is no file"):
            gguf.read(tmp_path / f"{name}.gguf")


def test_a_header_of_endless_nothing_is_given_up_soon(tmp_path):
    """Texts without a letter cost their eight bytes only, and the file says that it is large."""
    path = tmp_path / "one.gguf"
    path.write_bytes(header({}, count=1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 2**40))
    with path.open("r+b") as file:
        file.truncate(2**40)
    began = time.monotonic()
    with pytest.raises(gguf.NoModel, match="more than 32 MB"):
        gguf.read(path)
    assert time.monotonic() - began < 30
