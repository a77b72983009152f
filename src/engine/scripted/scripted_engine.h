// An engine without a model, for tests and load: every answer is "tok0 tok1 tok2 …", whatever the
// prompt. Token i has the id i and the text "tok<i> " (with the space). Deterministic: a request
// that resumes gives exactly what the undisturbed one would have given. With `embed=N` it makes
// embeddings too; with `tools=1` a request that brings tools gets one call of the first of them.
#pragma once

#include <memory>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/scripted/scripted_options.h"

namespace waystation::engine {

// Token k of an attempt comes interval_ms × k after its start, on the clock's steady time rounded
// up to whole milliseconds, so that requests share steps. With an interval of 0 the whole answer
// comes in one output. Finishes with "stop" after `tokens`, with "length" if the request's
// max_tokens is less. `crash_on` ends the process inside start(). `clock` must outlive the engine.
std::unique_ptr<Engine> make_scripted_engine(ScriptedOptions options, const Clock& clock);

// The exit status of a process that met its crash-on word.
inline constexpr int kScriptedCrashExit = 86;

}  // namespace waystation::engine
