// Whether this process is a copy that fork() made: threads are not copied, and a lock that one of them held is held for
// ever. Whoever owns threads remembers fork_count() from when it started them. Any thread.
#pragma once

namespace beholder {

/// Is another one in the child of a fork() than in its parent.
int fork_count() noexcept;

}  // namespace beholder
