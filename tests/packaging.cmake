# What a user's build meets: each public header alone, what headers pull in, the README's snippets, an installed copy.

# Headers that are installed. (What else lies in these folders is internal: plan, capture, ...)
include("${PROJECT_SOURCE_DIR}/cmake/PublicHeaders.cmake")

# Each header compiles alone, and twice.
set(_sources)
set(_all "")
foreach(_header IN LISTS BEHOLDER_PUBLIC_HEADERS)
  string(MAKE_C_IDENTIFIER "${_header}" _name)
  set(_source "${CMAKE_CURRENT_BINARY_DIR}/headers/${_name}.cpp")
  file(CONFIGURE OUTPUT "${_source}" CONTENT "#include <${_header}>\n#include <${_header}>\n")
  list(APPEND _sources "${_source}")
  string(APPEND _all "#include <${_header}>\n")
endforeach()
add_library(test_headers OBJECT ${_sources})
target_link_libraries(test_headers PRIVATE beholder::core beholder_build)
if(TARGET beholder_callbacks)
  target_link_libraries(test_headers PRIVATE beholder::callbacks)
endif()

# ... and pulls in no third-party header but torch's.
set(_all_file "${CMAKE_CURRENT_BINARY_DIR}/headers/all_headers.cpp")
file(CONFIGURE OUTPUT "${_all_file}" CONTENT "${_all}")
file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/headers/include_folders.txt"
     CONTENT "$<JOIN:$<TARGET_PROPERTY:test_headers,INCLUDE_DIRECTORIES>,\n>\n" TARGET test_headers)
add_test(NAME headers COMMAND ${CMAKE_COMMAND}
  -D "COMPILER=${CMAKE_CXX_COMPILER}" -D "SOURCE=${_all_file}" -D "TORCH=${TORCH_INSTALL_PREFIX}"
  -D "STANDARD=$<IF:$<VERSION_GREATER_EQUAL:${Torch_VERSION},2.9>,20,17>"
  -D "FOLDERS=${CMAKE_CURRENT_BINARY_DIR}/headers/include_folders.txt"
  -P "${CMAKE_CURRENT_SOURCE_DIR}/headers_test.cmake")

# The README's snippets compile and run.
if(EXISTS "${PROJECT_SOURCE_DIR}/README.md" AND TARGET beholder_callbacks)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/README.md")
  include(readme_snippets.cmake)
  readme_snippets("${PROJECT_SOURCE_DIR}/README.md" "${CMAKE_CURRENT_BINARY_DIR}/readme_snippets.cpp")
  add_executable(test_readme "${CMAKE_CURRENT_BINARY_DIR}/readme_snippets.cpp")
  target_include_directories(test_readme PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
  target_link_libraries(test_readme PRIVATE beholder::core beholder::callbacks beholder_build)
  target_compile_options(test_readme PRIVATE -Wno-unused)  # a snippet may name what it does not use
  file(MAKE_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/readme")
  add_test(NAME readme COMMAND test_readme WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/readme")
endif()

# An installed copy is found by find_package() and used. (A sanitized library would ask its user for the same flags.)
if(NOT BEHOLDER_SANITIZE AND TARGET beholder_callbacks)
  add_test(NAME install COMMAND ${CMAKE_COMMAND}
    -D "BUILD=${PROJECT_BINARY_DIR}" -D "WORK=${CMAKE_CURRENT_BINARY_DIR}/install"
    -D "CONSUMER=${CMAKE_CURRENT_SOURCE_DIR}/install" -D "GENERATOR=${CMAKE_GENERATOR}" -D "TORCH_FOLDER=${Torch_DIR}"
    -P "${CMAKE_CURRENT_SOURCE_DIR}/install_test.cmake")
endif()

# The standard library is asked for its functions before LibTorch (cmake/FindLibTorch.cmake says why).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_test(NAME link_order COMMAND ${CMAKE_COMMAND} -D "PROGRAM=$<TARGET_FILE:test_capture>"
    -P "${CMAKE_CURRENT_SOURCE_DIR}/link_order_test.cmake")
endif()
