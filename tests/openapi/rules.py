"""What a schema can't say: how the parts of an answer, and the chunks of a stream, belong together.
Each function gives a list of complaints; an empty list is good. `test_rules.py` plants faults."""

import json
import re

FINISHED = ("stop", "length", "tool_calls", "content_filter")


def json_headers(reply):
    kind = reply.headers.get("content-type", "")
    return [] if re.match(r"application/json\b", kind) else [f"content-type is {kind!r}, not JSON"]


# ---- errors --------------------------------------------------------------------------------------


def error_object(error, where="error"):
    if not isinstance(error, dict):
        return [f"{where} is {error!r}, not an object"]
    bad = [f"{where} has no {name}" for name in ("message", "type", "param", "code")
           if name not in error]
    if not isinstance(error.get("message"), str) or not error.get("message"):
        bad.append(f"{where}.message is {error.get('message')!r}")
    if not isinstance(error.get("type"), str) or not error.get("type"):
        bad.append(f"{where}.type is {error.get('type')!r}")
    for name in ("param", "code"):
        if not isinstance(error.get(name), (str, type(None))):
            bad.append(f"{where}.{name} is {error.get(name)!r}: a string or null")
    return bad


def error_reply(reply):
    """A reply with a status from 400 on."""
    bad = json_headers(reply)
    try:
        body = json.loads(reply.body)
    except ValueError:
        return bad + [f"no JSON: {reply.body[:200]!r}"]
    if not isinstance(body, dict) or list(body) != ["error"]:
        return bad + [f"an error is an object with only `error`, not {str(body)[:200]}"]
    bad += error_object(body["error"])
    if not reply.headers.get("x-request-id") and reply.status >= 500:
        bad.append("no x-request-id to look a server's failure up by")
    return bad


# ---- usage ---------------------------------------------------------------------------------------


def usage(value, *, prompt="prompt_tokens", answer="completion_tokens"):
    if not isinstance(value, dict):
        return [f"usage is {value!r}"]
    total = value.get(prompt, 0) + value.get(answer, 0)
    return [] if value.get("total_tokens") == total else \
        [f"usage: total_tokens {value.get('total_tokens')} is not {total}"]


# ---- tokens' log probabilities -------------------------------------------------------------------


def chat_logprobs(logprobs, text, top):
    """`logprobs` of a whole chat choice whose text is known."""
    if not logprobs or logprobs.get("content") is None:
        return ["no logprobs although they were asked for"]
    bad = []
    joined = b""
    for token in logprobs["content"]:
        if token["logprob"] > 0:
            bad.append(f"logprob {token['logprob']} is above 0")
        if token.get("bytes") is None:
            bad.append(f"{token['token']!r} has no bytes")
        else:
            joined += bytes(token["bytes"])
        alternatives = token["top_logprobs"]
        if len(alternatives) != top:
            bad.append(f"{len(alternatives)} top_logprobs, {top} were asked for")
        if alternatives != sorted(alternatives, key=lambda one: -one["logprob"]):
            bad.append("top_logprobs are not in order")
    if text is not None and joined.decode("utf-8", "replace") != text:
        bad.append(f"the tokens make {joined!r}, the text is {text!r}")
    return bad


def legacy_logprobs(logprobs, text, top):
    if not isinstance(logprobs, dict):
        return [f"logprobs is {logprobs!r}"]
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    bad = [f"logprobs has no {name}" for name in names if name not in logprobs]
    if bad:
        return bad
    count = len(logprobs["tokens"])
    for name in names:
        values = logprobs[name]
        if values is None and name == "top_logprobs" and top == 0:
            continue
        if not isinstance(values, list) or len(values) != count:
            bad.append(f"logprobs.{name} is not a list of {count}")
    if bad:
        return bad
    parts = any(token.startswith("bytes:") for token in logprobs["tokens"])  # of a character
    if text is not None and not parts and "".join(logprobs["tokens"]) != text:
        bad.append(f"the tokens make {''.join(logprobs['tokens'])!r}, the text is {text!r}")
    if logprobs["text_offset"] != sorted(logprobs["text_offset"]):
        bad.append("text_offset goes back")
    for alternatives in logprobs["top_logprobs"] or ():
        if alternatives is not None and len(alternatives) > top + 1:
            bad.append(f"{len(alternatives)} top_logprobs, {top} were asked for")
    return bad


# ---- whole answers -------------------------------------------------------------------------------


def choice_numbers(choices, n):
    numbers = [choice["index"] for choice in choices]
    return [] if numbers == list(range(n)) else [f"choices are numbered {numbers}, not to {n - 1}"]


def tool_calls(calls, tools):
    """Whole calls, against the request's tools."""
    bad = []
    known = {tool["function"]["name"]: tool["function"] for tool in tools}
    if len({call["id"] for call in calls}) != len(calls):
        bad.append("two tool calls have one id")
    for call in calls:
        if call["type"] != "function" or call["function"]["name"] not in known:
            bad.append(f"a call of {call['function']['name']!r}, which is no tool")
            continue
        try:
            arguments = json.loads(call["function"]["arguments"])
        except ValueError as error:
            bad.append(f"arguments {call['function']['arguments']!r}: {error}")
            continue
        if not isinstance(arguments, dict):
            bad.append(f"arguments are {arguments!r}, no object")
    return bad


def chat_answer(answer, request, logprobs=True):
    """A whole answer against its request; `logprobs`: the engine can give them."""
    bad = choice_numbers(answer["choices"], request.get("n") or 1) + usage(answer.get("usage"))
    for choice in answer["choices"]:
        message = choice["message"]
        calls = message.get("tool_calls")
        if calls is not None and not calls:
            bad.append("tool_calls is an empty list")
        if (choice["finish_reason"] == "tool_calls") and not calls:
            bad.append("finish_reason is tool_calls, and there are none")
        if calls and choice["finish_reason"] != "length":
            bad += tool_calls(calls, request.get("tools", ()))
        if not calls and message.get("content") is None and not message.get("reasoning_content"):
            bad.append("a message with neither content nor tool calls")
        if request.get("logprobs") and not logprobs:
            continue
        if request.get("logprobs"):
            # Tokens of a stop string, or of a call that was cut short, are in no text.
            text = None if request.get("tools") or request.get("stop") else message["content"]
            bad += chat_logprobs(choice.get("logprobs"), text, request.get("top_logprobs", 0))
        elif choice.get("logprobs") is not None:
            bad.append("logprobs that nobody asked for")
    return bad


# ---- streams of chat and legacy chunks -----------------------------------------------------------


def raw_stream(stream, events=False):
    """The bytes of a stream: no `id:` lines, no events where the API has none, UTF-8, `data:`."""
    bad = []
    kind = stream.headers.get("content-type", "")
    if not re.match(r"text/event-stream\b", kind):
        bad.append(f"content-type is {kind!r}")
    for line in stream.raw.split(b"\n"):
        field = line.split(b":", 1)[0]
        if field not in (b"data", b"", b"\r") + ((b"event",) if events else ()):
            bad.append(f"a line that breaks clients: {line[:80]!r}")
    try:
        stream.raw.decode("utf-8")
    except UnicodeDecodeError as error:
        bad.append(f"no UTF-8: {error}")
    return bad


def chunks(values, request, how_it_ended="done"):
    """A whole stream of chat or legacy chunks, without what was wrong with single chunks."""
    bad = []
    if not values:
        return ["no chunks"]
    if how_it_ended != "done":
        bad.append(f"the stream ended with {how_it_ended}, not with [DONE]")
    for name in ("id", "created", "model", "object"):
        seen = {json.dumps(value.get(name)) for value in values}
        if len(seen) != 1:
            bad.append(f"{name} changes within the stream: {sorted(seen)[:4]}")
    bad += _chunk_usage(values, (request.get("stream_options") or {}).get("include_usage", False))
    n = request.get("n") or 1
    if isinstance(request.get("prompt"), list) and request["prompt"] \
            and not isinstance(request["prompt"][0], int):
        n *= len(request["prompt"])
    chat = "messages" in request
    for number in range(n):
        parts = [choice for value in values for choice in value["choices"]
                 if choice["index"] == number]
        bad += _one_choice(number, parts, chat)
    strange = {choice["index"] for value in values for choice in value["choices"]} - set(range(n))
    if strange:
        bad.append(f"chunks of choices that nobody asked for: {strange}")
    return bad


def _chunk_usage(values, wanted):
    bad = []
    with_usage = [number for number, value in enumerate(values) if value.get("usage") is not None]
    if wanted and with_usage != [len(values) - 1]:
        bad.append(f"usage is in chunks {with_usage} of {len(values)}, not only in the last")
    elif wanted:
        if values[-1]["choices"] != []:
            bad.append("the chunk with usage has choices")
        bad += usage(values[-1]["usage"])
        if any("usage" not in value for value in values):
            bad.append("a chunk without `usage`: with include_usage each has it, null at first")
    elif with_usage:
        bad.append("usage that nobody asked for")
    if any(value["choices"] == [] for value in values[:len(values) - (1 if wanted else 0)]):
        bad.append("a chunk without choices in the middle")
    return bad


def _one_choice(number, parts, chat):
    name = f"choice {number}"
    if not parts:
        return [f"{name}: no chunks"]
    bad = []
    if any(part["finish_reason"] is not None for part in parts[:-1]):
        bad.append(f"{name}: a finish_reason before its last chunk")
    if parts[-1]["finish_reason"] not in FINISHED:
        bad.append(f"{name}: its last chunk has finish_reason {parts[-1]['finish_reason']!r}")
    if not chat:
        return bad
    if parts[0]["delta"].get("role") != "assistant":
        bad.append(f"{name}: no role in the first delta")
    if any("role" in part["delta"] for part in parts[1:]):
        bad.append(f"{name}: a role after the first delta")
    bad += _call_deltas(name, parts)
    return bad


def _call_deltas(name, parts):
    bad = []
    seen = []
    for part in parts:
        for delta in part["delta"].get("tool_calls") or ():
            index = delta.get("index")
            if not isinstance(index, int):
                bad.append(f"{name}: a tool call's index is {index!r}")
            elif index == len(seen):
                seen.append(index)
                if not delta.get("id") or not delta["function"].get("name") \
                        or delta.get("type") != "function":
                    bad.append(f"{name}: call {index} begins without id, type and name: {delta}")
            elif index not in seen:
                bad.append(f"{name}: call {index} before call {len(seen)}")
            elif delta.get("id") or delta.get("function", {}).get("name"):
                bad.append(f"{name}: call {index} has its id or name twice")
    if parts[-1]["finish_reason"] == "tool_calls" and not seen:
        bad.append(f"{name}: finish_reason is tool_calls, and there are none")
    return bad


def joined(values):
    """The whole choices that a stream of chat chunks makes: text, calls, finish_reason, logprobs."""
    made = {}
    for value in values:
        for choice in value["choices"]:
            whole = made.setdefault(choice["index"], {"content": "", "reasoning": "", "calls": [],
                                                      "finish_reason": None, "logprobs": []})
            delta = choice.get("delta") or {"content": choice.get("text")}
            whole["content"] += delta.get("content") or ""
            whole["reasoning"] += delta.get("reasoning_content") or ""
            whole["finish_reason"] = choice["finish_reason"] or whole["finish_reason"]
            whole["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
            for call in delta.get("tool_calls") or ():
                if call["index"] >= len(whole["calls"]):
                    whole["calls"].append({"id": call.get("id"), "type": call.get("type"),
                                           "function": {"name": call["function"].get("name"),
                                                        "arguments": ""}})
                whole["calls"][call["index"]]["function"]["arguments"] += \
                    call["function"].get("arguments") or ""
    return [made[number] for number in sorted(made)]


# ---- Responses -----------------------------------------------------------------------------------

ENDINGS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
OPENS = ("response.created", "response.queued", "response.in_progress")


def response_events(frames, how_it_ended="eof", first=0):
    """A whole stream of Responses events, given as frames (`event:` line and data)."""
    if not frames:
        return ["no events"]
    bad = []
    values = [frame.json for frame in frames]
    for frame, value in zip(frames, values):
        if frame.event != value["type"]:
            bad.append(f"event: {frame.event!r} carries the type {value['type']!r}")
    numbers = [value.get("sequence_number") for value in values]
    if numbers != list(range(first, first + len(values))):
        bad.append(f"sequence numbers have a gap: {numbers[:12]}…")
    if values[-1]["type"] not in ENDINGS:
        bad.append(f"the last event is {values[-1]['type']}")
    if how_it_ended not in ("eof", "done"):
        bad.append(f"the stream ended with {how_it_ended}")
    if first == 0:
        bad += _responses_order(values)
    return bad


def _responses_order(values):
    types = [value["type"] for value in values]
    bad = []
    if types[0] != "response.created":
        bad.append(f"the first event is {types[0]}")
    if "response.in_progress" not in types[:3]:
        bad.append(f"no response.in_progress at the beginning: {types[:3]}")
    if any(kind in ENDINGS for kind in types[:-1]):
        bad.append("an ending before the end")
    ids = {value["response"]["id"] for value in values if "response" in value}
    if len(ids) != 1:
        bad.append(f"the response's id changes: {ids}")
    created = {value["response"]["created_at"] for value in values if "response" in value}
    if len(created) != 1:
        bad.append(f"created_at changes: {created}")
    items = {}
    for value in values:
        if value["type"] not in OPENS + ENDINGS:
            bad += _item_event(items, value)
    for index, item in items.items():
        if not item["done"]:
            bad.append(f"item {index} has no output_item.done")
    if list(items) != list(range(len(items))):
        bad.append(f"items are numbered {list(items)}")
    output = values[-1]["response"]["output"] if "response" in values[-1] else []
    if [item["done"] for item in items.values()] != output:
        bad.append("the last event's output is not what the items' done events had")
    return bad


def _item_event(items, value):
    """One event of an item: its place in the order added → parts → deltas → done → done."""
    kind, index = value["type"].removeprefix("response."), value.get("output_index")
    if kind == "output_item.added":
        if index in items:
            return [f"item {index} was added twice"]
        items[index] = {"id": value["item"].get("id"), "parts": {}, "arguments": None, "done": None}
        bad = [] if value["item"].get("status") == "in_progress" else \
            [f"an added item has status {value['item'].get('status')!r}"]
        return bad + ([] if value["item"].get("id") else ["an item without an id"])
    item = items.get(index)
    if item is None:
        return [f"{kind} of item {index}, which was not added"]
    if item["done"]:
        return [f"{kind} after item {index} was done"]
    if kind == "output_item.done":
        open_parts = [part for part in item["parts"].values() if part["state"] != "done"]
        item["done"] = value["item"]
        return _done_item(item, value["item"]) + \
            (["an item is done and its part is not"] if open_parts else [])
    if value.get("item_id") != item["id"]:
        return [f"{kind} has item_id {value.get('item_id')!r}, the item's id is {item['id']!r}"]
    if kind.startswith("function_call_arguments."):
        return _arguments_event(item, kind, value)
    return _part_event(item, kind, value)


def _arguments_event(item, kind, value):
    if kind.endswith(".delta"):
        item["arguments"] = (item["arguments"] or "") + value["delta"]
        return []
    if (item["arguments"] or "") != value["arguments"]:
        return [f"arguments.done has {value['arguments']!r}, the deltas made {item['arguments']!r}"]
    item["arguments"] = value["arguments"]
    return []


def _part_event(item, kind, value):
    number = value.get("content_index", value.get("summary_index"))
    if kind.endswith("_part.added"):
        if number in item["parts"]:
            return [f"part {number} was added twice"]
        item["parts"][number] = {"text": "", "state": "open"}
        return []
    part = item["parts"].get(number)
    if part is None:
        if kind.startswith("reasoning_text."):  # these need no part event
            part = item["parts"].setdefault(number, {"text": "", "state": "open"})
        else:
            return [f"{kind} of part {number}, which was not added"]
    if kind.endswith(".delta"):
        part["text"] += value["delta"]
        return [] if part["state"] == "open" else [f"{kind} after its text was done"]
    if kind.endswith("_part.done"):
        part["state"] = "done"
        return [] if value["part"].get("text", value["part"].get("refusal")) == part["text"] else \
            [f"{kind} has another text than the deltas"]
    if kind.endswith(".done"):
        part["state"] = "done" if kind.startswith("reasoning_text.") else "text done"
        return [] if value.get("text", value.get("refusal")) == part["text"] else \
            [f"{kind} has {value.get('text')!r}, the deltas made {part['text']!r}"]
    return []


def _done_item(item, done):
    bad = []
    if done.get("id") != item["id"]:
        bad.append(f"an item's id changes from {item['id']!r} to {done.get('id')!r}")
    if done.get("status", "completed") not in ("completed", "incomplete"):
        bad.append(f"a done item has status {done.get('status')!r}")
    if done["type"] == "function_call" and done["arguments"] != (item["arguments"] or ""):
        bad.append("a done call has other arguments than its deltas")
    if done["type"] == "message":
        texts = [part.get("text", part.get("refusal")) for part in done["content"]]
        if texts != [part["text"] for part in item["parts"].values()]:
            bad.append("a done message has other text than its deltas")
    return bad


def response_object(response):
    """A Response as it is given on its own."""
    bad = []
    status = response["status"]
    if (status == "incomplete") != (response.get("incomplete_details") is not None):
        bad.append(f"status {status} with incomplete_details {response.get('incomplete_details')}")
    if (status == "failed") != (response.get("error") is not None):
        bad.append(f"status {status} with error {response.get('error')}")
    if status in ("completed", "incomplete"):
        value = response.get("usage")
        bad += usage(value, prompt="input_tokens", answer="output_tokens")
        for group, name in (("input_tokens_details", "cached_tokens"),
                            ("output_tokens_details", "reasoning_tokens")):
            if not isinstance((value or {}).get(group, {}).get(name), int):
                bad.append(f"usage.{group}.{name} is not there")
    if "metadata" not in response:
        bad.append("no metadata")
    return bad


# ---- lists ---------------------------------------------------------------------------------------


def page(value):
    bad = []
    if value.get("object") != "list":
        bad.append(f"a list's object is {value.get('object')!r}")
    ids = [item["id"] for item in value["data"]]
    if len(set(ids)) != len(ids):
        bad.append("an item stands twice in a list")
    for name, expected in (("first_id", ids[:1]), ("last_id", ids[-1:])):
        if not ids and value.get(name) in (None, ""):
            continue  # the description wants a string, the API gives null
        if name in value and value[name] != (expected[0] if expected else None):
            bad.append(f"{name} is {value[name]!r}, the list has {expected}")
    return bad
