"""OpenAI batch files."""

from __future__ import annotations

import json

from tests.bulk.sources.reads import Add, bad_of, rows_of, slices_of, whole

from headrace.bulk.sources.formats import source_of
from headrace.bulk.storage.base import Storage


def request(custom_id: object, text: object, url: str = "/v1/embeddings", method: str = "POST") -> bytes:
    body = {"model": "minilm", "input": text}
    return json.dumps({"custom_id": custom_id, "method": method, "url": url, "body": body}).encode() + b"\n"


def test_requests_are_rows_with_their_custom_id_and_text(storage: Storage, add: Add) -> None:
    file = add("a.jsonl", request("a-1", "héllo") + b"\n" + request("a-2", ["one"]), "openai")
    read = rows_of(storage, [file], whole(file), ["input", "custom_id"])
    assert [list(values.items()) for _, _, values in read] == [
        [("input", "héllo"), ("custom_id", "a-1")],
        [("input", "one"), ("custom_id", "a-2")],
    ]
    assert source_of(file.uri, "openai").schema(file, storage).names == ["custom_id", "url", "input"]
    assert [cut.rows for cut in slices_of(storage, file)] == [2]


def test_a_line_that_is_no_such_request_is_one_bad_row_with_the_cause(storage: Storage, add: Add) -> None:
    lines = [
        request("ok", "x"),
        request(5, "x"),
        request("a", ["one", "two"]),
        request("a", [1, 2]),
        request("a", "x", method="GET"),
        request("a", "x", url="/v1/chat/completions"),
        b'{"custom_id":"a"}\n',
        b"{\n",
    ]
    file = add("a.jsonl", b"".join(lines), "openai")
    assert [values["custom_id"] for _, _, values in rows_of(storage, [file], whole(file))] == ["ok"]
    found = bad_of(storage, file)
    assert [(bad.row, bad.line) for bad in found] == [(row, row + 1) for row in range(1, 8)]
    causes = [
        "custom_id",
        "2 texts; write a line for each",
        "$.body.input",
        "'GET'",
        "known are",
        "method",
        "truncated",
    ]
    assert all(cause in bad.message for cause, bad in zip(causes, found, strict=True)), [bad.message for bad in found]
