# How our own code is compiled. Nothing here is global to a project that adds Beholder as a subdirectory: settings
# travel with the interface target beholder_build.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo, MinSizeRel" FORCE)
endif()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(PROJECT_IS_TOP_LEVEL)
  find_program(BEHOLDER_CCACHE ccache)
  if(BEHOLDER_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${BEHOLDER_CCACHE}")
    # ccache cannot reuse objects made with a precompiled header unless it may ignore the header's time stamps.
    set(ENV{CCACHE_SLOPPINESS} pch_defines,time_macros)
  endif()
endif()

add_library(beholder_build INTERFACE)
# A release LibTorch was built with NDEBUG, which changes the layout of at::RecordFunction: without it, programs crash
# in strange places. So NDEBUG is defined in every configuration, Debug and sanitizers included.
target_compile_definitions(beholder_build INTERFACE NDEBUG)
# Pixels are specified to the last bit: no fused multiply-add, no reordering.
target_compile_options(beholder_build INTERFACE -ffp-contract=off)
if(BEHOLDER_WARNINGS OR BEHOLDER_WERROR)
  # -Wshadow=local: GCC takes the enumerator Values::Arrays for one that shadows the type Arrays.
  target_compile_options(beholder_build INTERFACE -Wall -Wextra -Wpedantic $<$<CXX_COMPILER_ID:GNU>:-Wshadow=local> -Wnon-virtual-dtor
                         -Woverloaded-virtual)
endif()
if(BEHOLDER_WERROR)
  target_compile_options(beholder_build INTERFACE -Werror)
endif()
if(BEHOLDER_SANITIZE STREQUAL "address")
  target_compile_options(beholder_build INTERFACE -fsanitize=address,undefined -fno-omit-frame-pointer -g1)
  target_link_options(beholder_build INTERFACE -fsanitize=address,undefined)
elseif(BEHOLDER_SANITIZE STREQUAL "thread")
  target_compile_options(beholder_build INTERFACE -fsanitize=thread -fno-omit-frame-pointer -g1)
  target_link_options(beholder_build INTERFACE -fsanitize=thread)
elseif(BEHOLDER_SANITIZE)
  message(FATAL_ERROR "BEHOLDER_SANITIZE is '${BEHOLDER_SANITIZE}'; expected address, thread, or nothing")
endif()
