"""Random JSON schemas of the kinds that answers can be held to."""

NAMES = ["name", "age", "city", "tags", "kind", "ok", "items", "note", "größe", "a b", "x-1", "$id_"]
WORDS = ["red", "green", "blue", "north", "south", "10", "", "naïve", 'say "hi"', "a\\b", "line\nbreak"]
PATTERNS = ["^[a-z]{2,6}$", r"^\d{3}-\d{4}$", "^(yes|no|maybe)$", "^[A-Z][a-z]*( [A-Z][a-z]*)?$",
            r"^v[0-9]+\.[0-9]+$", "[0-9]{2}", "^.{1,8}$", r"^[^,]{2,5}$", r"^\w+@\w+\.(com|org)$"]
FORMATS = ["date", "time", "date-time", "email", "ipv4", "uuid", "hostname"]


def string(rng):
    kind = rng.randrange(4)
    if kind == 0:
        low = rng.randrange(0, 5)
        return {"type": "string", "minLength": low, "maxLength": low + rng.randrange(0, 12)}
    if kind == 1:
        return {"type": "string", "pattern": rng.choice(PATTERNS)}
    if kind == 2:
        return {"type": "string", "format": rng.choice(FORMATS)}
    return {"type": "string", "maxLength": rng.randrange(1, 20), "description": "a short text"}


def integer(rng):
    kind = rng.randrange(5)
    low = rng.choice([-1000, -25, -1, 0, 1, 7, 10, 18, 100, 1000, 12345])
    if kind == 0:
        return {"type": "integer"}
    if kind == 1:
        return {"type": "integer", "minimum": low}
    if kind == 2:
        return {"type": "integer", "maximum": low}
    if kind == 3:
        return {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": low + rng.randrange(2, 500)}
    return {"type": "integer", "minimum": low, "maximum": low + rng.randrange(0, 5000)}


def enum(rng):
    values = rng.sample(WORDS, rng.randrange(1, 4)) + rng.sample([1, 2.5, None, True, -3], rng.randrange(0, 3))
    return {"const": values[0]} if rng.random() < 0.2 else {"enum": values}


def array(rng, depth):
    if rng.random() < 0.2:
        return {"type": "array", "prefixItems": [schema(rng, depth - 1) for _ in range(rng.randrange(1, 4))]}
    low = rng.randrange(0, 3)
    return {"type": "array", "items": schema(rng, depth - 1), "minItems": low,
            "maxItems": low + rng.randrange(0, 3)}


def members(rng, depth):
    names = rng.sample(NAMES, rng.randrange(1, 5))
    made = {"type": "object", "properties": {name: schema(rng, depth - 1) for name in names},
            "required": [name for name in names if rng.random() < 0.7]}
    if rng.random() < 0.8:
        made["additionalProperties"] = rng.random() < 0.2
    return made


def one_of(rng, depth):
    """Alternatives that a member tells apart."""
    alternatives = []
    for word in ("red", "green", "blue"):
        made = members(rng, depth)
        made["properties"] = {"kind": {"const": word}, **made["properties"], "kind": {"const": word}}
        made["required"] = ["kind", *[name for name in made["required"] if name != "kind"]]
        alternatives.append(made)
    return {"oneOf": alternatives}


def schema(rng, depth):
    if depth <= 0:
        kind = rng.randrange(6)
        return [string, string, integer, enum, lambda r: {"type": "number"},
                lambda r: {"type": rng.choice(["boolean", "null", ["boolean", "null"]])}][kind](rng)
    kind = rng.randrange(10)
    if kind < 5:
        return members(rng, depth)
    if kind < 7:
        return array(rng, depth)
    if kind == 7:
        return {"anyOf": [schema(rng, depth - 1), schema(rng, 0)]}
    if kind == 8 and rng.random() < 0.5:
        return one_of(rng, depth)
    if kind == 8:
        return {"type": "object", "additionalProperties": {"type": "integer"}}
    return schema(rng, 0)


def root(rng):
    """An object at the top, as OpenAI wants it; sometimes with a definition that is used twice, or with itself inside."""
    made = members(rng, 2)
    if rng.random() < 0.3:
        made["$defs"] = {"shared/one": members(rng, 1)}
        for name in ("first", "second"):
            made["properties"][name] = {"$ref": "#/$defs/shared~1one"}
            made["required"].append(name)
    # The whole form once more, in itself. Seldom: a small model rarely finds its way out, and an answer
    # that ends at its length shows nothing.
    if rng.random() < 0.05:
        made["properties"]["inner"] = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
    return made
