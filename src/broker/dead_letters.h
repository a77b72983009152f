// Where the body of a request is that has ended: in the journal, and nowhere else.
#pragma once

#include "base/ids.h"
#include "base/result.h"
#include "journal/journal.h"
#include "message/proto/envelope.pb.h"

namespace waystation::broker {

// The envelope as it was accepted, out of the record at `stored` (ledger::Request::stored_index).
// kGone when that has none: it was carried over by a Waystation that left it out, or was lost with
// damage. Any thread; does disk work.
Result<v1::Envelope> load_body(const journal::Journal& journal, RequestId id, LogIndex stored);

}  // namespace waystation::broker
