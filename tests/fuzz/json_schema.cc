// JSON schemas that answers have to follow. The input is a schema.
#include <string>

#include "fuzz/fuzz.h"
#include "message/json.h"
#include "message/json_schema.h"

namespace waystation::fuzz {
namespace {

using message::normal_json_schema;
using message::SchemaUse;

constexpr std::string_view kParam = "schema";

void check(std::string_view schema) {
  const auto exact = normal_json_schema(schema, kParam, SchemaUse::kExact);
  const Status checked = message::check_json_schema(schema, kParam);
  REQUIRE(exact.has_value() == checked.has_value(), schema);
  const auto loose = normal_json_schema(schema, kParam, SchemaUse::kLoose);
  if (!loose) require_sayable(loose.error());
  if (!exact) {
    require_sayable(exact.error());
    REQUIRE(exact.error().message == checked.error().message, checked.error().message);
    REQUIRE(exact.error().code == Code::kInvalidArgument, exact.error().message);
    if (loose) REQUIRE(message::canonical_json(*loose), *loose);
    return;
  }
  REQUIRE(loose, loose.error().message);
  REQUIRE(message::canonical_json(*exact), *exact);
  REQUIRE(message::canonical_json(*loose), *loose);
  // What can be kept is said in a form that can be kept, and doesn't change any more; but for the
  // highest characters, which a grammar names in a way of its own.
  if (exact->find("\\\\U") != std::string::npos) return;
  const auto again = normal_json_schema(*exact, kParam, SchemaUse::kExact);
  REQUIRE(again, again.error().message + "\n" + *exact);
  const auto third = normal_json_schema(*again, kParam, SchemaUse::kExact);
  REQUIRE(third && *third == *again, *again);
}

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  check(Input(data, size).rest());
  return 0;
}
