// Opens a window on the run: starts `beholder view` as a process of its own, because toolkits abort the process whose
// display is missing or dies. Needs a LiveServer in the same Beholder, whose viewer the window is.
#pragma once

#include <memory>
#include <string>

#include "beholder/callback.h"
#include "beholder/thread_safety.h"

namespace beholder {

struct WindowOptions {
  /// The beholder program. Empty: the environment's BEHOLDER_VIEWER, else `beholder` beside this program or library, in
  /// their build tree, or in PATH.
  std::string viewer;
  /// How long it waits for the live server of this run, in seconds.
  double patience_seconds = 20;
};

/// Add it with Beholder::add(), together with a LiveServer:
///
///   beholder.add(std::make_shared<beholder::LiveServer>());
///   beholder.add(std::make_shared<beholder::Window>());
///
/// Multithreading: open() and close() as Callback says; a thread of its own waits for the end of the viewer. It may be
/// opened again after close(), and then starts another viewer.
/// Shutdown: close() ends the viewer (SIGTERM; SIGKILL after two seconds) and leaves no zombie. A training that is
/// killed leaves the window open, with the last picture. Errors: no display, no viewer, one that ends at once: one line
/// in the log, and the training goes on. When the user closes the window nothing is logged. Security: nothing secret is
/// in the viewer's command line; it reads the token from the run's live.json. It inherits the environment, but no file
/// descriptor and no terminal: Ctrl-C ends the training alone.
class Window : public Callback {
 public:
  explicit Window(WindowOptions options = {});
  ~Window() override;

  std::string name() const override { return "window"; }
  /// Nothing: pictures go to the live server.
  Needs needs() const override;
  Overflow overflow() const override { return Overflow::KeepLatest; }
  void open(const Run& run) override;
  void close() override;

  /// Process id of the viewer; 0 before it is started and after its end. Any thread.
  int viewer_pid() const;

 private:
  struct Child;
  std::shared_ptr<Child> now_open() const;

  const WindowOptions options_;
  mutable Mutex mutex_;
  std::shared_ptr<Child> child_ BEHOLDER_GUARDED_BY(mutex_);  // of the last open(); nullptr when it is closed
};

/// Whether the environment names a display where a Window could open (it may still refuse).
bool has_display();

}  // namespace beholder
