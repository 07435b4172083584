# `cmake --install`: headers, libraries, and a package for find_package(beholder) with beholder::core and
# beholder::callbacks. (The program is installed by tools/.)
include(CMakePackageConfigHelpers)
include("${CMAKE_CURRENT_LIST_DIR}/PublicHeaders.cmake")

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/beholder")
set(_libraries beholder_build beholder_torch beholder_core)
if(TARGET beholder_callbacks)
  list(APPEND _libraries beholder_callbacks)
endif()
install(TARGETS ${_libraries} EXPORT beholder
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT beholder NAMESPACE beholder:: FILE beholderTargets.cmake DESTINATION "${_package}")

foreach(_header IN LISTS BEHOLDER_PUBLIC_HEADERS)
  get_filename_component(_folder "${_header}" DIRECTORY)
  # beholder/callbacks/... stands in callbacks/ of the source tree.
  string(REGEX REPLACE "^beholder/callbacks/" "callbacks/" _source "${_header}")
  install(FILES "${PROJECT_SOURCE_DIR}/${_source}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/${_folder}")
endforeach()

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/beholderConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/beholderConfig.cmake" INSTALL_DESTINATION "${_package}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/beholderConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/beholderConfig.cmake" "${PROJECT_BINARY_DIR}/beholderConfigVersion.cmake"
  DESTINATION "${_package}")
