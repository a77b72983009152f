"""Tools, schemas and prompts that the tests use."""

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather at a place.",
    "parameters": {"type": "object", "additionalProperties": False,
                   "properties": {"place": {"type": "string", "maxLength": 20},
                                  "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
                   "required": ["place", "unit"]}}}
CLOCK = {"type": "function", "function": {
    "name": "get_time", "description": "The time in a zone.",
    "parameters": {"type": "object", "additionalProperties": False,
                   "properties": {"zone": {"type": "string", "enum": ["UTC", "CET", "EST"]}},
                   "required": ["zone"]}}}

PERSON = {"type": "object", "additionalProperties": False,
          "properties": {"name": {"type": "string", "maxLength": 12},
                         "age": {"type": "integer", "minimum": 0, "maximum": 120},
                         "mood": {"type": "string", "enum": ["good", "bad"]},
                         "tags": {"type": "array", "maxItems": 3,
                                  "items": {"type": "string", "maxLength": 8}}},
          "required": ["name", "age", "mood", "tags"]}


def responses_tool(tool):
    """The same tool as the Responses API wants it."""
    return {"type": "function", "strict": True, **tool["function"]}


def user(text="Say hello."):
    return [{"role": "user", "content": text}]
