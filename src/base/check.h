// CHECK(condition): a broken invariant stops the program. Never for input: that gets a Result.
#pragma once

namespace waystation {
[[noreturn]] void check_failed(const char* file, int line, const char* expression);
}  // namespace waystation

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) [[unlikely]]                                    \
      ::waystation::check_failed(__FILE__, __LINE__, #condition);     \
  } while (false)
