# Finds LibTorch and makes the target beholder_torch: its headers as system headers, its libraries, and the C++
# standard that this version asks for. Looks in CMAKE_PREFIX_PATH, then at Debian's package, then at Python's torch.

set(_hint "Install Debian's libtorch-dev, or set CMAKE_PREFIX_PATH to LibTorch's folder (for PyPI's torch: \
`python3 -c 'import torch; print(torch.utils.cmake_prefix_path)'`).")

# The CMake package of a LibTorch with CUDA asks for nvcc and its headers. Beholder needs neither, having no code of its
# own for a GPU: where there is no nvcc, LibTorch's libraries are linked without its package.
set(BEHOLDER_TORCH_DIRECT "" CACHE STRING
  "ON: link LibTorch's libraries without its CMake package; OFF: never; empty: where it has CUDA and there is no nvcc")

# The folder above share/cmake/Torch of the LibTorch that the user names, or nothing.
function(_named_torch out)
  set(_folders)
  if(Torch_DIR)
    list(APPEND _folders "${Torch_DIR}")
  endif()
  string(REPLACE ":" ";" _prefixes "$ENV{CMAKE_PREFIX_PATH}")
  foreach(_prefix IN LISTS CMAKE_PREFIX_PATH _prefixes ARGN)
    list(APPEND _folders "${_prefix}/share/cmake/Torch" "${_prefix}/Torch" "${_prefix}/torch/share/cmake/Torch")
  endforeach()
  set(${out} "" PARENT_SCOPE)
  foreach(_folder IN LISTS _folders)
    get_filename_component(_prefix "${_folder}/../../.." REALPATH)
    if(EXISTS "${_folder}/TorchConfig.cmake" AND EXISTS "${_prefix}/lib/libtorch.so")
      set(${out} "${_prefix}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# Sets what find_package(Torch) would: libraries and headers below `prefix`. A macro: it sets its caller's variables.
macro(_use_torch_directly prefix)
  set(TORCH_INSTALL_PREFIX "${prefix}")
  set(Torch_DIR "${prefix}/share/cmake/Torch")
  set(TORCH_INCLUDE_DIRS "${prefix}/include" "${prefix}/include/torch/csrc/api/include")
  # libtorch.so brings LibTorch's CUDA libraries, although nothing refers to them.
  set(TORCH_LIBRARIES "-Wl,--push-state,--no-as-needed,${prefix}/lib/libtorch.so,--pop-state"
                      "${prefix}/lib/libtorch_cpu.so" "${prefix}/lib/libc10.so")
  set(Torch_VERSION "")
  foreach(_header IN ITEMS headeronly/version.h csrc/api/include/torch/version.h)
    if(NOT Torch_VERSION AND EXISTS "${prefix}/include/torch/${_header}")
      file(STRINGS "${prefix}/include/torch/${_header}" _lines REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
      list(JOIN _lines " " _lines)
      if(_lines MATCHES "MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+)")
        set(Torch_VERSION "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3}")
      endif()
    endif()
  endforeach()
  file(STRINGS "${prefix}/share/cmake/Torch/TorchConfig.cmake" TORCH_CXX_FLAGS REGEX "_GLIBCXX_USE_CXX11_ABI=[01]")
  set(Torch_FOUND TRUE)
  set(BEHOLDER_TORCH_IS_DIRECT ON)
endmacro()

# Uses `prefix` directly where that is asked for, or needed.
macro(_use_torch_directly_if_needed prefix)
  find_program(BEHOLDER_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  mark_as_advanced(BEHOLDER_NVCC)
  if(NOT "${prefix}" STREQUAL "" AND
     (BEHOLDER_TORCH_DIRECT OR ("${BEHOLDER_TORCH_DIRECT}" STREQUAL "" AND EXISTS "${prefix}/lib/libtorch_cuda.so" AND
                                NOT BEHOLDER_NVCC AND NOT CMAKE_CUDA_COMPILER)))
    _use_torch_directly("${prefix}")
  endif()
endmacro()

set(BEHOLDER_TORCH_IS_DIRECT OFF)
if(NOT Torch_FOUND)  # (the project around this one may have found it)
  _named_torch(_torch_prefix)
  _use_torch_directly_if_needed("${_torch_prefix}")
endif()
if(NOT Torch_FOUND)
  if(_torch_prefix)  # its package looks for Caffe2 in ordinary places first: with Torch_DIR alone, another LibTorch's
    list(PREPEND CMAKE_PREFIX_PATH "${_torch_prefix}/share/cmake")
  endif()
  find_package(Torch QUIET)
endif()
if(NOT Torch_FOUND)
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(Python3_FOUND)
    execute_process(COMMAND "${Python3_EXECUTABLE}" -c "import torch; print(torch.utils.cmake_prefix_path)"
                    OUTPUT_VARIABLE _torch_cmake OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(_torch_cmake)
      message(STATUS "LibTorch: Python's torch in ${_torch_cmake}")
      _named_torch(_torch_prefix "${_torch_cmake}")
      _use_torch_directly_if_needed("${_torch_prefix}")
      if(NOT Torch_FOUND)
        find_package(Torch QUIET PATHS "${_torch_cmake}" NO_DEFAULT_PATH)
      endif()
    endif()
  endif()
endif()
if(NOT Torch_FOUND)
  message(FATAL_ERROR "LibTorch was not found. ${_hint}")
endif()
if(BEHOLDER_TORCH_IS_DIRECT)
  message(STATUS "LibTorch ${Torch_VERSION}: ${TORCH_INSTALL_PREFIX}, linked without its CMake package (no nvcc needed)")
else()
  message(STATUS "LibTorch ${Torch_VERSION}: ${TORCH_INSTALL_PREFIX}")
endif()

if(TORCH_CXX_FLAGS MATCHES "_GLIBCXX_USE_CXX11_ABI=0")
  if(BEHOLDER_CALLBACKS OR BEHOLDER_TESTS OR (BEHOLDER_SPDLOG AND NOT SPDLOG_INCLUDE_DIR))
    message(FATAL_ERROR "LibTorch ${Torch_VERSION} uses the old C++ ABI, with which OpenCV and spdlog do not link. "
                        "PyPI's torch 2.7 or newer has the new one; or ${_hint}")
  endif()
  # The core alone can follow it.
  target_compile_definitions(beholder_build INTERFACE _GLIBCXX_USE_CXX11_ABI=0)
endif()

add_library(beholder_torch INTERFACE)
# The libtorch.so of PyPI's torch exports functions of std::filesystem of its own (remove_all() of 2.11 crashes): whoever
# is asked for them first must be the standard library.
set(_standard_library)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(_standard_library stdc++)
endif()
target_link_libraries(beholder_torch INTERFACE ${_standard_library} ${TORCH_LIBRARIES})
target_include_directories(beholder_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
if(Torch_VERSION VERSION_GREATER_EQUAL 2.9)
  target_compile_features(beholder_torch INTERFACE cxx_std_20)
  # GCC 12 sees overflows in `"text" + std::string` with C++20 where there are none (its bugs 105329 and 105651).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(beholder_torch INTERFACE "$<BUILD_INTERFACE:-Wno-restrict;-Wno-stringop-overflow>")
  endif()
else()
  target_compile_features(beholder_torch INTERFACE cxx_std_17)
endif()
if(TORCH_LIBRARIES MATCHES "cuda" OR TARGET torch_cuda OR BEHOLDER_TORCH_IS_DIRECT)
  # The toolkit's NCCL may be older than the one that the wheel was linked with; it is there at run time.
  target_link_options(beholder_torch INTERFACE -Wl,--allow-shlib-undefined)
endif()
