// The threads that Beholder starts: their names, and their place behind the training's. Internal.
#pragma once

namespace beholder {

/// Names the calling thread (15 bytes are kept), and lets the training go first: it does not push another thread off a
/// core when it wakes, and gets what is left of one (batch class, nice 19). For the first line of each thread that
/// Beholder starts; threads started by it (an encoder's) inherit this.
void begin_own_thread(const char* name);

/// CPU time of the calling thread in seconds (not of the process), -1 where the system does not tell.
double thread_cpu_seconds();
/// Of all threads of the process, those that have ended as well.
double process_cpu_seconds();

}  // namespace beholder
