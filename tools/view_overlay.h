// What the viewer writes over and below the picture, at the window's own scale: status line, help, notes, and what is
// known about the section under the mouse. Draws on plain RGB pixels; the viewer's thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "beholder/callback.h"
#include "beholder/callbacks/text.h"
#include "tools/live_client.h"
#include "tools/view_geometry.h"

namespace beholder::viewer {

/// Values, mode, scaling, FPS, step, what is dropped, whether a film is written; the colours at the right.
void draw_status_line(const TextCanvas& canvas, const WindowLayout& window, const RunView& view);

/// The table of controls with its present values, over the whole window.
void draw_help(const TextCanvas& canvas, const WindowLayout& window, const Settings& settings);

/// A short line on a panel of its own.
struct Note {
  std::string text;
  TextColor color;
};
/// Notes in the middle above the status line, and `hint` at its right.
void draw_notes(const TextCanvas& canvas, const WindowLayout& window, const std::vector<Note>& notes,
                const std::string& hint);
/// What a person should know now: run ended, paused, waiting for the next update, ... (help has a line of its own).
std::vector<Note> notes_of(const RunView& view);

/// A text instead of a picture, in the middle of the window.
void draw_in_place_of_picture(const TextCanvas& canvas, const WindowLayout& window, const std::string& text,
                              const std::string& below);

/// Outlines a section and tells its numbers beside the mouse, which is at (mouse_x, mouse_y) of the window.
void draw_section_info(const TextCanvas& canvas, const WindowLayout& window, const Picture& picture, size_t section,
                       const std::optional<ShownValue>& value, int mouse_x, int mouse_y);

}  // namespace beholder::viewer
