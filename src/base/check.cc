#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace waystation {

void check_failed(const char* file, int line, const char* expression) {
  std::fprintf(stderr, "CHECK failed: %s at %s:%d\n", expression, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace waystation
