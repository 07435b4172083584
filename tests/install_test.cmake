# Installs the build, builds the project in tests/install against it, runs that, and runs the installed program.
# -D BUILD, WORK, CONSUMER, GENERATOR, TORCH_FOLDER.
function(run)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE _out ERROR_VARIABLE _out RESULT_VARIABLE _status)
  if(_status)
    list(JOIN ARGN " " _command)
    message(FATAL_ERROR "${_command}: exit status ${_status}\n${_out}")
  endif()
endfunction()

file(REMOVE_RECURSE "${WORK}")
file(MAKE_DIRECTORY "${WORK}")
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${WORK}/prefix")
run("${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${CONSUMER}" -B "${WORK}/build" "-DCMAKE_PREFIX_PATH=${WORK}/prefix"
    "-DTorch_DIR=${TORCH_FOLDER}" -DCMAKE_BUILD_TYPE=Release)
run("${CMAKE_COMMAND}" --build "${WORK}/build")
run("${CMAKE_COMMAND}" -E chdir "${WORK}" "${WORK}/build/consumer")
run("${WORK}/prefix/bin/beholder" --version)
file(GLOB_RECURSE _all RELATIVE "${WORK}/prefix" "${WORK}/prefix/*")
foreach(_file IN LISTS _all)
  if(_file MATCHES "\\.cpp$|CMakeLists")
    message(FATAL_ERROR "${_file} is installed; expected headers, libraries, the program and the CMake package")
  endif()
endforeach()
