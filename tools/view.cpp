#include "tools/view.h"

#include <unistd.h>

#include <csignal>
#include <opencv2/core.hpp>

#include "beholder/callbacks/display.h"
#include "tools/live_client.h"
#include "tools/view_window.h"

namespace beholder::viewer {
namespace {

/// Toolkits that cannot use the display abort the process: said in our words, with an ordinary exit status.
void on_abort(int) {
  static const char text[] = "beholder view: no window could be opened on this display\n";
  const auto written = ::write(STDERR_FILENO, text, sizeof text - 1);
  (void)written;
  ::_exit(1);
}

}  // namespace

void view(const ViewRequest& request) {
  LiveTarget target = parse_live_target(request.target.empty() ? "runs" : request.target);
  target.pid = request.pid;
  const std::string problem = display_problem();
  if (!problem.empty()) {
    throw std::runtime_error(problem + "; open the training's URL in a browser instead (it is in its log)");
  }
  std::signal(SIGPIPE, SIG_IGN);  // a server that goes away while we write to it
  cv::setNumThreads(1);           // the training needs the cores
  const auto abort_before = std::signal(SIGABRT, on_abort);
  LiveClient client(target, !request.latencies.empty());
  ViewWindow window(client, request.latencies);
  std::signal(SIGABRT, abort_before);
  window.run();
}

}  // namespace beholder::viewer
