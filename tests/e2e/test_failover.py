"""Kill the worker, kill the server: the answer is the one that an undisturbed run gives."""

import os
import threading

import pytest

from harness import MODEL, MODEL_FILE, SLOWNESS, scripted_text, wait_until

pytestmark = pytest.mark.timeout(300 * SLOWNESS)  # a busy machine makes a real model very slow
ANSWER_S = 150
TOKENS = 64
PROMPTS = {
    "english": "Write a short story about a lighthouse keeper.",
    "chinese": "请用中文写一段关于北京的介绍，并翻译成英文。",
    "emoji": "Repeat this line five times: 🌍🚀 你好，世界！👩‍🚀 Привет 🎉",
}


def real(server, prompt, headers=None, **fields):
    fresh = {"cache-control": "no-store", **(headers or {})}  # not the undisturbed answer again
    return server.stream(prompt, headers=fresh, model=MODEL, temperature=0, max_tokens=TOKENS,
                         **fields)


@pytest.fixture(scope="module")
def real_server(shared):
    if not MODEL_FILE.exists():
        pytest.fail(f"{MODEL_FILE} is not there: run 'make models'")
    return shared.start(models=[MODEL_FILE], workers=1)


@pytest.fixture(scope="module")
def undisturbed(real_server):
    """prompt, stop → (text, finish reason, number of chunks) of a run that nobody disturbs."""
    known = {}

    def get(prompt, stop=None):
        if (prompt, stop) not in known:
            stream = real(real_server, prompt, **({"stop": [stop]} if stop else {})).wait_end(ANSWER_S)
            assert stream.status == 200 and stream.how_it_ended == "done", stream.body
            known[prompt, stop] = stream.text, stream.finish_reason, len(stream.frames)
        return known[prompt, stop]

    return get


def late_word(text):
    """A word that comes for the first time in the last part of a text."""
    words = text.split()
    for number in range(len(words) * 3 // 4, len(words)):
        if len(words[number]) > 3 and text.index(words[number]) > len(text) * 0.6:
            return words[number]
    pytest.fail(f"no late word in {text!r}")


def case_of(name, undisturbed):
    """prompt, stop string"""
    if name == "stop string":
        prompt = PROMPTS["english"]
        return prompt, late_word(undisturbed(prompt)[0])
    return PROMPTS[name], None


CASES = [*PROMPTS, "stop string"]


@pytest.mark.parametrize("kill_after", [2, 25])
@pytest.mark.parametrize("name", CASES)
def test_real_model_goes_on_in_the_same_stream_when_its_worker_is_killed(
        real_server, undisturbed, name, kill_after):
    prompt, stop = case_of(name, undisturbed)
    text, finish, frames = undisturbed(prompt, stop)
    real_server.restart()  # workers that died often are started again later and later
    stream = real(real_server, prompt, **({"stop": [stop]} if stop else {}))
    stream.wait_frames(min(kill_after, frames // 2))
    killed = real_server.kill_worker()
    stream.wait_end(ANSWER_S)
    view = real_server.state(stream.request_id)
    assert stream.how_it_ended == "done"
    assert stream.text == text
    assert stream.finish_reason == finish
    assert len(view["attempts"]) >= 2, f"the kill of {killed} came too late to test anything"
    assert view["state"] == "completed"


@pytest.mark.parametrize("name, resumable", [*((name, True) for name in CASES), ("english", False)])
def test_real_model_goes_on_after_the_server_is_killed(real_server, undisturbed, name, resumable):
    prompt, stop = case_of(name, undisturbed)
    text, finish, frames = undisturbed(prompt, stop)
    fields = {"stop": [stop]} if stop else {}
    for _ in range(5):  # this process may be the slower one, and kill an answer that is whole
        stream = real(real_server, prompt, headers={"X-Resumable": "true"} if resumable else {}, **fields)
        stream.wait_frames(min(10, frames // 2))  # a frame may carry several tokens
        real_server.kill()
        stream.wait_end(ANSWER_S)
        real_server.start()
        if stream.how_it_ended == "broken" or not stream.finish_reason:
            break
    else:
        pytest.fail("the kill came too late, five times")
    seen = len(stream.frames)
    if resumable:
        assert stream.numbers == list(range(seen))
    rest = real_server.events(stream.request_id, starting_after=seen - 1).wait_end(ANSWER_S)
    assert rest.status == 200, rest.body
    assert rest.numbers == list(range(seen, seen + len(rest.chunks)))
    assert stream.text + rest.text == text
    assert rest.finish_reason == finish
    assert rest.ending[0] == "completed"
    # And once more from the start, now that it has ended: what was seen is what is kept.
    whole = real_server.events(stream.request_id).wait_end(ANSWER_S)
    assert [frame.data for frame in whole.frames[seen:]] == [frame.data for frame in rest.frames]
    if resumable:
        assert [frame.json for frame in whole.frames[:seen]] == [frame.json for frame in stream.frames]


def test_nonstream_answer_survives_the_death_of_its_worker(servers):
    server = servers.start(scripted="tokens=40,interval-ms=20", workers=1)
    stream = server.stream("watch", headers={"X-Resumable": "true"})
    answers = []
    thread = threading.Thread(target=lambda: answers.append(server.chat("hello")))
    thread.start()
    stream.wait_frames(10)
    server.kill_worker()
    thread.join(60)
    assert answers and answers[0].status == 200, answers
    assert answers[0].text == scripted_text(40)
    assert answers[0].json["usage"]["completion_tokens"] == 40


def test_scripted_stream_is_exactly_the_same_through_many_kills(servers, rng):
    server = servers.start(scripted="tokens=200,interval-ms=10", workers=2)
    stream = server.stream("hello", headers={"X-Resumable": "true"})
    for step in range(1, 6):
        stream.wait_frames(step * 25)
        running = server.wait_workers(2)
        server.kill_worker(rng.choice(running))
    stream.wait_end()
    assert stream.how_it_ended == "done"
    assert stream.text == scripted_text(200)
    assert stream.numbers == list(range(len(stream.frames)))


def test_server_killed_again_and_again_in_one_answer(servers):
    server = servers.start(scripted="tokens=120,interval-ms=10", workers=1)
    stream = server.stream("hello", headers={"X-Resumable": "true"})
    request = stream.request_id
    parts, frames = [], []
    for _ in range(4):
        stream.wait_frames(12)
        server.kill()
        stream.wait_end()
        frames += stream.chunks
        parts.append(stream.text)
        server.start()
        stream = server.events(request, starting_after=frames[-1].number)
    stream.wait_end()
    frames += stream.chunks
    assert "".join(parts) + stream.text == scripted_text(120)
    assert [frame.number for frame in frames] == list(range(len(frames)))
    assert stream.ending[0] == "completed"


def test_workers_end_when_their_server_is_killed(servers):
    server = servers.start(scripted="tokens=1000,interval-ms=20", workers=3)
    server.wait_workers(3)
    server.stream("hello").wait_frames(3)
    server.kill()
    wait_until(lambda: not server.left_over(), "the workers to end with their server", 10)


def test_a_reader_may_join_anywhere_while_it_runs_and_after(servers):
    server = servers.start(scripted="tokens=60,interval-ms=15", workers=1)
    first = server.stream("hello", headers={"X-Resumable": "true"}).wait_frames(20)
    live = server.events(first.request_id, starting_after=4)
    by_id = server.events(first.request_id, headers={"Last-Event-ID": "9"})
    first.wait_end(), live.wait_end(), by_id.wait_end()
    total = len(first.frames)
    assert live.numbers == list(range(5, total))
    assert by_id.numbers == list(range(10, total))
    assert [int(frame.id) for frame in live.frames] == list(range(5, total + 1))
    after = server.events(first.request_id, starting_after=4).wait_end()
    assert [frame.data for frame in after.frames] == [frame.data for frame in live.frames]
    past = server.events(first.request_id, starting_after=total - 1).wait_end()
    assert past.chunks == [] and past.ending[0] == "completed"
    assert first.text == scripted_text(60)


def test_every_worker_is_a_process_of_its_own(servers):
    server = servers.start(scripted="tokens=4,interval-ms=1", workers=3)
    workers = server.wait_workers(3)
    assert os.getpid() not in workers and server.pid not in workers and len(set(workers)) == 3
