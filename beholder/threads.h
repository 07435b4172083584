// The threads that Beholder starts: their names, and their place behind the training's. Internal.
#pragma once

namespace beholder {

/// Names the calling thread (15 bytes are kept), and lets the training go first: it does not push another thread off a
/// core when it wakes. For the first line of each thread that Beholder starts; threads started by it inherit this.
void begin_own_thread(const char* name);

/// The same for a thread that serves viewers: where no core is free it also gets a smaller share of one.
void begin_serving_thread(const char* name);

/// CPU time of the calling thread in seconds (not of the process), -1 where the system does not tell.
double thread_cpu_seconds();

}  // namespace beholder
