// The beholder program: one subcommand a file. Exit status: 0; 2 where the input or the command line is wrong, with one
// line on stderr that says what is; 1 where anything else failed (the output cannot be written).

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstring>
#include <iostream>
#include <string>

#include "beholder/settings.h"
#include "tools/render.h"
#include "tools/safetensors.h"
#ifdef BEHOLDER_HAS_VIEW
#include "tools/view.h"
#endif

namespace {

/// A mapped file that someone shortens while it is drawn: the one error that comes as a signal.
void on_bus_error(int) {
  static const char text[] = "beholder: a file became shorter while it was read; try again when it is complete\n";
  const auto written = ::write(STDERR_FILENO, text, sizeof text - 1);
  (void)written;
  ::_exit(2);
}

/// "show_all" as an option: "--show-all".
std::string option_name(const std::string& wire_name) {
  std::string name = "--" + wire_name;
  for (auto& c : name) {
    if (c == '_') c = '-';
  }
  return name;
}

/// Controls that mean nothing without a training, and `values`: a file's tensors are what they are (see --kind).
bool is_for_training_only(const std::string& wire_name) {
  return wire_name == "values" || wire_name == "fps" || wire_name == "paused" || wire_name == "recording";
}

/// One option for each row of the table of controls, so that command line, keys and help cannot disagree.
void add_control_options(CLI::App& app, beholder::Settings& settings) {
  for (const auto& control : beholder::controls()) {
    if (control.type == beholder::Control::Type::Action || is_for_training_only(control.name)) continue;
    std::string name = option_name(control.name);
    if (control.name == "window_size") name = "--window," + name;
    if (control.name == "filter") name = "--tensors," + name;
    const auto set = [&control, &settings, shown = name](const std::string& text) {
      const std::string wrong = control.set(settings, text);
      if (!wrong.empty()) throw CLI::ValidationError(shown.substr(0, shown.find(',')), wrong);
    };
    std::string help = control.help;
    if (control.type == beholder::Control::Type::Switch) {
      // Both can be said; the help shows the one that changes something.
      const bool on = control.get(settings) == "on";
      app.add_flag_callback(
             name, [set] { set("on"); }, help)
          ->group(on ? "" : "Controls");
      app.add_flag_callback(
             "--no-" + name.substr(2), [set] { set("off"); }, "not: " + help)
          ->group(on ? "Controls" : "");
      continue;
    }
    std::string choices;
    for (const auto& choice : control.choices) choices += (choices.empty() ? "" : ", ") + choice;
    if (!choices.empty()) help += ": " + choices;
    const std::string type = control.type == beholder::Control::Type::Number ? "NUMBER" : "TEXT";
    const std::string otherwise = control.get(settings);
    app.add_option_function<std::string>(name, set, help)
        ->type_name(otherwise.empty() ? type : type + " [" + otherwise + "]")
        ->group("Controls");
  }
}

void set_canvas(beholder::Options& options, const std::string& text) {
  int width = 0, height = 0, used = 0;
  const bool good = text.size() < 20 && std::sscanf(text.c_str(), "%dx%d%n", &width, &height, &used) == 2 &&
                    static_cast<size_t>(used) == text.size() && width >= 64 && width <= 8192 && height >= 64 &&
                    height <= 8192;
  if (!good) {
    throw CLI::ValidationError("--canvas", "expected WIDTHxHEIGHT, each 64 to 8192 pixels, as in 1280x720; found '" +
                                               beholder::printable(text, 40) + "'");
  }
  options.canvas_width = width;
  options.canvas_height = height;
}

/// "GLOB=activation".
std::pair<std::string, beholder::Kind> parse_kind(const std::string& text) {
  const auto equals = text.rfind('=');
  std::string known;
  for (const auto& [name, kind] : beholder::kind_names()) {
    if (equals != std::string::npos && equals > 0 && text.substr(equals + 1) == name) {
      return {text.substr(0, equals), kind};
    }
    known += (known.empty() ? "" : ", ") + name;
  }
  throw CLI::ValidationError(
      "--kind", "expected GLOB=KIND with a kind of " + known + "; found '" + beholder::printable(text, 80) + "'");
}

void add_render(CLI::App& app, beholder::RenderRequest& request) {
  auto* command = app.add_subcommand("render", "Draw the tensors of .safetensors files, without a training");
  command->add_option("FILE", request.files, "successive steps: the picture is the last one's")->required();
  command->add_option("-o,--output", request.output, "the picture to write, a .png")->required()->type_name("OUT.png");
  command
      ->add_option_function<std::vector<std::string>>(
          "--kind",
          [&request](const std::vector<std::string>& all) {
            for (const auto& text : all) request.kinds.push_back(parse_kind(text));
          },
          "what tensors are whose names match: linear, embedding, conv, conv_transpose, activation, vector, array, "
          "frame, other; may be repeated, the last that matches counts. Else: rank 2 named *weight is linear, rank 4 "
          "conv")
      ->type_name("'GLOB=KIND'")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      ->add_option_function<std::string>(
          "--canvas", [&request](const std::string& text) { set_canvas(request.options, text); },
          "size of the picture in the fit layout")
      ->type_name("WIDTHxHEIGHT [1280x720]");
  auto* captions = command->add_flag_callback(
      "--captions", [&request] { request.captions = true; },
      "names and numbers in the picture: the default in fit and solo");
  auto* no_captions = command->add_flag_callback(
      "--no-captions", [&request] { request.captions = false; }, "the picture alone: the default in classic");
  add_control_options(*command, request.options.settings);
  command->final_callback([&request, captions, no_captions] {
    const beholder::Settings& settings = request.options.settings;
    if (captions->count() + no_captions->count() == 0) {
      request.captions = settings.layout == beholder::LayoutKind::Fit || !settings.solo.empty();
    }
    const std::string& out = request.output;
    if (out.size() < 5 || out.compare(out.size() - 4, 4, ".png") != 0) {
      throw CLI::ValidationError("--output",
                                 "expected a name that ends in .png; found '" + beholder::printable(out, 80) + "'");
    }
    beholder::render(request);
  });
}

#ifdef BEHOLDER_HAS_VIEW
void add_view(CLI::App& app, beholder::viewer::ViewRequest& request) {
  auto* command = app.add_subcommand("view", "A window on a run while it trains, with keys that change what is shown");
  command->add_option("LOGDIR|URL", request.target,
                      "a log directory of this machine, or the URL that the training prints (for another machine: "
                      "through the ssh tunnel that it prints as well). Without it: the newest live run below ./runs");
  command->add_option("--pid", request.pid, "only the run of this process")->group("");
  command->add_option("--latencies", request.latencies, "for measurements: a file, a line for each picture")->group("");
  command->final_callback([&request] {
    try {
      beholder::viewer::view(request);
    } catch (const std::invalid_argument& error) {
      throw CLI::ValidationError("view", error.what());
    }
  });
}
#endif

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGBUS, on_bus_error);
  CLI::App app("See a neural network's tensors.");
  app.set_version_flag("--version", "beholder " BEHOLDER_VERSION);
  app.require_subcommand(1);
  beholder::RenderRequest request;
  add_render(app, request);
#ifdef BEHOLDER_HAS_VIEW
  beholder::viewer::ViewRequest view_request;
  add_view(app, view_request);
#endif
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    std::cerr << "beholder: " << error.what() << " (see --help)\n";
    return 2;
  } catch (const beholder::TensorFileError& error) {
    std::cerr << "beholder render: " << error.what() << '\n';
    return 2;
  } catch (const std::bad_alloc&) {
    std::cerr << "beholder: out of memory; show less with --tensors GLOB\n";
    return 1;
  } catch (const std::exception& error) {
    // LibTorch's texts go on with a stack trace.
    const std::string text = error.what();
    std::cerr << "beholder: " << beholder::printable(text.substr(0, text.find('\n')), 1000) << '\n';
    return 1;
  }
  return 0;
}
