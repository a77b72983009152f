// Names threads as operators see them in top -H, gdb and perf.
#pragma once

#include <pthread.h>

namespace waystation {

// Of the calling thread; at most 15 characters.
inline void name_this_thread(const char* name) { ::pthread_setname_np(::pthread_self(), name); }

}  // namespace waystation
