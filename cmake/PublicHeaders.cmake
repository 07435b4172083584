# The headers that a user may include, by the names under which they are included and installed.
set(BEHOLDER_PUBLIC_HEADERS
  beholder/beholder.h
  beholder/callback.h
  beholder/colormaps.h
  beholder/forward_hooks.h
  beholder/layout.h
  beholder/log.h
  beholder/named_tensor.h
  beholder/options.h
  beholder/picture.h
  beholder/section.h
  beholder/settings.h
  beholder/state.h
  beholder/still_renderer.h
  beholder/tap.h
  beholder/thread_safety.h)
if(BEHOLDER_CALLBACKS)
  list(APPEND BEHOLDER_PUBLIC_HEADERS
    beholder/callbacks/captions.h
    beholder/callbacks/film_index.h
    beholder/callbacks/live_server.h
    beholder/callbacks/png_writer.h
    beholder/callbacks/recorder.h
    beholder/callbacks/video_writer.h
    beholder/callbacks/watch.h
    beholder/callbacks/window.h)
endif()
