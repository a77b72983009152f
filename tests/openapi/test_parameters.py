"""docs/openai.md says of every parameter that OpenAI describes what becomes of it here. (That the
parsers do what it says is tried in src/message/parameters_test.cc.)"""

import re

import pytest

import description as descriptions

PAGE = descriptions.ROOT / "docs" / "openai.md"
SCHEMAS = {
    "chat": "CreateChatCompletionRequest",
    "completions": "CreateCompletionRequest",
    "embeddings": "CreateEmbeddingRequest",
}
WORDS = {"honoured", "kept", "ignored", "refused"}


def table():
    """{api: {parameter: word}} of the table with a column for each of the three APIs."""
    columns, found = None, {api: {} for api in SCHEMAS}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            columns = None
        elif cells[:4] == ["parameter", *SCHEMAS]:
            columns = cells[1:4]
        elif columns and (name := re.fullmatch(r"`(\w+)`", cells[0])):
            for api, word in zip(columns, cells[1:4]):
                found[api][name[1]] = word
    return found


def properties(schemas, name):
    schema = schemas[name]
    names = set(schema.get("properties", {}))
    for part in schema.get("allOf", []):
        if "$ref" in part:
            names |= properties(schemas, part["$ref"].rsplit("/", 1)[1])
        names |= set(part.get("properties", {}))
    return names


@pytest.mark.parametrize("api", SCHEMAS)
def test_every_parameter_is_in_the_table(api):
    if not descriptions.PATH.exists():
        pytest.skip(f"OpenAI's description is not at {descriptions.PATH}")
    schemas = descriptions.json.loads(descriptions.PATH.read_text())["components"]["schemas"]
    wanted = properties(schemas, SCHEMAS[api])
    assert wanted, "the description has another form now"
    said = table()[api]
    assert {name for name in wanted if said.get(name) not in WORDS} == set()
