# Puts files into a library: embed_files(OUTPUT a.cpp HEADER include.h FUNCTION name FILES ...) makes, at build time and
# again whenever a file changes, the source of `std::string_view beholder::name(std::string_view file)`, which returns a
# file's bytes by its name without folders. No tool but CMake: this file is also the script that does it.

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  # -D OUTPUT, HEADER, FUNCTION, FILES (separated by |).
  string(REPLACE "|" ";" FILES "${FILES}")
  set(_arrays "")
  set(_cases "")
  foreach(_file IN LISTS FILES)
    get_filename_component(_name "${_file}" NAME)
    string(MAKE_C_IDENTIFIER "${_name}" _array)
    file(READ "${_file}" _hex HEX)
    # One line for each 32 bytes: compilers are slow with lines of a megabyte.
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," _bytes "${_hex}")
    set(_byte "'.x..',")
    string(REGEX REPLACE "(${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte}${_byte})"
                         "\\1\n    " _bytes "${_bytes}")
    string(APPEND _arrays "const char ${_array}[] = {\n    ${_bytes}'\\0'};\n")
    string(APPEND _cases "  if (file == \"${_name}\") return {${_array}, sizeof ${_array} - 1};\n")
  endforeach()
  file(WRITE "${OUTPUT}.new" "// Made by EmbedFiles.cmake.\n#include \"${HEADER}\"\n\nnamespace beholder {\nnamespace {\n${_arrays}}  // namespace\n\nstd::string_view ${FUNCTION}(std::string_view file) {\n${_cases}  return {};\n}\n\n}  // namespace beholder\n")
  file(RENAME "${OUTPUT}.new" "${OUTPUT}")
  return()
endif()

set(_embed_files_script "${CMAKE_CURRENT_LIST_FILE}")

function(embed_files)
  cmake_parse_arguments(E "" "OUTPUT;HEADER;FUNCTION" "FILES" ${ARGN})
  string(REPLACE ";" "|" _files "${E_FILES}")
  add_custom_command(OUTPUT "${E_OUTPUT}"
    COMMAND ${CMAKE_COMMAND} -D "OUTPUT=${E_OUTPUT}" -D "HEADER=${E_HEADER}" -D "FUNCTION=${E_FUNCTION}"
            -D "FILES=${_files}" -P "${_embed_files_script}"
    DEPENDS ${E_FILES} "${_embed_files_script}" VERBATIM COMMENT "Embedding the page")
endfunction()
