"""CloudEvents 1.0 as headers and as a document: round trips, the rules of percent-encoding, what is refused, and why."""

from __future__ import annotations

import base64
import json
import string

import pytest
from cloudevents.core.bindings import http as official
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as OfficialEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bus import cloudevents
from bus.cloudevents import BATCH, STRUCTURED, CloudEvent, Malformed
from bus.retry import told

LEAST = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "com.example.sold"}

characters = st.characters(exclude_categories=("Cc", "Cs", "Cn"))
texts = st.text(characters, min_size=1, max_size=30)
sources = st.text(string.ascii_letters + string.digits + "-._~:/?#@!$&'()*+,;=%", min_size=1, max_size=30)
moments = st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()).filter(cloudevents._is_moment)
names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20).filter(
    lambda name: name not in {*cloudevents._CORE, "data", "data_base64"}
)
numbers = st.integers(-(2**53), 2**53)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8
)
json_events = st.builds(
    lambda required, optional, more, data: CloudEvent({**more, **optional, **required}, json.dumps(data).encode()),
    st.fixed_dictionaries({"id": texts, "source": sources, "type": texts}),
    st.fixed_dictionaries(
        {},
        optional={
            "subject": texts,
            "time": moments,
            "datacontenttype": st.sampled_from(["application/json", "application/vnd.x+json; charset=utf-8"]),
        },
    ),
    st.dictionaries(names, texts, max_size=3),
    st.dictionaries(texts, values, max_size=4),
)
any_events = json_events | st.builds(
    lambda event, media, data: CloudEvent({**event.attributes, "datacontenttype": media}, data),
    json_events,
    st.sampled_from(["text/plain", "application/octet-stream"]),
    st.binary(max_size=40),
)


@given(any_events)
def test_an_event_in_headers_is_the_same_when_read_again(event):
    assert cloudevents.read(cloudevents.binary(event), event.data) == event


@given(any_events)
def test_an_event_in_a_document_is_the_same_when_read_again(event):
    body = json.dumps(cloudevents.structured(event)).encode()
    again = cloudevents.read({"Content-Type": f"{STRUCTURED}; charset=UTF-8"}, body)
    assert again.attributes == event.attributes
    if event.is_json:
        assert json.loads(again.data) == json.loads(event.data)
    else:
        assert again.data == event.data


@given(texts)
def test_a_header_has_visible_ascii_only_and_none_of_three_characters(text):
    encoded = cloudevents.encoded(text)
    assert all("!" <= char <= "~" and char != '"' for char in encoded)
    assert cloudevents.decoded("subject", encoded) == text


@given(st.text(max_size=40))
def test_any_text_as_a_header_is_a_value_or_malformed(text):
    headers = {f"ce-{name}": value for name, value in LEAST.items()} | {"ce-subject": text}
    try:
        event = cloudevents.read(headers, b"")
    except Malformed:
        return
    assert cloudevents.read(cloudevents.binary(event), b"") == event


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_as_a_document_are_an_event_or_malformed(body):
    try:
        event = cloudevents.read({"content-type": STRUCTURED}, body)
    except Malformed:
        return
    assert event.attributes["id"]


@given(any_events)
def test_the_official_package_reads_what_we_write_as_headers(event):
    """Its HTTP binding: the same headers but for the content type, which has a header of its own there."""
    headers = cloudevents.binary(event)
    if media := headers.pop("ce-datacontenttype", None):
        headers["Content-Type"] = cloudevents.decoded("datacontenttype", media)
    found = official.from_binary(official.HTTPMessage(headers, event.data), JSONFormat(), OfficialEvent).get_attributes()
    for name in set(event.attributes) - {"time"}:
        assert found[name] == event.attributes[name]


@given(json_events)
def test_the_official_package_and_we_read_each_others_documents(event):
    theirs = JSONFormat().read(OfficialEvent, json.dumps(cloudevents.structured(event)))
    assert theirs.get_data() == json.loads(event.data)
    ours = cloudevents.read({"Content-Type": STRUCTURED}, JSONFormat().write(theirs))
    for name in set(event.attributes) - {"time"}:
        assert ours.attributes[name] == event.attributes[name]
    assert json.loads(ours.data) == json.loads(event.data)


@given(json_events)
def test_we_read_the_headers_that_the_official_package_writes(event):
    """It percent-encodes more than is asked for, which is to be taken."""
    theirs = JSONFormat().read(OfficialEvent, json.dumps(cloudevents.structured(event)))
    message = official.to_binary(theirs, JSONFormat())
    ours = cloudevents.read({k: v for k, v in message.headers.items() if k.lower() != "content-type"}, message.body)
    for name in set(event.attributes) - {"time", "datacontenttype"}:
        assert ours.attributes[name] == event.attributes[name]
    assert json.loads(ours.data) == json.loads(event.data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € \U0001f600"),  # the specification's example
        ("Euro%20%e2%82%ac", "Euro €"),
        ("%41%42", "AB"),
        ("%2541", "%41"),
        ('"a \\"b\\" c"', 'a "b" c'),
        ('  "Euro%20x"  ', "Euro x"),
        ("100%", "100%"),
        ("plain", "plain"),
        ("\u20ac", "\u20ac"),
    ],
)
def test_a_header_is_unquoted_and_then_percent_decoded_once(text, value):
    assert cloudevents.decoded("subject", text) == value


def test_the_examples_of_the_specification_are_encoded_as_it_says():
    assert cloudevents.encoded("Euro € \U0001f600") == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert cloudevents.encoded('a"b%c\x7f') == "a%22b%25c%7F"


@pytest.mark.parametrize(
    ("change", "attribute"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": None}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": None}, "id"),
        ({"source": None}, "source"),
        ({"source": "a b"}, "source"),
        ({"type": ""}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-02-30T00:00:00Z"}, "time"),
        ({"time": "2026-02-03 00:00:00Z"}, "time"),
        ({"dataschema": "relative"}, "dataschema"),
        ({"datacontenttype": "json"}, "datacontenttype"),
        ({"subject": ""}, "subject"),
        ({"more_": "x"}, "more_"),
        ({"more": "a\nb"}, "more"),
        ({"more": "\ufdd0"}, "more"),
        ({"more": "\U0001ffff"}, "more"),
    ],
)
def test_what_breaks_the_specification_is_malformed_and_says_where(change, attribute):
    attributes = {name: value for name, value in {**LEAST, **change}.items() if value is not None}
    headers = {f"ce-{name}": cloudevents.encoded(value) for name, value in attributes.items()}
    with pytest.raises(Malformed) as in_headers:
        cloudevents.read(headers, b"{}")
    with pytest.raises(Malformed) as in_document:
        cloudevents.read({"Content-Type": STRUCTURED}, json.dumps(attributes).encode())
    assert in_headers.value.attribute == in_document.value.attribute == attribute


@pytest.mark.parametrize("text", ["%C0%A0", "%FF", "%ED%A0%80", "\ud800"])
def test_what_is_no_utf_8_is_refused(text):
    with pytest.raises(Malformed, match="UTF-8"):
        cloudevents.decoded("subject", text)


def test_an_attribute_that_is_there_twice_is_malformed():
    with pytest.raises(Malformed, match="twice"):
        cloudevents.read({"ce-id": "1", "Ce-Id": "2"}, b"")


@pytest.mark.parametrize(
    ("document", "attribute"),
    [
        (b"{", "data"),
        (b"[]", "data"),
        (b'{"specversion": NaN}', "data"),
        (json.dumps({**LEAST, "id": 5}).encode(), "id"),
        (json.dumps({**LEAST, "more": 1.5}).encode(), "more"),
        (json.dumps({**LEAST, "more": 2**31}).encode(), "more"),
        (json.dumps({**LEAST, "more": {}}).encode(), "more"),
        (json.dumps({**LEAST, "data": 1, "data_base64": "MQ=="}).encode(), "data"),
        (json.dumps({**LEAST, "data_base64": "M"}).encode(), "data_base64"),
        (json.dumps({**LEAST, "data_base64": 5}).encode(), "data_base64"),
    ],
)
def test_a_document_that_is_none_is_malformed_and_says_where(document, attribute):
    with pytest.raises(Malformed) as found:
        cloudevents.read({"Content-Type": STRUCTURED}, document)
    assert found.value.attribute == attribute


@pytest.mark.parametrize("media", [BATCH, "application/cloudevents+avro", "application/cloudevents"])
def test_other_formats_and_batches_are_refused_by_name(media):
    with pytest.raises(Malformed, match=media.replace("+", r"\+")):
        cloudevents.read({"Content-Type": media}, b"[]")


def test_extensions_keep_their_value_as_its_canonical_string():
    document = json.dumps({**LEAST, "yes": True, "no": False, "count": -7, "gone": None}).encode()
    attributes = cloudevents.read({"Content-Type": STRUCTURED}, document).attributes
    assert (attributes["yes"], attributes["no"], attributes["count"]) == ("true", "false", "-7")
    assert "gone" not in attributes


@pytest.mark.parametrize("kind", ["Content-Type", "content-type", "CONTENT-TYPE"])
@pytest.mark.parametrize("media", [STRUCTURED, "Application/CloudEvents+JSON; charset=utf-8"])
def test_a_structured_event_is_known_by_its_content_type_however_it_is_written(kind, media):
    assert cloudevents.read({kind: media}, json.dumps(LEAST).encode()).attributes["id"] == "1"


@pytest.mark.parametrize("headers", [{}, {"correlation_id": "x"}, {"Content-Type": "application/json"}, {"cell": "x"}])
def test_a_plain_message_is_no_cloudevent(headers):
    assert cloudevents.read(headers, b"{}") is None
    assert cloudevents.opened(headers, b"{}") == (headers, b"{}")
    assert cloudevents.opened(None, b"x") == ({}, b"x")


def test_a_handler_sees_the_data_and_the_attributes_of_either_form():
    event = CloudEvent({"id": "7", "source": "/shop", "type": "sold", "vxcorrelationid": "conversation-1"}, b'{"n": 1}')
    body = json.dumps(cloudevents.structured(event)).encode()
    for sent, data in ((cloudevents.binary(event), event.data), ({"Content-Type": STRUCTURED}, body)):
        headers, seen = cloudevents.opened({**sent, "vx11-caller": "x"}, data)
        assert json.loads(seen) == {"n": 1}
        assert headers == {**cloudevents.binary(event), "vx11-caller": "x", "correlation_id": "conversation-1"}


def test_a_handler_is_told_of_a_malformed_one_as_of_a_body_that_does_not_fit():
    """`bus.retry` buries that at once, with these words."""
    with pytest.raises(ValidationError) as found:
        cloudevents.opened({"ce-id": "1"}, b"{}")
    assert told(found.value) == "specversion: malformed CloudEvent: it must be 1.0"
    with pytest.raises(ValidationError) as found:
        cloudevents.opened({f"ce-{name}": value for name, value in LEAST.items()} | {"ce-datacontenttype": "text/plain"}, b"x")
    assert told(found.value) == "datacontenttype: malformed CloudEvent: VX11 handles application/json, not text/plain"


def test_bytes_travel_in_a_document_as_base64():
    event = CloudEvent({"id": "1", "source": "s", "type": "t", "datacontenttype": "application/octet-stream"}, b"\xff\x00")
    assert base64.b64decode(cloudevents.structured(event)["data_base64"]) == b"\xff\x00"


@pytest.mark.parametrize(
    ("subject", "source", "kind"),
    [
        ("vx11.events.echo.said", "/vx11/echo", "dev.vx11.echo.said"),
        ("vx11.events.power.active.echo", "/vx11/echo", "dev.vx11.power.active"),
        ("vx11.events.madre.started", "/vx11/madre", "dev.vx11.madre.started"),
    ],
)
def test_an_event_of_ours_is_stamped_and_reads_as_a_cloudevent(subject, source, kind):
    headers = cloudevents.stamped(subject, {"correlation_id": "x"}, "id with spaces")
    event = cloudevents.read(headers, b"{}")
    assert (event.attributes["source"], event.attributes["type"]) == (source, kind)
    assert event.attributes["id"] == "id with spaces"
    assert event.attributes["datacontenttype"] == "application/json"


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        ("vx11.calls.echo.say", {}),
        ("vx11.events.echo.said", {"ce-id": "own"}),
        ("vx11.events.echo.said", {"content-type": STRUCTURED}),
    ],
)
def test_what_is_no_event_or_a_cloudevent_already_is_left_alone(subject, headers):
    assert cloudevents.stamped(subject, dict(headers), "x") == headers
