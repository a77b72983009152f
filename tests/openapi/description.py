"""Reads values against OpenAI's own description of its API.

The description isn't part of this project: it is looked for beside it (../shared/specs/), or where
WAYSTATION_OPENAPI says. An OpenAPI schema is nearly a JSON schema; `as_json_schema` says what has
to be rewritten. Where the description is stricter than the API it describes, DEVIATIONS lists it.
"""

import dataclasses
import json
import os
import pathlib
import re

import jsonschema
import referencing
import referencing.jsonschema

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH = pathlib.Path(os.environ.get("WAYSTATION_OPENAPI")
                    or ROOT.parent / "shared" / "specs" / "openai-openapi.json")
URI = "urn:openai-description"
COMPONENTS = "#/components/schemas/"


@dataclasses.dataclass(frozen=True)
class Deviation:
    """Where a value may differ from the description, and why. `path` is a regular expression for
    the end of the place's path."""
    schemas: tuple
    path: str
    reason: str
    kind: type = type(None)  # what is let through there


DEVIATIONS = [
    Deviation(("Batch", "ListBatchesResponse"), r"(_at|_file_id|errors|metadata|model|usage)$",
              "the description's own example has null for what a batch doesn't have yet"),
    Deviation(("CreateCompletionResponse",), r"choices\[\d+\]\.finish_reason$",
              "one schema for whole answers and chunks; its example of a chunk has null"),
    Deviation(("CreateCompletionResponse",), r"usage$",
              "as in chat streams, chunks before the last have null with include_usage"),
    Deviation(("CreateCompletionResponse",), r"logprobs\.(token_logprobs|top_logprobs)\[\d+\]$",
              "the first token of an echoed prompt has nothing before it: null"),
    Deviation(("CreateCompletionResponse",), r"logprobs\.top_logprobs$",
              "null when `logprobs` is 0"),
    Deviation(("Response", "ResponseStreamEvent"), r"(^|\.)usage$",
              "the description's own examples have null until the response has ended"),
    Deviation(("Response", "ResponseStreamEvent"), r"(^|\.)user$",
              "the description's own examples have null when none was given"),
    Deviation(("CreateEmbeddingResponse",), r"^data\[\d+\]\.embedding$",
              "with `encoding_format: base64` it is a string; the description has only numbers",
              str),
    Deviation(("ListFilesResponse", "ListBatchesResponse", "ResponseItemList",
               "ConversationItemList"), r"^(first_id|last_id)$", "an empty list has neither"),
]

# Fields that we add to OpenAI's. Anything else that the description doesn't have is a mistake.
EXTENSIONS = [
    (r"^(Create)?Chat", r"(message|delta)\.reasoning_content$",
     "what most reasoning servers and clients use for a model's thinking"),
    (r".*", r"^sequence_number$", "on resumable streams (X-Resumable, Idempotency-Key)"),
    (r"^Model$|^ListModelsResponse$",
     r"(^|\]\.)(context_length|embedding_length|engine|fingerprint|tasks|workers)$",
     "what a model can do, and who runs it"),
    (r"^ResponseStreamEvent$", r"(^|\.)(logprobs|top_logprobs)\[\d+\]\.bytes$",
     "the schema of whole responses has it, that of events doesn't"),
    (r"^Response", r"(^|\.)store$", "in every example of a response, but not in its schema"),
]


def as_json_schema(node, in_properties=False):
    """The same schema in JSON Schema's words:
    - `nullable: true` (OpenAPI 3.0) becomes a choice with null;
    - `oneOf` becomes `anyOf`: OpenAPI's readers choose by the discriminator, they don't count;
    - what only concerns documentation and generators is dropped."""
    if isinstance(node, list):
        return [as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    if in_properties:
        return {name: as_json_schema(schema) for name, schema in node.items()}
    made = {}
    for key, value in node.items():
        if key in ("properties", "patternProperties"):
            made[key] = as_json_schema(value, in_properties=True)
        elif key == "oneOf":
            made["anyOf"] = as_json_schema(value)
        elif key in ("discriminator", "nullable", "example", "examples", "default", "description",
                     "title", "format", "deprecated", "$recursiveAnchor") or key.startswith("x-"):
            continue
        elif key == "$recursiveRef":
            return {}
        elif key in ("enum", "const", "required"):
            made[key] = value
        else:
            made[key] = as_json_schema(value)
    return {"anyOf": [made, {"type": "null"}]} if node.get("nullable") is True else made


class Description:
    def __init__(self, document):
        self.paths = document["paths"]
        self.raw = document["components"]["schemas"]
        self.schemas = {name: as_json_schema(schema) for name, schema in self.raw.items()}
        resource = referencing.Resource.from_contents(
            {"components": {"schemas": self.schemas}},
            default_specification=referencing.jsonschema.DRAFT202012)
        self.registry = referencing.Registry().with_resource(URI, resource)
        self.validator = jsonschema.validators.extend(
            jsonschema.Draft202012Validator, {"anyOf": self._any_of})

    # -- validity

    def problems(self, name, value):
        """What is wrong with a value of the named schema, one line each."""
        validator = self.validator({"$ref": f"{URI}{COMPONENTS}{name}"}, registry=self.registry)
        found = []
        for error in validator.iter_errors(value):
            place = path_of(error.absolute_path)
            if not self._excused(name, place, error):
                found.append(f"{name}: {place or '(the whole)'}: {error.message[:300]}")
        return found + [f"{name}: {place}: no such field in the description"
                        for place in self.invented(name, value)]

    def _excused(self, name, place, error):
        for deviation in DEVIATIONS:
            if name in deviation.schemas and re.search(deviation.path, place) \
                    and isinstance(error.instance, deviation.kind):
                return True
        return False

    def _any_of(self, validator, branches, instance, _schema):
        """As in the library, but when the value's `type` (or `object`, `role`) leaves one branch,
        that branch's own complaints are given, rather than "is not valid under any of"."""
        if isinstance(instance, dict):
            fitting = [branch for branch in branches if self._may_be(branch, instance)]
        else:
            fitting = [branch for branch in branches
                       if self.target(branch).get("type") != "null" or instance is None]
        if len(fitting) == 1:
            yield from validator.descend(instance, fitting[0])
            return
        for branch in fitting:
            if validator.evolve(schema=branch).is_valid(instance):
                return
        yield jsonschema.ValidationError(
            f"{json.dumps(instance)[:200]} is none of the {len(fitting)} that it may be here")

    def target(self, schema):
        while "$ref" in schema:
            schema = self.schemas[schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def _may_be(self, branch, instance):
        schema = self.target(branch)
        if schema.get("type") == "null":
            return False
        for key in ("type", "object", "role"):
            allowed = self.target(schema.get("properties", {}).get(key, {})).get("enum")
            if allowed and key in instance and instance[key] not in allowed:
                return False
        return True

    # -- invented fields

    def invented(self, name, value):
        """Places of fields that the description doesn't know and EXTENSIONS doesn't list."""
        places = self._unknown([{"$ref": COMPONENTS + name}], value, "")
        return [place for place in places
                if not any(re.search(schema, name) and re.search(path, place)
                           for schema, path, _ in EXTENSIONS)]

    def _flat(self, schema):
        """The object and array schemas that a schema may stand for."""
        schema = self.target(schema)
        found = [schema] if {"properties", "items", "additionalProperties"} & set(schema) else []
        for word in ("allOf", "anyOf"):
            for part in schema.get(word, ()):
                found += self._flat(part)
        return found

    def _unknown(self, schemas, value, place):
        flat = [part for schema in schemas for part in self._flat(schema)]
        found = []
        if isinstance(value, list):
            items = [part["items"] for part in flat if "items" in part]
            for number, item in enumerate(value if items else ()):
                found += self._unknown(items, item, f"{place}[{number}]")
        elif isinstance(value, dict):
            flat = [part for part in flat if self._may_be(part, value)]
            if not any("properties" in part for part in flat):
                return []
            free = any(part.get("additionalProperties") not in (None, False) for part in flat)
            for key, inner in value.items():
                inside = f"{place}.{key}".removeprefix(".")
                known = [part["properties"][key] for part in flat
                         if key in part.get("properties", {})]
                if known:
                    found += self._unknown(known, inner, inside)
                elif not free:
                    found.append(inside)
        return found


def path_of(path):
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def load():
    """The description, or None where it is absent."""
    if not PATH.exists():
        return None
    return Description(json.loads(PATH.read_text(encoding="utf-8")))
